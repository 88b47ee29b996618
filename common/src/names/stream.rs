//! Where messages lie in a packet: one in a datagram, and in a segment of TCP those that are whole, each
//! behind its length (RFC 1035, 4.2.2).
//!
//! In the middle of a message no one can tell by the bytes where the next one begins, and whoever has a zone
//! writes bytes of answers. So it is known from the start of the stream on, by sequence numbers, or nothing
//! is learnt from it any more. A message over several segments is stepped over.

use super::{Next, Walk};
use crate::{
    Packet, Seed, Tuple,
    packet::{forget, overwrite},
    protocol::number,
};

/// The transport header of a packet whose headers are plain, and the packet's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    pub offset: u32,
    pub end: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// It is the first part of a datagram.
    pub is_fragment: bool,
}

const IP: u32 = 14;
const IPV6_HEADER: u32 = 40;
const FRAGMENT_HEADER: u32 = 8;
const UDP_HEADER: u32 = 8;
const TCP_HEADER: u32 = 20;

impl Transport {
    /// `None`: an extension header other than that of a fragment, or a part of a datagram that has none. What
    /// such a part begins with are bytes of the message, which whoever has a zone writes.
    #[inline(always)]
    pub fn of(packet: &impl Packet) -> Option<Self> {
        let [kind @ .., first, _] = packet.read::<4>(12)?;
        match (kind, first >> 4) {
            ([0x08, 0x00], 4) => {
                let length = u16::from_be_bytes(packet.read::<2>(16)?);
                let part = u16::from_be_bytes(packet.read::<2>(20)?);
                let [_, protocol] = packet.read::<2>(22)?;
                let (is_later, goes_on) = (part & 0x1fff != 0, part & 0x2000 != 0);
                (!is_later).then_some(Self {
                    offset: IP + u32::from(first & 0x0f) * 4,
                    end: IP + u32::from(length),
                    protocol: protocol.into(),
                    is_fragment: goes_on,
                })
            }
            ([0x86, 0xdd], 6) => {
                let [high, low, next, _] = packet.read::<4>(18)?;
                let length = u32::from(u16::from_be_bytes([high, low]));
                let of = |offset, protocol: u8, is_fragment| Self {
                    offset,
                    end: IP + IPV6_HEADER + length,
                    protocol: protocol.into(),
                    is_fragment,
                };
                if u32::from(next) != number::FRAGMENT {
                    return Some(of(IP + IPV6_HEADER, next, false));
                }
                let [next, _, part @ ..] = packet.read::<4>((IP + IPV6_HEADER) as usize)?;
                let part = u16::from_be_bytes(part);
                let (is_later, goes_on) = (part & 0xfff8 != 0, part & 1 != 0);
                (!is_later).then_some(of(IP + IPV6_HEADER + FRAGMENT_HEADER, next, goes_on))
            }
            _ => None,
        }
    }
}

/// Where the next message of a stream begins, in one word: the sequence number, and above it what says whose
/// stream it is. 0: of none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream(pub u64);

impl Stream {
    /// Streams that a pod has places for. One that has more of them open at a time to resolvers learns from
    /// some of them nothing.
    pub const PLACES: u32 = 128;
    /// Of these, in one element of a pod's table.
    pub const IN_ELEMENT: u32 = 16;

    /// Of a reply: where its stream has its place.
    #[inline(always)]
    pub const fn place(reply: &Tuple) -> u32 {
        reply.destination_port as u32 & (Self::PLACES - 1)
    }

    /// Whose stream a reply belongs to: a hash of its addresses and ports, as the flow table's (UMAC's NH). A
    /// pod chooses its port, and may ask two resolvers from it. Without the seed it does not find two streams
    /// that are taken for each other, of which one would say where messages of the other begin.
    #[inline(always)]
    fn of(reply: &Tuple, seed: &impl Seed) -> u64 {
        const HALF: u64 = u32::MAX as u64;
        let pair =
            |word: u64, at| ((word & HALF) + seed.word(at)).wrapping_mul((word >> 32) + seed.word(at + 1));
        let [a, b] = reply.source.halves();
        let [c, d] = reply.destination.halves();
        let ports = u64::from(reply.source_port) << 32 | u64::from(reply.destination_port);
        let hash = pair(a, 0).wrapping_add(pair(b, 2)).wrapping_add(pair(c, 4));
        let hash = hash.wrapping_add(pair(d, 6)).wrapping_add(pair(ports, 8));
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // No stream is none.
        (mixed | 1 << 32) & !HALF
    }

    #[inline(always)]
    fn next(self, reply: &Tuple, seed: &impl Seed) -> Option<u32> {
        const SEQUENCE: u64 = u32::MAX as u64;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let sequence = self.0 as u32;
        if self.0 & !SEQUENCE == Self::of(reply, seed) { Some(sequence) } else { None }
    }
}

/// What a packet of a resolver's has for a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing is to be read.
    Nothing,
    /// The walk stands at its first step.
    Walk,
    /// A stream begins, or goes on in a way that nothing can be learnt from it: what it is now.
    Stream(Stream),
}

impl Walk {
    /// Turns to a packet, of which `reply` has the addresses and ports; `stream` is what is known of its
    /// stream. `table`: whose names are learnt.
    #[inline(always)]
    pub fn open(
        &mut self,
        packet: &impl Packet,
        reply: &Tuple,
        stream: Stream,
        table: u32,
        seed: &impl Seed,
    ) -> Opened {
        self.clear(table);
        self.open_transport(packet, reply, stream, seed).unwrap_or(Opened::Nothing)
    }

    #[inline(always)]
    fn open_transport(
        &mut self,
        packet: &impl Packet,
        reply: &Tuple,
        stream: Stream,
        seed: &impl Seed,
    ) -> Option<Opened> {
        let Transport { offset, end, protocol, is_fragment } = Transport::of(packet)?;
        overwrite(&mut self.is_fragment, is_fragment.into());
        overwrite(&mut self.end, end);
        match protocol {
            number::UDP => {
                let length = self.read::<2>(packet, offset + 4)?;
                let message = offset + UDP_HEADER;
                let own_end = offset + u32::from(u16::from_be_bytes(length));
                self.turn_to(packet, message, if own_end < end { own_end } else { end });
                Some(Opened::Walk)
            }
            number::TCP => self.open_segment(packet, offset, reply, stream, seed),
            _ => None,
        }
    }

    #[inline(always)]
    fn open_segment(
        &mut self,
        packet: &impl Packet,
        offset: u32,
        reply: &Tuple,
        stream: Stream,
        seed: &impl Seed,
    ) -> Option<Opened> {
        const SYN: u8 = 2;
        const LENGTH: u8 = 0xf0;
        let sequence = u32::from_be_bytes(self.read::<4>(packet, offset + 4)?);
        let [length, flags] = self.read::<2>(packet, offset + 12)?;
        if flags & SYN != 0 {
            return Some(Opened::Stream(Stream(
                Stream::of(reply, seed) | u64::from(sequence.wrapping_add(1)),
            )));
        }
        let data = offset + u32::from(length & LENGTH) / 4;
        let end = forget(&self.end);
        if data < offset + TCP_HEADER || data >= end {
            return Some(Opened::Nothing);
        }
        let Some(next) = stream.next(reply, seed) else {
            overwrite(&mut self.unlearnt, 1);
            return Some(Opened::Nothing);
        };
        // What was there before it is known; what is behind a gap is not.
        let ahead = next.wrapping_sub(sequence);
        if ahead > end - data {
            let is_gap = ahead.cast_signed() < 0;
            overwrite(&mut self.unlearnt, is_gap.into());
            return Some(Opened::Nothing);
        }
        overwrite(&mut self.segment_end, end);
        overwrite(&mut self.first, data);
        overwrite(&mut self.sequence, sequence);
        overwrite(&mut self.resume, data + ahead);
        overwrite(&mut self.next, Next::Message);
        Some(Opened::Walk)
    }

    /// The next message of a segment.
    #[inline(always)]
    pub(super) fn message(&mut self, packet: &impl Packet) -> Option<Next> {
        let (at, segment_end) = (forget(&self.resume), forget(&self.segment_end));
        if at >= segment_end {
            return Some(Next::Done);
        }
        overwrite(&mut self.end, segment_end);
        let Some(length) = self.read::<2>(packet, at) else {
            // Half of the length: where the next one begins is lost.
            self.lose_stream();
            return Some(Next::Unlearnt);
        };
        let message = at + 2;
        let end = message + u32::from(u16::from_be_bytes(length));
        overwrite(&mut self.resume, end);
        if end > segment_end {
            return Some(Next::Unlearnt);
        }
        self.turn_to(packet, message, end);
        Some(self.next())
    }

    /// Nothing is learnt from the rest of the stream.
    #[inline(always)]
    pub fn lose_stream(&mut self) {
        overwrite(&mut self.segment_end, 0);
        overwrite(&mut self.resume, 0);
    }

    /// What is known of the stream of a segment after the walk; `None`: it is none.
    #[inline(always)]
    pub fn stream(&self, reply: &Tuple, seed: &impl Seed) -> Option<Stream> {
        let (first, resume) = (forget(&self.first), forget(&self.resume));
        if first == 0 {
            return None;
        }
        if resume == 0 {
            return Some(Stream::default());
        }
        let next = forget(&self.sequence).wrapping_add(resume - first);
        Some(Stream(Stream::of(reply, seed) | u64::from(next)))
    }
}
