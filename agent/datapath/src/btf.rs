//! The running kernel's type information (BTF, `Documentation/bpf/btf.rst`): ids of functions and structures,
//! and offsets.
//!
//! Only what podgate asks for. Every read is bounds-checked: what is cut short or contradicts itself has no
//! answers.

use std::collections::HashMap;

/// Where the kernel shows it.
pub(super) const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

/// Kinds of types that are asked for.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNCTION: u32 = 12;

/// Types by kind and name, with what is needed to look into structures.
#[derive(Debug)]
pub(super) struct Btf<'a> {
    bytes: &'a [u8],
    strings: usize,
    by_name: HashMap<(u32, &'a [u8]), Type>,
    by_id: HashMap<u32, Type>,
}

#[derive(Clone, Copy, Debug)]
struct Type {
    id: u32,
    /// Bytes, of structures.
    size: u32,
    /// Place of the first member and number of members.
    members: (usize, usize),
    /// Offsets hold the sizes of bit fields, too.
    has_bit_fields: bool,
}

/// Where a member stands in its structure, in bits.
#[derive(Clone, Copy, Debug)]
struct BitField {
    bit: u32,
    /// Of a bit field; 0: the member is none.
    size: u32,
}

impl<'a> Btf<'a> {
    /// `None` when the bytes are no BTF, or of a kind from the future that cannot be stepped over.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| u32_at(bytes, at);
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = word(4)? as usize;
        let (types, length, strings) =
            (header + word(8)? as usize, word(12)? as usize, header + word(16)? as usize);
        let mut btf = Self { bytes, strings, by_name: HashMap::new(), by_id: HashMap::new() };
        let (mut at, mut id) = (types, 0);
        while at < types.checked_add(length)? {
            id += 1;
            let (name, info, size) = (word(at)?, word(at + 4)?, word(at + 8)?);
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let members = at + 12;
            if matches!(kind, STRUCT | UNION | FUNCTION) {
                let found = Type { id, size, members: (members, count), has_bit_fields: info >> 31 != 0 };
                if kind != FUNCTION {
                    btf.by_id.insert(id, found);
                }
                btf.by_name.entry((kind, btf.name(name)?)).or_insert(found);
            }
            at = members + extra(kind, count)?;
        }
        Some(btf)
    }

    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.by_name.get(&(FUNCTION, name.as_bytes())).map(|found| found.id)
    }

    pub(super) fn structure(&self, name: &str) -> Option<u32> {
        self.by_name.get(&(STRUCT, name.as_bytes())).map(|found| found.id)
    }

    /// Bytes of a structure.
    pub(super) fn size(&self, structure: &str) -> Option<u32> {
        self.by_name.get(&(STRUCT, structure.as_bytes())).map(|found| found.size)
    }

    /// Offset in bytes of a member, also of one in an unnamed part of the structure.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        match self.place(structure, member)? {
            BitField { bit, size: 0 } if bit.is_multiple_of(8) => Some(bit / 8),
            _ => None,
        }
    }

    /// Where a bit field of one bit stands, counted in bits.
    pub(super) fn bit(&self, structure: &str, member: &str) -> Option<u32> {
        match self.place(structure, member)? {
            BitField { bit, size: 1 } => Some(bit),
            _ => None,
        }
    }

    fn place(&self, structure: &str, member: &str) -> Option<BitField> {
        let found = self.by_name.get(&(STRUCT, structure.as_bytes()))?;
        self.place_in(found, member.as_bytes(), 0)
    }

    fn place_in(&self, found: &Type, member: &[u8], depth: u32) -> Option<BitField> {
        const DEEPEST: u32 = 4;
        let (first, count) = found.members;
        for at in (0..count).map(|index| first + index * 12) {
            let name = self.name(u32_at(self.bytes, at)?)?;
            let bits = u32_at(self.bytes, at + 8)?;
            let place = match found.has_bit_fields {
                true => BitField { bit: bits & 0x00ff_ffff, size: bits >> 24 },
                false => BitField { bit: bits, size: 0 },
            };
            if name == member {
                return Some(place);
            }
            if name.is_empty()
                && depth < DEEPEST
                && let Some(part) = self.by_id.get(&u32_at(self.bytes, at + 4)?)
                && let Some(inside) = self.place_in(part, member, depth + 1)
            {
                return Some(BitField { bit: place.bit.checked_add(inside.bit)?, ..inside });
            }
        }
        None
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.strings.checked_add(offset as usize)?..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    }
}

/// Bytes that follow the description of a type of this kind.
fn extra(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        3 => 12,
        STRUCT | UNION | 15 | 19 => count * 12,
        // Enumeration, prototype.
        6 | 13 => count * 8,
        _ => return None,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A structure `outer { int-like 1 at 8; struct { member at 4 } at 16 }`, a function, and a structure
    /// `flags` of bit fields: `one` is bit 13, `two` the two bits after it, `whole` the next byte.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0direct\0hidden\0flags\0one\0two\0whole\0work\0";
        let name = |text: &str| {
            let needle = [b"\0", text.as_bytes(), b"\0"].concat();
            let at = strings.windows(needle.len()).position(|window| window == needle);
            u32::try_from(at.expect("a name of the sample") + 1).expect("few bytes")
        };
        let types: Vec<u32> = [
            // 1: the unnamed part.
            &[0, STRUCT << 24 | 1, 8, name("hidden"), 0, 32][..],
            // 2: outer.
            &[name("outer"), STRUCT << 24 | 2, 24, name("direct"), 0, 64, 0, 1, 128],
            // 3: the function.
            &[name("work"), FUNCTION << 24, 0],
            // 4: the bit fields.
            &[name("flags"), 1 << 31 | STRUCT << 24 | 3, 4],
            &[name("one"), 0, 1 << 24 | 13, name("two"), 0, 2 << 24 | 14, name("whole"), 0, 16],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let length = u32::try_from(types.len()).expect("few bytes");
        let header = [24, 0, length, length, u32::try_from(strings.len()).expect("few bytes")];
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_are_found_also_in_unnamed_parts() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("the sample is in order");
        assert_eq!(btf.structure("outer"), Some(2));
        assert_eq!(btf.size("outer"), Some(24));
        assert_eq!(btf.offset("outer", "direct"), Some(8));
        assert_eq!(btf.offset("outer", "hidden"), Some(20));
        assert_eq!(btf.offset("outer", "missing"), None);
        assert_eq!(btf.function("work"), Some(3));
        assert_eq!(btf.function("outer"), None);
    }

    #[test]
    fn only_a_bit_field_of_one_bit_is_a_bit_and_none_has_an_offset_in_bytes() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).expect("the sample is in order");
        let table =
            [("one", Some(13), None), ("two", None, None), ("whole", None, Some(2)), ("none", None, None)];
        for (member, bit, offset) in table {
            assert_eq!((btf.bit("flags", member), btf.offset("flags", member)), (bit, offset), "{member}");
        }
        assert_eq!(btf.bit("outer", "direct"), None, "a whole member");
    }

    #[test]
    fn what_is_cut_short_or_altered_gives_no_answer_and_no_panic() {
        let bytes = sample();
        for length in 0..bytes.len() - 1 {
            assert!(
                Btf::parse(&bytes[..length]).is_none_or(|btf| btf.function("work").is_none()),
                "{length}"
            );
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut altered = bytes.clone();
                altered[at] = value;
                if let Some(btf) = Btf::parse(&altered) {
                    btf.offset("outer", "hidden");
                    btf.bit("flags", "one");
                }
            }
        }
    }
}
