//! Bytes of a message within its packet.

use super::Walk;
use crate::{Packet, packet::forget};

impl Walk {
    /// `N` bytes of the message at a place in the packet; `None` when it ends before.
    #[inline(always)]
    pub(super) fn read<const N: usize>(&self, packet: &impl Packet, at: u32) -> Option<[u8; N]> {
        let at = at as usize;
        if at + N > forget(&self.end) as usize {
            return None;
        }
        packet.read::<N>(at)
    }

    /// One byte. With the one before it, as the verifier wants two: before a name there is always one.
    #[inline(always)]
    pub(super) fn byte(&self, packet: &impl Packet, at: u32) -> Option<u8> {
        if at >= forget(&self.end) {
            return None;
        }
        // The compiler must not see through it: the bounds of the place are checked as they stand.
        let before = forget(&at.wrapping_sub(1));
        let [_, byte] = packet.read::<2>(before as usize)?;
        Some(byte)
    }
}
