//! What the kernel's connection tracking knows of a packet: `skb->_nfct`, and the two tuples of its
//! `nf_conn`.
//!
//! Where they stand is the loader's to say, from the kernel's type information.

use aya_ebpf::programs::TcContext;
use podgate_common::{Address, Protocol, Tracked, Tuple};

use crate::{config::config, kernel};

/// The low bits of `skb->_nfct` say how the packet relates to the connection (`enum ip_conntrack_info`).
const RELATION: usize = 7;
/// `IP_CT_IS_REPLY`: this value and those after it are of the server's packets; the last one, of untracked
/// ones.
const REPLY: usize = 3;
const UNTRACKED: usize = 7;

/// `struct nf_conntrack_tuple_hash`, whose layout user space compares with the kernel's type information: a
/// list node, then the tuple: source (address, port, family), destination (address, port, protocol,
/// direction).
#[repr(C)]
struct TupleHash {
    node: [usize; 2],
    source: [u32; 4],
    source_port: u16,
    family: u16,
    destination: [u32; 4],
    destination_port: u16,
    protocol: u8,
    direction: u8,
}

/// Fills in what is known; false when nothing is.
#[inline(always)]
pub(crate) fn read(context: &TcContext, into: &mut Tracked) -> bool {
    let connection_type = config!(tracking.connection_type);
    if connection_type == 0 {
        return false;
    }
    // SAFETY: the kernel's verifier checks the calls and every load behind them; a load from memory that is
    // gone gives zeros.
    unsafe {
        let skb = kernel::sk_buff(context);
        let tagged = skb.add(config!(tracking.connection) as usize).cast::<usize>().read_volatile();
        let (connection, relation) = (tagged & !RELATION, tagged & RELATION);
        if connection == 0 || relation == UNTRACKED {
            return false;
        }
        let connection = kernel::structure(connection, connection_type);
        let tuples = connection.add(config!(tracking.tuples) as usize).cast::<TupleHash>();
        into.is_reply = relation >= REPLY;
        tuple(tuples, &mut into.original);
        tuple(tuples.add(1), &mut into.reply);
    }
    true
}

/// # Safety
///
/// `from` is memory that the verifier lets be read.
#[inline(always)]
unsafe fn tuple(from: *const TupleHash, into: &mut Tuple) {
    const IPV6: u16 = 10;
    // SAFETY: the caller's.
    unsafe {
        let v6 = (&raw const (*from).family).read_volatile() == IPV6;
        into.source = address(&raw const (*from).source, v6);
        into.destination = address(&raw const (*from).destination, v6);
        into.protocol = u32::from((&raw const (*from).protocol).read_volatile());
        into.source_port = u16::from_be((&raw const (*from).source_port).read_volatile());
        into.destination_port = u16::from_be((&raw const (*from).destination_port).read_volatile());
    }
    if Protocol::try_from(into.protocol).is_err() {
        // Of an ICMP echo: the identifier as the source port, type and code in place of the other one.
        into.destination_port = 0;
    }
}

/// # Safety
///
/// As above.
#[inline(always)]
unsafe fn address(words: *const [u32; 4], v6: bool) -> Address {
    let word = |at: usize| {
        // SAFETY: one of four.
        unsafe { words.cast::<u32>().add(at).read_volatile() }
    };
    let [a, b, c, d] = [word(0), word(1), word(2), word(3)];
    if v6 { Address::from_words([a, b, c, d]) } else { Address::from_v4(a.to_ne_bytes()) }
}
