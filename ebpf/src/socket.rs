//! Whether a socket of this node has sent a packet: `skb->sk`, and the network namespace that it belongs to.
//!
//! A packet keeps its socket on its way through a veth, and through a bridge, so that a socket alone may be a
//! pod's. Where the namespaces stand is the loader's to say, from the kernel's type information.

use aya_ebpf::{helpers::bpf_sk_fullsock, programs::TcContext};

use crate::{config::config, kernel};

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// False also when it cannot be found out.
#[inline(always)]
pub(crate) fn is_local(context: &TcContext) -> bool {
    if config!(sockets.socket) == 0 {
        return false;
    }
    // SAFETY: the kernel's verifier checks the loads and the call; a load from memory that is gone gives
    // zeros.
    unsafe {
        let socket = (&raw const (*context.skb.skb).__bindgen_anon_2.sk).read_volatile();
        if socket.is_null() {
            return false;
        }
        let socket = bpf_sk_fullsock(socket);
        if socket.is_null() {
            return false;
        }
        // A test run gives each packet a socket of no type. The sockets by which a kernel answers echo
        // requests serve all its namespaces.
        let (kind, protocol) =
            ((&raw const (*socket).type_).read_volatile(), (&raw const (*socket).protocol).read_volatile());
        if kind == 0 || protocol == ICMP || protocol == ICMPV6 {
            return false;
        }
        let skb = kernel::sk_buff(context);
        let member = |of: *const u8, offset: u32| of.add(offset as usize).cast::<*const u8>().read_volatile();
        let socket = member(skb, config!(sockets.socket));
        let device = member(skb, config!(sockets.device));
        if socket.is_null() || device.is_null() {
            return false;
        }
        member(socket, config!(sockets.socket_namespace)) == member(device, config!(sockets.device_namespace))
    }
}
