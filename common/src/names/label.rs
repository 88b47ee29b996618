//! A label of a name, as the key under which the tree of names has its nodes.

use crate::packet::overwrite;

/// A label below a node of the tree. The label itself is the key, so that no two are taken for each other;
/// its length is part of it, as a label may have bytes of 0.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey {
    /// As in a message: the length, then the label, here in lower case, then zeros.
    text: [u64; WORDS],
    /// The node above; 0: the root.
    pub parent: u32,
    /// Always 0: keys of maps have no padding.
    zero: u32,
}

const WORDS: usize = LabelKey::BYTES / 8;

impl LabelKey {
    /// Of a label and its length.
    pub const BYTES: usize = 64;
    /// The longest label (RFC 1035, 2.3.4).
    pub const MAX_LABEL: usize = 63;

    pub const EMPTY: Self = Self { text: [0; WORDS], parent: 0, zero: 0 };

    /// No label, but where the tree keeps the number of its next node.
    pub const COUNTER: Self = Self { parent: u32::MAX, ..Self::EMPTY };

    /// `None`: a label has 1 to 63 bytes.
    pub fn new(parent: u32, label: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        bytes.get_mut(1..=label.len())?.copy_from_slice(label);
        bytes[0] = u8::try_from(label.len()).ok().filter(|length| *length != 0)?;
        let mut key = Self { parent, ..Self::EMPTY };
        for (word, bytes) in key.text.iter_mut().zip(bytes.as_chunks().0) {
            *word = lower_case(u64::from_ne_bytes(*bytes));
        }
        Some(key)
    }

    /// The label, in lower case.
    pub fn label(&self) -> Label {
        let mut bytes = [0; Self::BYTES];
        for (word, bytes) in self.text.iter().zip(bytes.as_chunks_mut().0) {
            *bytes = word.to_ne_bytes();
        }
        Label(bytes)
    }

    /// Makes room for the bytes of a label of a message, and gives the memory for them.
    #[inline(always)]
    pub(super) fn begin(&mut self, parent: u32) -> &mut [u8; Self::BYTES] {
        // One by one: else a function is called for it.
        for word in &mut self.text {
            overwrite(word, 0);
        }
        overwrite(&mut self.parent, parent);
        overwrite(&mut self.zero, 0);
        // SAFETY: as many bytes, of which all values are valid.
        unsafe { &mut *self.text.as_mut_ptr().cast() }
    }

    /// After so many bytes and their length were written: upper case counts as lower case (RFC 4343).
    #[inline(always)]
    pub(super) fn fold(&mut self, length: u8) {
        for (word, first) in self.text.iter_mut().zip((0..).step_by(8)) {
            // The rest is zeros.
            if first > length {
                break;
            }
            let folded = lower_case(*word);
            overwrite(word, folded);
        }
    }
}

/// A label by its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Label([u8; LabelKey::BYTES]);

impl AsRef<[u8]> for Label {
    fn as_ref(&self) -> &[u8] {
        let length = usize::from(self.0[0]).min(LabelKey::MAX_LABEL);
        &self.0[1..=length]
    }
}

/// Each of eight bytes that is an ASCII letter in lower case; all others stay. A length is below 64, where no
/// letter is.
#[inline(always)]
const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let low = word & !HIGH;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let after_z = low + ONES * (0x7f - b'Z' as u64);
    let is_upper = from_a & !after_z & !word & HIGH;
    word | is_upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_folded_as_ascii_is() {
        for byte in 0..=u8::MAX {
            let word = u64::from_ne_bytes([byte, 0, b'A', 0xff, byte, b'@', b'[', byte]);
            let lower = byte.to_ascii_lowercase();
            let expected = [lower, 0, b'a', 0xff, lower, b'@', b'[', lower];
            assert_eq!(lower_case(word).to_ne_bytes(), expected, "byte {byte:#x}");
        }
    }

    #[test]
    fn a_label_is_not_another_one_that_goes_on_with_zeros() {
        assert_ne!(LabelKey::new(1, b"good"), LabelKey::new(1, b"good\0"));
        assert_ne!(LabelKey::new(1, b"good"), LabelKey::new(2, b"good"));
        assert_eq!(LabelKey::new(1, b"GooD"), LabelKey::new(1, b"gOOd"));
        assert_eq!(LabelKey::new(1, b""), None);
        assert_eq!(LabelKey::new(1, &[b'a'; 64]), None);
        let longest = LabelKey::new(1, &[b'A'; 63]).expect("63 bytes are a label");
        assert_eq!(longest.label().as_ref(), [b'a'; 63]);
    }
}
