//! Fits the programs to this agent and to the running kernel, before aya sees the object.
//!
//! The words of the configuration stand in the code as placeholders, for constants cost no memory access. aya
//! knows neither kernel functions nor offsets that differ between kernels: the programs call two of them
//! under placeholder numbers, and each call gets its number in this kernel here. A kernel that lacks any of
//! it (before Linux 6.2, without BTF, without connection tracking) gets programs that do not ask: what the
//! node has masqueraded is then evaluated by the node's address.

use std::fs;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, SectionKind};
use podgate_common::{Config, HookMark, SocketOffsets, Tracking, kernel_function};

use super::btf::{self, Btf};

/// An object of podgate's, ready to be loaded.
#[derive(Clone, Debug)]
pub struct Linked {
    /// ELF, with the configuration as constants of the code.
    pub object: Vec<u8>,
    /// What its programs can read of the kernel.
    pub reads: KernelReads,
}

/// What programs can read of the kernel, as this process sees the kernel's type information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelReads {
    /// Connection tracking.
    pub tracking: bool,
    /// At which hook of a veth they run.
    pub hooks: bool,
    /// Replies of resolvers, for names.
    pub names: bool,
}

/// Links an object of podgate's; what the configuration has to say of the kernel is found out here.
///
/// # Errors
///
/// When the bytes are no ELF object, or a word of the configuration is too large for a constant.
pub fn linked(object: &[u8], config: Config) -> Result<Linked> {
    let access = fs::read(btf::PATH)
        .ok()
        .and_then(|bytes| Btf::parse(&bytes).map(|btf| Access::of(&btf)))
        .unwrap_or_default();
    let Access { tracking, hook_mark, sockets, .. } = access;
    // What says of a function that it is global stands there.
    let has_functions =
        object::File::parse(object).is_ok_and(|file| file.section_by_name(".BTF.ext").is_some());
    let names = config.names & u32::from(has_functions);
    let config = Config { tracking, hook_mark, sockets, names, ..config };
    Ok(Linked {
        object: link(object, access, &config)?,
        reads: KernelReads {
            tracking: tracking != Tracking::default(),
            hooks: hook_mark != HookMark::default(),
            names: names != 0,
        },
    })
}

/// What this kernel lets programs read of its own structures; zeros where it cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Access {
    tracking: Tracking,
    hook_mark: HookMark,
    sockets: SocketOffsets,
    cast_to_kern_ctx: Option<u32>,
    rdonly_cast: Option<u32>,
}

impl Access {
    fn of(btf: &Btf<'_>) -> Self {
        let cast_to_kern_ctx = btf.function("bpf_cast_to_kern_ctx");
        let rdonly_cast = btf.function("bpf_rdonly_cast");
        let hook_mark = cast_to_kern_ctx.and_then(|_| hook_mark(btf)).unwrap_or_default();
        let sockets = cast_to_kern_ctx.and_then(|_| sockets(btf)).unwrap_or_default();
        let tracking = cast_to_kern_ctx.and(rdonly_cast).and_then(|_| tracking(btf)).unwrap_or_default();
        Self { tracking, hook_mark, sockets, cast_to_kern_ctx, rdonly_cast }
    }

    /// Of the function with this placeholder.
    fn number(&self, placeholder: u32) -> Option<Option<u32>> {
        match placeholder as usize {
            kernel_function::CAST_TO_KERN_CTX => Some(self.cast_to_kern_ctx),
            kernel_function::RDONLY_CAST => Some(self.rdonly_cast),
            _ => None,
        }
    }
}

fn tracking(btf: &Btf<'_>) -> Option<Tracking> {
    // The layout that the programs know: list node, source, destination.
    let is_known = btf.size("nf_conntrack_tuple_hash")? == 56
        && btf.offset("nf_conntrack_tuple_hash", "tuple")? == 16
        && btf.size("nf_conntrack_tuple")? == 40
        && btf.offset("nf_conntrack_tuple", "src")? == 0
        && btf.offset("nf_conntrack_tuple", "dst")? == 20;
    is_known.then_some(())?;
    Some(Tracking {
        connection_type: btf.structure("nf_conn")?,
        connection: btf.offset("sk_buff", "_nfct")?,
        tuples: btf.offset("nf_conn", "tuplehash")?,
    })
}

fn sockets(btf: &Btf<'_>) -> Option<SocketOffsets> {
    Some(SocketOffsets {
        socket: btf.offset("sk_buff", "sk")?,
        socket_namespace: btf.offset("sock", "__sk_common")? + btf.offset("sock_common", "skc_net")?,
        device: btf.offset("sk_buff", "dev")?,
        device_namespace: btf.offset("net_device", "nd_net")?,
    })
}

fn hook_mark(btf: &Btf<'_>) -> Option<HookMark> {
    let bit = btf.bit("sk_buff", "tc_at_ingress")?;
    Some(HookMark { byte: bit / 8, mask: 1 << (bit % 8) })
}

/// One instruction (`struct bpf_insn`): operation, registers, offset, immediate value.
const INSTRUCTION: usize = 8;
const CALL: u8 = 0x85;
/// The only instruction that takes the room of two.
const LOAD_DOUBLE_WORD: u8 = 0x18;
/// Moves a constant of 32 bits to a register of 64, to that of a function's result (`r0`) when no register is
/// named.
const MOVE: u8 = 0xb7;
/// Source register of a call: the immediate value is the number of a kernel function.
const PSEUDO_KERNEL_FUNCTION: u8 = 2 << 4;

/// The object, with the configuration, and with calls that this kernel understands.
fn link(object: &[u8], access: Access, config: &Config) -> Result<Vec<u8>> {
    let mut linked = object.to_vec();
    let file = object::File::parse(object).context("the BPF object is no ELF file")?;
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, size)) = section.file_range() else { continue };
        let code = usize::try_from(start)
            .ok()
            .zip(usize::try_from(start + size).ok())
            .and_then(|(start, end)| linked.get_mut(start..end))
            .context("a section of the BPF object lies outside of it")?;
        link_code(code, access, config)?;
    }
    Ok(linked)
}

fn link_code(code: &mut [u8], access: Access, config: &Config) -> Result<()> {
    let mut second_half = false;
    for instruction in code.as_chunks_mut::<INSTRUCTION>().0 {
        let [operation, registers, _, _, immediate @ ..] = instruction;
        if std::mem::take(&mut second_half) {
            continue;
        }
        second_half = *operation == LOAD_DOUBLE_WORD;
        let value = u32::from_le_bytes(*immediate);
        match (*operation, *registers) {
            (CALL, 0) => {
                let Some(number) = access.number(value) else { continue };
                match number {
                    Some(_) => *registers = PSEUDO_KERNEL_FUNCTION,
                    // Never reached, for the configuration says that there is nothing to ask.
                    None => *operation = MOVE,
                }
                *immediate = number.unwrap_or_default().to_le_bytes();
            }
            (MOVE, _) => {
                let Some(word) = word(config, value) else { continue };
                // The kernel extends its sign.
                let word =
                    i32::try_from(word).context("a word of the configuration has more than 31 bits")?;
                *immediate = word.to_le_bytes();
            }
            _ => {}
        }
    }
    Ok(())
}

/// The word of the configuration that a placeholder stands for.
fn word(config: &Config, placeholder: u32) -> Option<u32> {
    let offset = placeholder.checked_sub(Config::PLACEHOLDER)? as usize;
    offset.is_multiple_of(4).then(|| config.words().get(offset / 4).copied())?
}

#[cfg(test)]
mod tests {
    use podgate_common::{FlowSeed, Timeouts};

    use super::*;

    fn insn(operation: u8, registers: u8, immediate: u32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [operation, registers, 0, 0, a, b, c, d]
    }

    fn call(number: usize) -> [u8; 8] {
        insn(CALL, 0, u32::try_from(number).expect("a placeholder"))
    }

    fn config() -> Config {
        Config {
            timeouts: Timeouts { tcp: 7, tcp_half: 8, stream: 9, unreplied: 10, refresh: 11 },
            recheck: 0,
            masqueraded: 1,
            encapsulation: 1,
            shortcut: 1,
            tracking: Tracking::default(),
            hook_mark: HookMark::default(),
            sockets: SocketOffsets::default(),
            flow_sets: 12,
            flow_seed: FlowSeed([1, 2, 3, 4, 5, 6, 7, 8, 9, Config::MAX_WORD]),
            reorders: 1,
            names: 1,
            names_keep: 60,
            jiffies_per_second: 250,
        }
    }

    fn after(mut code: Vec<[u8; 8]>, access: Access, config: &Config) -> Result<Vec<[u8; 8]>> {
        link_code(code.as_flattened_mut(), access, config)?;
        Ok(code)
    }

    #[test]
    fn calls_get_the_numbers_of_this_kernel_and_nothing_else_changes() {
        let access =
            Access { cast_to_kern_ctx: Some(0x0102), rdonly_cast: Some(0x0304), ..Access::default() };
        let data = call(kernel_function::RDONLY_CAST);
        let load = insn(LOAD_DOUBLE_WORD, 1, 0x0909_0909);
        let code = vec![
            call(kernel_function::CAST_TO_KERN_CTX),
            call(kernel_function::RDONLY_CAST),
            call(1),
            load,
            data,
        ];
        let expected = [insn(CALL, 0x20, 0x0102), insn(CALL, 0x20, 0x0304), call(1), load, data];
        let linked = after(code, access, &config()).expect("small words");
        assert_eq!(linked, expected, "the second half of a load only looks like a call");
    }

    #[test]
    fn without_the_functions_the_calls_are_gone() {
        let code = vec![call(kernel_function::CAST_TO_KERN_CTX)];
        assert_eq!(after(code, Access::default(), &config()).expect("small words"), [insn(MOVE, 0, 0)]);
    }

    #[test]
    fn each_word_of_the_configuration_is_put_in_and_other_numbers_stay() {
        let config = config();
        for (number, word) in (0..).zip(config.words()) {
            let placeholder = Config::PLACEHOLDER + 4 * number;
            let code = vec![insn(MOVE, 3, placeholder)];
            let linked = after(code, Access::default(), &config).expect("small words");
            assert_eq!(linked, [insn(MOVE, 3, word)], "word {number}");
        }
        let end = Config::PLACEHOLDER + 4 * u32::try_from(Config::WORDS).expect("few words");
        for number in [0, 1, Config::PLACEHOLDER - 4, Config::PLACEHOLDER + 1, end, u32::MAX] {
            let code = vec![insn(MOVE, 3, number)];
            assert_eq!(
                after(code.clone(), Access::default(), &config).expect("small words"),
                code,
                "{number}"
            );
        }
    }

    #[test]
    fn a_word_that_is_no_constant_is_refused() {
        let config = Config { flow_sets: Config::MAX_WORD + 1, ..config() };
        let offset = u32::try_from(std::mem::offset_of!(Config, flow_sets)).expect("a small struct");
        let code = vec![insn(MOVE, 3, Config::PLACEHOLDER + offset)];
        assert!(after(code, Access::default(), &config).is_err());
    }
}
