//! Links the programs to the running kernel's connection tracking, or takes that part out of them.
//!
//! aya knows neither kernel functions nor offsets that differ between kernels. The programs call two kernel functions
//! under placeholder numbers ([`kernel_function`]); here each call gets its number in this kernel, before aya sees the
//! object. A kernel that lacks any part of it (before Linux 6.2, without BTF, without connection tracking) gets programs
//! that do not ask: what the node has masqueraded is then judged by the node's address.

use std::fs;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, SectionKind};
use podgate_common::{Tracking, kernel_function};

use super::btf::{self, Btf};

/// An object of podgate's, linked to this kernel, and where its programs find connection tracking.
///
/// # Errors
///
/// When the bytes are no ELF object.
pub fn linked(object: &[u8]) -> Result<(Vec<u8>, Option<Tracking>)> {
    let access = Access::of_this_kernel();
    Ok((link(object, access)?, access.map(|access| access.tracking)))
}

/// How this kernel's connection tracking is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Access {
    tracking: Tracking,
    cast_to_kern_ctx: u32,
    rdonly_cast: u32,
}

impl Access {
    /// `None`: this kernel cannot be asked.
    fn of_this_kernel() -> Option<Self> {
        let bytes = fs::read(btf::PATH).ok()?;
        Self::of(&Btf::parse(&bytes)?)
    }

    fn of(btf: &Btf<'_>) -> Option<Self> {
        // The layout that the programs know: list node, source, destination.
        let is_known = btf.size("nf_conntrack_tuple_hash")? == 56
            && btf.offset("nf_conntrack_tuple_hash", "tuple")? == 16
            && btf.size("nf_conntrack_tuple")? == 40
            && btf.offset("nf_conntrack_tuple", "src")? == 0
            && btf.offset("nf_conntrack_tuple", "dst")? == 20;
        is_known.then_some(())?;
        Some(Self {
            tracking: Tracking {
                connection_type: btf.structure("nf_conn")?,
                connection: btf.offset("sk_buff", "_nfct")?,
                tuples: btf.offset("nf_conn", "tuplehash")?,
            },
            cast_to_kern_ctx: btf.function("bpf_cast_to_kern_ctx")?,
            rdonly_cast: btf.function("bpf_rdonly_cast")?,
        })
    }
}

/// One instruction (`struct bpf_insn`): operation, registers, offset, immediate value.
const INSTRUCTION: usize = 8;
const CALL: u8 = 0x85;
/// The only instruction that takes the room of two.
const LOAD_DOUBLE_WORD: u8 = 0x18;
/// `r0 = value`
const SET_RESULT: u8 = 0xb7;
/// Source register of a call: the immediate value is the number of a kernel function.
const PSEUDO_KERNEL_FUNCTION: u8 = 2 << 4;

/// The object, with calls that this kernel understands.
fn link(object: &[u8], access: Option<Access>) -> Result<Vec<u8>> {
    let mut linked = object.to_vec();
    let file = object::File::parse(object).context("the BPF object is no ELF file")?;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, size)) = section.file_range() else { continue };
        let code = usize::try_from(start)
            .ok()
            .zip(usize::try_from(start + size).ok())
            .and_then(|(start, end)| linked.get_mut(start..end))
            .context("a section of the BPF object lies outside of it")?;
        link_code(code, access);
    }
    Ok(linked)
}

fn link_code(code: &mut [u8], access: Option<Access>) {
    let mut second_half = false;
    for instruction in code.chunks_exact_mut(INSTRUCTION) {
        let [operation, registers, _, _, immediate @ ..] = instruction else { continue };
        if std::mem::take(&mut second_half) {
            continue;
        }
        second_half = *operation == LOAD_DOUBLE_WORD;
        let number = |access: Access| match <[u8; 4]>::try_from(&*immediate).map(u32::from_le_bytes) {
            Ok(value) if value as usize == kernel_function::CAST_TO_KERN_CTX => Some(access.cast_to_kern_ctx),
            Ok(value) if value as usize == kernel_function::RDONLY_CAST => Some(access.rdonly_cast),
            _ => None,
        };
        if *operation != CALL || *registers != 0 {
            continue;
        }
        let Some(function) = number(access.unwrap_or_default()) else { continue };
        if access.is_some() {
            *registers = PSEUDO_KERNEL_FUNCTION;
        } else {
            // Never reached, for the configuration says that there is nothing to ask.
            *operation = SET_RESULT;
        }
        immediate.copy_from_slice(&function.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: usize) -> [u8; 8] {
        let number = u32::try_from(number).expect("a placeholder").to_le_bytes();
        [CALL, 0, 0, 0, number[0], number[1], number[2], number[3]]
    }

    #[test]
    fn calls_get_the_numbers_of_this_kernel_and_nothing_else_changes() {
        let access = Access { tracking: Tracking::default(), cast_to_kern_ctx: 0x0102, rdonly_cast: 0x0304 };
        let data = call(kernel_function::RDONLY_CAST);
        let load = [LOAD_DOUBLE_WORD, 1, 0, 0, 9, 9, 9, 9];
        let code = [
            call(kernel_function::CAST_TO_KERN_CTX),
            call(kernel_function::RDONLY_CAST),
            call(1),
            load,
            data,
        ];
        let mut linked = code.concat();
        link_code(&mut linked, Some(access));
        let expected = [[CALL, 0x20, 0, 0, 2, 1, 0, 0], [CALL, 0x20, 0, 0, 4, 3, 0, 0], call(1), load, data];
        assert_eq!(linked, expected.concat(), "the second half of a load only looks like a call");
    }

    #[test]
    fn without_the_functions_the_calls_are_gone() {
        let mut code = call(kernel_function::CAST_TO_KERN_CTX).to_vec();
        link_code(&mut code, None);
        assert_eq!(code, [SET_RESULT, 0, 0, 0, 0, 0, 0, 0]);
    }
}
