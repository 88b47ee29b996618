//! Crafted packets of user space, as the parser reads them: for `explain`, tests and fuzzers.
//! No kernel tracks them.

use super::{Packet, Start, Tracked, Tuple};
use crate::PartialMessage;

/// A frame with its Ethernet header.
impl Packet for &[u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.get(..LENGTH)
    }

    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()> {
        let bytes = self.get(offset..offset.checked_add(length)?)?;
        into.get_mut(..length).filter(|into| !into.is_empty())?.copy_from_slice(bytes);
        Some(())
    }

    fn copy(&self, offset: usize, length: usize, into: &mut [u8; PartialMessage::PART]) -> Option<()> {
        let bytes = self.get(offset..offset.checked_add(length)?)?;
        into.get_mut(..length).filter(|into| !into.is_empty())?.copy_from_slice(bytes);
        Some(())
    }

    fn pull(&self) {}

    fn tracked(&self, _: &mut Tracked) -> bool {
        false
    }

    fn has_local_socket(&self) -> bool {
        false
    }

    fn has_connection(&self, _: &Tuple) -> bool {
        false
    }
}

impl Start for &[u8] {
    fn u8<const AT: usize>(&self) -> u8 {
        self[AT]
    }

    fn u16<const AT: usize>(&self) -> u16 {
        u16::from_ne_bytes(bytes::<AT, _>(self))
    }

    fn u32<const AT: usize>(&self) -> u32 {
        u32::from_ne_bytes(bytes::<AT, _>(self))
    }

    fn u64<const AT: usize>(&self) -> u64 {
        u64::from_ne_bytes(bytes::<AT, _>(self))
    }
}

fn bytes<const AT: usize, const N: usize>(start: &[u8]) -> [u8; N] {
    *start[AT..].first_chunk().expect("a place within what was asked for")
}

/// A packet on a device without link headers, from its IP header on.
#[cfg(any(test, feature = "frames"))]
#[derive(Clone, Copy, Debug)]
pub struct BareIp<'a>(pub &'a [u8]);

#[cfg(any(test, feature = "frames"))]
impl Packet for BareIp<'_> {
    const LINK_HEADER: usize = 0;

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.0.start::<LENGTH>()
    }

    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()> {
        self.0.load(offset, length, into)
    }

    fn pull(&self) {}

    fn tracked(&self, _: &mut Tracked) -> bool {
        false
    }

    fn has_local_socket(&self) -> bool {
        false
    }

    fn has_connection(&self, _: &Tuple) -> bool {
        false
    }
}
