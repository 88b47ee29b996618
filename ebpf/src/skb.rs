//! A packet as TC hands it over: bytes of its linear part by direct access.

use aya_ebpf::programs::TcContext;
use podgate_common::{Direction, Hook, Packet, Tracked};

use crate::tracking;

/// The verifier wants a bound for every offset. What begins later is not read.
const MAX_OFFSET: usize = 0x1fff;

/// Bytes that are made linear when the headers are not. Longer chains of headers are unreadable.
const PULLED: u32 = 512;

pub(crate) struct Skb<'a> {
    context: &'a TcContext,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) const fn new(context: &'a TcContext) -> Self {
        Self { context }
    }

    /// Where the packet is judged, at this end of its pod's veth.
    #[inline(always)]
    pub(crate) fn hook(&self, direction: Direction) -> Hook {
        // SAFETY: the context is valid while the program runs; the kernel checks the offset of each field.
        let ifindex = unsafe { (*self.context.skb.skb).ifindex };
        Hook { direction, ifindex, via: self.ingress_ifindex() }
    }

    /// The device at which the packet entered the node, 0 if the node's own stack made it.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.context.skb.skb).ingress_ifindex }
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N >= 2, "the verifier learns nothing from a check of one byte") };
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.context.data() + offset;
        if start + N > self.context.data_end() {
            return None;
        }
        // SAFETY: the bytes lie between `data` and `data_end`, which the verifier checks too.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn pull(&self) {
        let linear = self.context.data_end() - self.context.data();
        let wanted = self.context.len().min(PULLED);
        if linear < wanted as usize {
            // When it fails the packet is unreadable, which is judged like any other.
            let _ = self.context.pull_data(wanted);
        }
    }

    #[inline(always)]
    fn tracked(&self, into: &mut Tracked) -> bool {
        tracking::read(self.context, into)
    }
}
