//! A packet as TC hands it over: bytes of its linear part by direct access.

use core::{arch::asm, hint::assert_unchecked};

use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use podgate_common::{Direction, Hook, Packet, PartialMessage, Start, Tracked, Tuple};

use crate::{config::config, connection, kernel, socket, tracking};

/// The verifier wants a bound for every offset. What begins later is not read.
const MAX_OFFSET: usize = 0x1fff;

/// Bytes that are made linear when the headers are not. Longer chains of headers are unreadable.
const PULLED: u32 = 512;

/// `LINK_HEADER`: its bytes, on the device at which the program is.
pub(crate) struct Skb<'a, const LINK_HEADER: usize = ETHERNET_HEADER> {
    context: &'a TcContext,
}

const ETHERNET_HEADER: usize = 14;

#[cfg(not(feature = "trace"))]
impl<'a> Skb<'a, 0> {
    /// On a device without link headers.
    #[inline(always)]
    pub(crate) const fn without_link_header(context: &'a TcContext) -> Self {
        Self { context }
    }
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) const fn new(context: &'a TcContext) -> Self {
        Self { context }
    }

    /// Where the packet is evaluated, at this end of its pod's veth; without a `direction`, the one that is
    /// nearly always right.
    ///
    /// At TC ingress a packet enters the node by the device that it is at. So does, at TC egress, one that
    /// the node sends back: that one passes for a packet of the pod's. Entries name its veth for the other
    /// end, so that it finds none.
    ///
    /// Read again each time: what is kept in registers is missing on the fast path.
    #[inline(always)]
    pub(crate) fn hook(&self, direction: Option<Direction>) -> Hook {
        // SAFETY: the context is valid while the program runs; the kernel checks the offset of each field.
        let ifindex = unsafe { (&raw const (*self.context.skb.skb).ifindex).read_volatile() };
        let ingress_ifindex = self.ingress_ifindex();
        let nearly = if ingress_ifindex == ifindex { Direction::Egress } else { Direction::Ingress };
        Hook { direction: direction.unwrap_or(nearly), ifindex, ingress_ifindex }
    }

    /// Which of a veth's hooks the packet is at, as the kernel notes it.
    #[inline(always)]
    pub(crate) fn direction(&self) -> Direction {
        // SAFETY: the kernel's verifier checks the load.
        let notes =
            unsafe { kernel::sk_buff(self.context).add(config!(hook_mark.byte) as usize).read_volatile() };
        if u32::from(notes) & config!(hook_mark.mask) == 0 { Direction::Ingress } else { Direction::Egress }
    }
}

impl<const LINK_HEADER: usize> Skb<'_, LINK_HEADER> {
    /// Where the packet is evaluated, at a device of the node's own.
    #[cfg(not(feature = "trace"))]
    #[inline(always)]
    pub(crate) fn at_netdev(&self, direction: Direction) -> Hook {
        // SAFETY: the context is valid while the program runs; the kernel checks the offset of each field.
        let ifindex = unsafe { (&raw const (*self.context.skb.skb).ifindex).read_volatile() };
        Hook { direction, ifindex, ingress_ifindex: self.ingress_ifindex() }
    }

    /// Makes as much of the packet readable as can be read.
    #[inline(always)]
    pub(crate) fn pull_message(&self) {
        let linear = self.context.data_end() - self.context.data();
        const MOST: u32 = 0x1fff;
        const _: () = assert!(MOST as usize == MAX_OFFSET);
        let wanted = self.context.len().min(MOST);
        if linear < wanted as usize {
            // When it fails, nothing is learnt from what is missing.
            let _ = self.context.pull_data(wanted);
        }
    }

    /// The device at which the packet entered the node, 0 if at none.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.context.skb.skb).ingress_ifindex).read_volatile() }
    }
}

impl<const LINK_HEADER: usize> Packet for Skb<'_, LINK_HEADER> {
    const LINK_HEADER: usize = LINK_HEADER;

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
    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        let start = self.context.data();
        (start + LENGTH <= self.context.data_end()).then_some(Linear(start))
    }

    #[inline(always)]
    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()> {
        if offset > MAX_OFFSET || length == 0 || length > into.len() {
            return None;
        }
        // SAFETY: room for as many bytes; the kernel checks that the packet has them.
        #[expect(clippy::cast_possible_truncation, reason = "both are small")]
        let loaded = unsafe {
            bpf_skb_load_bytes(
                self.context.skb.skb.cast(),
                offset as u32,
                into.as_mut_ptr().cast(),
                length as u32,
            )
        };
        (loaded == 0).then_some(())
    }

    #[inline(always)]
    fn copy(&self, offset: usize, length: usize, into: &mut [u8; PartialMessage::PART]) -> Option<()> {
        // Before Linux 6.8 the verifier learns nothing from a comparison with 0.
        let less_by_one = length.wrapping_sub(1);
        // SAFETY: a reference is valid to be read from.
        let less_by_one = unsafe { (&raw const less_by_one).read_volatile() };
        if less_by_one >= into.len() {
            return None;
        }
        // SAFETY: as above; where the bytes are in the packet the kernel sees.
        #[expect(clippy::cast_possible_truncation, reason = "both are small")]
        let loaded = unsafe {
            bpf_skb_load_bytes(
                self.context.skb.skb.cast(),
                offset as u32,
                into.as_mut_ptr().cast(),
                (less_by_one + 1) as u32,
            )
        };
        (loaded == 0).then_some(())
    }

    #[inline(always)]
    fn pull(&self) {
        let linear = self.context.data_end() - self.context.data();
        let wanted = self.context.len().min(PULLED);
        if linear < wanted as usize {
            // When it fails the packet is unreadable, which is evaluated like any other.
            let _ = self.context.pull_data(wanted);
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits in network byte order, in a field of 32")]
    fn received_as(&self) -> Option<[u8; 2]> {
        // SAFETY: as above.
        let protocol = unsafe { (&raw const (*self.context.skb.skb).protocol).read_volatile() };
        Some((protocol as u16).to_ne_bytes())
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // SAFETY: as above.
        unsafe { (&raw const (*self.context.skb.skb).vlan_present).read_volatile() != 0 }
    }

    #[inline(always)]
    fn vlan(&self) -> u32 {
        const NUMBER: u32 = 0x0fff;
        // Before Linux 6.2 a tag that was removed leaves its number there.
        if !self.is_tagged() {
            return 0;
        }
        // SAFETY: as above.
        unsafe { (&raw const (*self.context.skb.skb).vlan_tci).read_volatile() & NUMBER }
    }

    #[inline(always)]
    fn tracked(&self, into: &mut Tracked) -> bool {
        tracking::read(self.context, into)
    }

    #[inline(always)]
    fn has_local_socket(&self) -> bool {
        socket::is_local(self.context)
    }

    #[inline(always)]
    fn has_connection(&self, received: &Tuple) -> bool {
        connection::exists(self.context, received)
    }
}

/// Where the linear part begins.
struct Linear(usize);

/// A word of a packet, by one load.
macro_rules! load {
    ($self:ident, $at:ident, $type:ident, $instruction:literal) => {{
        let word: u64;
        // SAFETY: reads within the packet, which the verifier checks.
        unsafe {
            asm!($instruction, out(reg) word, in(reg) $self.0, const $at,
                options(readonly, nostack, preserves_flags));
            assert_unchecked(word <= u64::from($type::MAX));
        }
        word as $type
    }};
}

#[expect(clippy::cast_possible_truncation, reason = "a load fills the rest of its register with zeros")]
impl Start for Linear {
    #[inline(always)]
    fn u8<const AT: usize>(&self) -> u8 {
        load!(self, AT, u8, "{} = *(u8 *)({} + {})")
    }

    #[inline(always)]
    fn u16<const AT: usize>(&self) -> u16 {
        load!(self, AT, u16, "{} = *(u16 *)({} + {})")
    }

    #[inline(always)]
    fn u32<const AT: usize>(&self) -> u32 {
        load!(self, AT, u32, "{} = *(u32 *)({} + {})")
    }

    #[inline(always)]
    fn u64<const AT: usize>(&self) -> u64 {
        load!(self, AT, u64, "{} = *(u64 *)({} + {})")
    }
}
