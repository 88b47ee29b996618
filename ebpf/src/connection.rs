//! Whether a socket of this node has a TCP connection: so connections pass that are older than their entry in
//! the flow table, or than the host endpoint.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock_tuple},
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use podgate_common::Tuple;

/// States of a connection whose handshake is over, as bits (include/net/tcp_states.h): established, both of
/// FIN_WAIT, TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 11;

/// The sizes of an IPv4 and an IPv6 tuple, by which the kernel distinguishes the two.
const V4_WORDS: usize = 3;
const V6_WORDS: usize = 9;

/// Of a packet that has come in.
#[inline(never)]
pub(crate) fn exists(context: &TcContext, received: &Tuple) -> bool {
    // Words, as the stack wants them.
    let mut words = MaybeUninit::<[u32; V6_WORDS]>::uninit();
    let place: *mut u32 = words.as_mut_ptr().cast();
    let ports = u32::from(received.source_port.to_be()) | u32::from(received.destination_port.to_be()) << 16;
    // SAFETY: words of it; each is written before the kernel reads it.
    let length = unsafe {
        let put = |at: usize, word: u32| place.add(at).write_volatile(word);
        let put_all = |from: usize, halves: [u64; 2]| {
            for (at, half) in halves.into_iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
                let [low, high] = [half as u32, (half >> 32) as u32];
                put(from + 2 * at, low);
                put(from + 2 * at + 1, high);
            }
        };
        if received.source.is_v4() {
            let word = |address: podgate_common::Address| (address.halves()[1] >> 32) & 0xffff_ffff;
            #[expect(clippy::cast_possible_truncation, reason = "masked")]
            let [source, destination] = [word(received.source) as u32, word(received.destination) as u32];
            put(0, source);
            put(1, destination);
            put(2, ports);
            V4_WORDS
        } else {
            put_all(0, received.source.halves());
            put_all(4, received.destination.halves());
            put(8, ports);
            V6_WORDS
        }
    };
    let size = size_of::<u32>() * length;
    const _: () = assert!(size_of::<bpf_sock_tuple>() == size_of::<u32>() * V6_WORDS);
    // SAFETY: the packet of the running program; as much of the tuple as is given was written. A socket that
    // was found is given back.
    unsafe {
        #[expect(clippy::cast_possible_truncation, reason = "as the kernel has it")]
        let socket = bpf_skc_lookup_tcp(
            context.skb.skb.cast(),
            words.as_mut_ptr().cast(),
            size as u32,
            i64::from(BPF_F_CURRENT_NETNS).cast_unsigned(),
            0,
        );
        if socket.is_null() {
            return false;
        }
        let state = (&raw const (*socket).state).read_volatile();
        bpf_sk_release(socket.cast());
        state < 32 && 1 << state & CONNECTED != 0
    }
}
