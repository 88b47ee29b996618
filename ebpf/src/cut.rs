//! Cuts a reply of which something is missing behind its question: a truncated reply without records, which
//! makes the client ask again over TCP (RFC 1035, 4.2.1; RFC 7766, 5).
//!
//! The first part of a fragmented datagram becomes a whole one; the parts that follow belong to nothing then.

use core::{
    mem::MaybeUninit,
    ptr::{null_mut, read_volatile},
};

use aya_ebpf::{
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::generated::{bpf_csum_diff, bpf_skb_change_tail, bpf_skb_load_bytes},
    programs::TcContext,
};
use podgate_common::Walk;

const IP: u32 = 14;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
const RECOMPUTE: u64 = BPF_F_RECOMPUTE_CSUM as u64;
/// How much is summed up at a time, and how often: more than the longest question has.
const CHUNK: u32 = 64;
const CHUNKS: u32 = 5;

/// Whether it was done. The lengths are put right last, so that half of it is no message.
#[inline(always)]
pub(crate) fn cut(context: &TcContext, walk: &Walk) -> bool {
    let (message, end) = (walk.message_start(), walk.question_end);
    if message < UDP_HEADER || end <= message || end > 0x1fff {
        return false;
    }
    // SAFETY: the packet of the running program.
    if unsafe { bpf_skb_change_tail(context.skb.skb, end, 0) } != 0 {
        return false;
    }
    write(context, message, end).is_some()
}

#[inline(always)]
fn write(context: &TcContext, message: u32, end: u32) -> Option<()> {
    const TRUNCATED: u8 = 2;
    let udp = message - UDP_HEADER;
    let [flags, more]: [u8; 2] = context.load(message as usize + 2).ok()?;
    store(context, message + 2, &[flags | TRUNCATED, more])?;
    store(context, message + 6, &[0_u8; 6])?;
    let length = be16(end - udp);
    store(context, udp + 4, &length)?;
    store(context, udp + 6, &[0_u8; 2])?;
    let [version, _]: [u8; 2] = context.load(IP as usize).ok()?;
    if version >> 4 == 4 {
        // Without a checksum (RFC 768).
        replace(context, IP + 2, be16(end - IP))?;
        let [part, _]: [u8; 2] = context.load(IP as usize + 6).ok()?;
        return replace(context, IP + 6, [part & 0x40, 0]);
    }
    store(context, IP + 4, &be16(end - IP - IPV6_HEADER))?;
    if udp > IP + IPV6_HEADER {
        store(context, IP + IPV6_HEADER + 2, &[0_u8; 2])?;
    }
    let sum = checksum(context, udp, end)?;
    store(context, udp + 6, &sum.to_be_bytes())
}

/// Of UDP over IPv6, where there must be one (RFC 8200, 8.1).
#[inline(always)]
fn checksum(context: &TcContext, udp: u32, end: u32) -> Option<u16> {
    const UDP: u32 = 17;
    let mut sum = add(context, IP + 8, 32, 0)?;
    let mut at = udp;
    for _ in 0..CHUNKS {
        if at >= end {
            break;
        }
        let length = if end - at < CHUNK { end - at } else { CHUNK };
        sum = add(context, at, length, sum)?;
        at += length;
    }
    // Sums of words as they lie in memory: what is added by value is turned.
    let more = u32::from(u16::from_be_bytes(be16(end - udp))) + UDP;
    let mut folded = u64::from(sum) + u64::from(more.to_be());
    for _ in 0..3 {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let sum = u16::from_be(!(folded as u16));
    Some(if sum == 0 { u16::MAX } else { sum })
}

/// Adds up to [`CHUNK`] bytes of the packet.
#[inline(always)]
fn add(context: &TcContext, at: u32, length: u32, sum: u32) -> Option<u32> {
    const WORDS: usize = (CHUNK / 8) as usize;
    // Words, as the stack wants them, one by one: else a function is called for it.
    let mut bytes = MaybeUninit::<[u64; WORDS]>::uninit();
    let place: *mut u64 = bytes.as_mut_ptr().cast();
    for word in 0..WORDS {
        // SAFETY: a word of it.
        unsafe { place.add(word).write_volatile(0) };
    }
    // The verifier wants to see the bounds, of which the compiler knows some. Before Linux 6.8 it learns
    // nothing from a comparison with 0.
    let less_by_one = length.wrapping_sub(1);
    // SAFETY: a reference is valid to be read from.
    let less_by_one = unsafe { read_volatile(&raw const less_by_one) };
    if less_by_one >= CHUNK {
        return None;
    }
    let length = less_by_one + 1;
    // SAFETY: room for as many bytes; the kernel checks that the packet has them.
    let loaded = unsafe { bpf_skb_load_bytes(context.skb.skb.cast(), at, place.cast(), length) };
    if loaded != 0 {
        return None;
    }
    // SAFETY: only read, as many bytes.
    let sum = unsafe { bpf_csum_diff(null_mut(), 0, place.cast(), CHUNK, sum) };
    #[expect(clippy::cast_possible_truncation, reason = "a sum of 32 bits, or an error that cannot be")]
    #[expect(clippy::cast_sign_loss, reason = "as above")]
    let sum = sum as u32;
    Some(sum)
}

/// Replaces two bytes of an IPv4 header, of which the checksum follows.
#[inline(always)]
fn replace(context: &TcContext, at: u32, by: [u8; 2]) -> Option<()> {
    const CHECKSUM: usize = IP as usize + 10;
    let before: [u8; 2] = context.load(at as usize).ok()?;
    let words = [before, by].map(|bytes| u64::from(u16::from_ne_bytes(bytes)));
    context.l3_csum_replace(CHECKSUM, words[0], words[1], 2).ok()?;
    store(context, at, &by)
}

#[inline(always)]
fn store<const N: usize>(context: &TcContext, at: u32, bytes: &[u8; N]) -> Option<()> {
    context.store(at as usize, bytes, RECOMPUTE).ok()
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths of packets")]
const fn be16(length: u32) -> [u8; 2] {
    (length as u16).to_be_bytes()
}
