//! Veths between which packets may take the short cut.

/// One element of the table of open veths, an array: the ifindex of one in the lower half, and above it the
/// tick ([`crate::JIFFIES_PER_TICK`]) in which its agent said so. 0: none.
///
/// The agent says it again all the time, as it looks for what a packet must not go past. Without it the short
/// cut ends by itself.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenVeth(pub u64);

impl OpenVeth {
    pub const NONE: Self = Self(0);

    /// Elements of the table.
    pub const SLOTS: u32 = 1 << 14;

    /// So many seconds it is valid.
    pub const SECONDS: u32 = 5;

    pub const fn new(ifindex: u32, now: u32) -> Self {
        Self(ifindex as u64 | (now as u64) << 32)
    }

    /// Where a veth's element is. 16,384 devices later another one has the same, and one of both is closed.
    #[inline(always)]
    pub const fn slot(ifindex: u32) -> u32 {
        ifindex % Self::SLOTS
    }

    /// Whether it says that this veth is open. `second`: ticks in one.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    pub const fn is(self, ifindex: u32, now: u32, second: u32) -> bool {
        let age = now.wrapping_sub((self.0 >> 32) as u32);
        ifindex != 0 && self.0 as u32 == ifindex && age <= Self::SECONDS * second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_is_open_for_some_seconds_and_no_other_one_is() {
        const SECOND: u32 = 62;
        for now in [0, 5, u32::MAX - 100, u32::MAX] {
            let open = OpenVeth::new(9, now);
            for (later, is_open) in [(0, true), (5 * SECOND, true), (5 * SECOND + 1, false)] {
                assert_eq!(open.is(9, now.wrapping_add(later), SECOND), is_open);
            }
            // Another processor's clock is a tick behind.
            assert!(!open.is(9, now.wrapping_sub(1), SECOND));
            assert!(!open.is(9 + OpenVeth::SLOTS, now, SECOND) && !open.is(0, now, SECOND));
            assert!(!OpenVeth::NONE.is(0, 0, SECOND));
        }
    }
}
