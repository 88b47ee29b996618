//! Where messages lie in a packet: one in a datagram, and in a segment of TCP those that are whole, each
//! behind its length (RFC 1035, 4.2.2).
//!
//! In the middle of a message no one can tell by the bytes where the next one begins, and whoever has a zone
//! writes bytes of answers. So it is known from the start of the stream on, by sequence numbers, or nothing
//! is learnt from it any more. A message over several segments is kept until it is whole
//! ([`super::PartialMessage`]).

use super::{Next, PartialMessage, Walk};
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
/// Bytes of the length before a message.
pub(super) const LENGTH: u32 = 2;

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
    const SEQUENCE: u64 = u32::MAX as u64;

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
    fn is_of(self, reply: &Tuple, seed: &impl Seed) -> bool {
        self.0 & !Self::SEQUENCE == Self::of(reply, seed)
    }

    /// The sequence number.
    #[inline(always)]
    pub(super) const fn sequence(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        let sequence = self.0 as u32;
        sequence
    }

    /// The same stream at another sequence number.
    #[inline(always)]
    pub(super) const fn at(self, sequence: u32) -> Self {
        Self(self.0 & !Self::SEQUENCE | sequence as u64)
    }

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// What a packet of a resolver's has for a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing is to be read.
    Nothing,
    /// A datagram: the walk stands at its first step.
    Walk,
    /// A segment with data, of a stream of which is known where messages begin. First what goes on with a
    /// message that is kept ([`Walk::go_on`]), then the messages that begin in it
    /// ([`Walk::turn_to_messages`]).
    Segment,
    /// A stream begins.
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
        const HEADER_LENGTH: u8 = 0xf0;
        let sequence = u32::from_be_bytes(self.read::<4>(packet, offset + 4)?);
        let [length, flags] = self.read::<2>(packet, offset + 12)?;
        if flags & SYN != 0 {
            return Some(Opened::Stream(Stream(
                Stream::of(reply, seed) | u64::from(sequence.wrapping_add(1)),
            )));
        }
        let data = offset + u32::from(length & HEADER_LENGTH) / 4;
        let end = forget(&self.end);
        if data < offset + TCP_HEADER || data >= end {
            return Some(Opened::Nothing);
        }
        if !stream.is_of(reply, seed) {
            overwrite(&mut self.unlearnt, 1);
            return Some(Opened::Nothing);
        }
        overwrite(&mut self.stream, stream);
        overwrite(&mut self.first, data);
        overwrite(&mut self.stop, end);
        overwrite(&mut self.sequence, sequence);
        Some(Opened::Segment)
    }

    /// Turns to the first message that begins in the segment; false: none does.
    #[inline(always)]
    pub fn turn_to_messages(&mut self) -> bool {
        let (first, stop) = (forget(&self.first), forget(&self.stop));
        // What was there before it is known; what is behind a gap is not.
        let ahead = forget(&self.stream).sequence().wrapping_sub(forget(&self.sequence));
        if ahead >= stop - first {
            let unlearnt = forget(&self.unlearnt) + u32::from(ahead.cast_signed() < 0);
            overwrite(&mut self.unlearnt, unlearnt);
            return false;
        }
        overwrite(&mut self.segment_end, stop);
        overwrite(&mut self.resume, first + ahead);
        overwrite(&mut self.next, Next::Message);
        true
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
            if segment_end - at >= LENGTH {
                self.lose_stream();
                return Some(Next::Unlearnt);
            }
            // Half of the length: where the next message begins is known when the rest has come.
            overwrite(&mut self.rest, at);
            overwrite(&mut self.segment_end, 0);
            return Some(Next::Done);
        };
        let message = at + LENGTH;
        let end = message + u32::from(u16::from_be_bytes(length));
        overwrite(&mut self.resume, end);
        if end > segment_end {
            if end - at > PartialMessage::ROOM {
                return Some(Next::Unlearnt);
            }
            overwrite(&mut self.rest, at);
            return Some(Next::Done);
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

    /// After the walk over the messages of a segment: the stream is where the next one begins.
    #[inline(always)]
    pub fn advance(&mut self) {
        let (resume, stream) = (forget(&self.resume), forget(&self.stream));
        let next = forget(&self.sequence).wrapping_add(resume.wrapping_sub(forget(&self.first)));
        overwrite(&mut self.stream, if resume == 0 { Stream::default() } else { stream.at(next) });
    }

    /// What is known of the stream of the segment.
    #[inline(always)]
    pub fn stream(&self) -> Stream {
        forget(&self.stream)
    }
}
