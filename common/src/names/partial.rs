//! Messages over several segments: what has come of one is kept until it is whole, and is read then as if it
//! had come at once.
//!
//! Bytes are taken in the order of their sequence numbers, each of them once: what is sent again is not read
//! again, and behind a gap nothing is taken. A message that is torn by a gap, or for which there is no room,
//! teaches nothing and is counted; where the next one begins is known even so.

use core::{
    marker::PhantomData,
    ptr::{read_volatile, write_volatile},
};

use super::{Stream, Walk, stream::LENGTH};
use crate::{
    Atomic, Packet, Tracked, Tuple,
    packet::{Start, forget, overwrite},
};

/// What has come of a message of one stream, with the length before it. A pod has [`Self::PLACES`] of them.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct PartialMessage {
    /// 1 while a program reads or writes the rest, but for the next word.
    busy: u64,
    /// The stream, where the message ends: as it stands in the pod's table until the next one begins. While
    /// the length is not known, where the message begins. None: the place is free.
    stream: Stream,
    /// When bytes came, in ticks ([`crate::JIFFIES_PER_TICK`]).
    used: u32,
    /// How many are there.
    filled: u32,
    bytes: [u8; PartialMessage::BYTES],
}

impl PartialMessage {
    /// Bytes of the longest message that is kept, its length included: of all that a walk can go through
    /// ([`super::MAX_STEPS`]), and so that a place is no more than 16 KiB for the kernel.
    pub const ROOM: u32 = 14 << 10;
    /// Bytes that are copied at a time: as many are left behind the room, so that the verifier need not add.
    pub const PART: usize = Self::PART_LENGTH as usize;
    const PART_LENGTH: u32 = 1 << 10;
    const PARTS: u32 = Self::ROOM / Self::PART_LENGTH + 1;
    const BYTES: usize = Self::ROOM as usize + Self::PART;
    /// A client asks for addresses of two families at once, over a connection each.
    pub const PLACES: u32 = 2;

    pub const EMPTY: Self = Self { busy: 0, stream: Stream(0), used: 0, filled: 0, bytes: [0; Self::BYTES] };
}

const _: () = assert!(size_of::<PartialMessage>() <= (16 << 10) - 64, "with what the kernel adds");

/// A message in memory that programs on several CPUs share. It stands for a promise: see
/// [`SharedPartial::new`].
#[derive(Clone, Copy, Debug)]
pub struct SharedPartial<'a>(*mut PartialMessage, PhantomData<&'a ()>);

/// What a segment does for a message that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageProgress {
    /// The message is not whole yet, so that no other one begins in the segment.
    More,
    /// It is, and the walk stands at its first step.
    Whole,
    /// It never will be.
    Lost,
}

impl<'a> SharedPartial<'a> {
    /// One that only this thread accesses.
    pub const fn from_mut(partial: &'a mut PartialMessage) -> Self {
        Self(partial, PhantomData)
    }

    /// # Safety
    ///
    /// For its lifetime, `partial` points to a message that is accessed through
    /// this type alone, by whomever; and through all but `new`, [`Self::stream`], [`Self::used`] and
    /// [`Self::take`] only by who has taken it.
    #[inline(always)]
    pub const unsafe fn new(partial: *mut PartialMessage) -> Self {
        Self(partial, PhantomData)
    }

    /// The stream that it belongs to, at this moment.
    #[inline(always)]
    pub fn stream(self) -> Stream {
        // SAFETY: a word of it.
        unsafe { read_volatile(&raw const (*self.0).stream) }
    }

    /// When bytes came last, in ticks.
    #[inline(always)]
    pub fn used(self) -> u32 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const (*self.0).used) }
    }

    /// Takes it for this program alone. False: another one has it.
    #[inline(always)]
    pub fn take<A: Atomic>(self) -> bool {
        // SAFETY: the first word of it, which is aligned.
        unsafe { A::compare_exchange(&raw mut (*self.0).busy, 0, 1) == 0 }
    }

    /// Leaves it to others, as one of this stream.
    #[inline(always)]
    pub fn release<A: Atomic>(self, stream: Stream) {
        // SAFETY: words of it.
        unsafe {
            write_volatile(&raw mut (*self.0).stream, stream);
            A::order_writes(&raw mut (*self.0).busy);
            write_volatile(&raw mut (*self.0).busy, 0);
        }
    }

    #[inline(always)]
    fn filled(self) -> u32 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const (*self.0).filled) }
    }

    #[inline(always)]
    fn set_filled(self, filled: u32) {
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut (*self.0).filled, filled) };
    }

    #[inline(always)]
    fn set_used(self, now: u32) {
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut (*self.0).used, now) };
    }

    /// A place of the room, and as many bytes behind it as are copied at a time.
    #[inline(always)]
    fn place(self, at: u32) -> Option<*mut [u8; PartialMessage::PART]> {
        // The bound is checked as it stands.
        let at = forget(&at);
        if at >= PartialMessage::ROOM {
            return None;
        }
        // SAFETY: within the bytes, which go on behind the room.
        Some(unsafe { (&raw mut (*self.0).bytes).cast::<u8>().add(at as usize).cast() })
    }

    /// Bytes of the message with its length, when both bytes of that are there; else of the length.
    #[inline(always)]
    fn needed(self, filled: u32) -> u32 {
        let length = if filled < LENGTH { None } else { self.read::<2>(0) };
        LENGTH + length.map_or(0, |length| u16::from_be_bytes(length).into())
    }
}

impl Walk {
    /// Takes what a segment has of a message that belongs to its stream, and that this program has taken.
    #[inline(always)]
    pub fn go_on(&mut self, partial: SharedPartial<'_>, packet: &impl Packet, now: u32) -> MessageProgress {
        let is_known = partial.filled() >= LENGTH;
        let mut needed = partial.needed(partial.filled());
        // Before the length is known, it says where the message begins.
        let begin = forget(&self.stream).sequence().wrapping_sub(if is_known { needed } else { 0 });
        let ahead = begin.wrapping_add(partial.filled()).wrapping_sub(forget(&self.sequence));
        if ahead.cast_signed() < 0 {
            return self.lose();
        }
        let (first, stop) = (forget(&self.first), forget(&self.stop));
        if ahead >= stop - first {
            return MessageProgress::More;
        }
        partial.set_used(now);
        overwrite(&mut self.kept_from, first + ahead);
        if self.take_over(partial, packet, needed).is_none() {
            return self.lose();
        }
        if !is_known && partial.filled() == LENGTH {
            needed = partial.needed(LENGTH);
            let stream = forget(&self.stream).at(begin.wrapping_add(needed));
            overwrite(&mut self.stream, stream);
            if needed > PartialMessage::ROOM || self.take_over(partial, packet, needed).is_none() {
                return self.lose();
            }
        }
        if partial.filled() != needed {
            return MessageProgress::More;
        }
        self.turn_to(&partial, LENGTH, needed);
        MessageProgress::Whole
    }

    /// Keeps the message that begins in the segment and goes on in others, at a place that this program has
    /// taken; false: it cannot.
    #[inline(always)]
    pub fn keep(&mut self, partial: SharedPartial<'_>, packet: &impl Packet, now: u32) -> bool {
        partial.set_filled(0);
        partial.set_used(now);
        let rest = forget(&self.rest);
        overwrite(&mut self.kept_from, rest);
        self.take_over(partial, packet, PartialMessage::ROOM).is_some()
    }

    /// Whether a message of the segment goes on in others.
    #[inline(always)]
    pub fn has_rest(&self) -> bool {
        forget(&self.rest) != 0
    }

    #[inline(always)]
    fn lose(&mut self) -> MessageProgress {
        self.note_unlearnt();
        MessageProgress::Lost
    }

    /// Copies what the segment has from some place on, until so many bytes are there. All that counts stands
    /// in memory: of that the verifier remembers nothing.
    #[inline(always)]
    fn take_over(&mut self, partial: SharedPartial<'_>, packet: &impl Packet, needed: u32) -> Option<()> {
        let left = forget(&self.stop).wrapping_sub(forget(&self.kept_from));
        let missing = needed.wrapping_sub(partial.filled());
        overwrite(&mut self.kept_count, if left < missing { left } else { missing });
        for _ in 0..PartialMessage::PARTS {
            let (from, count, filled) = (forget(&self.kept_from), forget(&self.kept_count), partial.filled());
            if count == 0 {
                break;
            }
            let part = if count < PartialMessage::PART_LENGTH { count } else { PartialMessage::PART_LENGTH };
            // SAFETY: the place is this program's alone.
            let place = unsafe { &mut *partial.place(filled)? };
            packet.copy(from as usize, part as usize, place)?;
            partial.set_filled(filled + part);
            overwrite(&mut self.kept_from, from + part);
            overwrite(&mut self.kept_count, count - part);
        }
        (forget(&self.kept_count) == 0).then_some(())
    }
}

/// For the walk over the message.
impl Packet for SharedPartial<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N <= PartialMessage::PART) };
        let place = self.place(u32::try_from(offset).ok()?)?;
        // SAFETY: as many bytes follow each place; they are this program's alone.
        Some(unsafe { *place.cast::<[u8; N]>() })
    }

    #[inline(always)]
    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        None::<NoStart>
    }

    #[inline(always)]
    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()> {
        let place = self.place(u32::try_from(offset).ok()?)?.cast::<u8>();
        if length == 0 || length > into.len() {
            return None;
        }
        for (at, byte) in into.iter_mut().enumerate() {
            if at >= length {
                break;
            }
            // SAFETY: as above.
            overwrite(byte, unsafe { place.add(at).read_volatile() });
        }
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

/// A message has no headers to read words from.
enum NoStart {}

impl Start for NoStart {
    fn u8<const AT: usize>(&self) -> u8 {
        match *self {}
    }

    fn u16<const AT: usize>(&self) -> u16 {
        match *self {}
    }

    fn u32<const AT: usize>(&self) -> u32 {
        match *self {}
    }

    fn u64<const AT: usize>(&self) -> u64 {
        match *self {}
    }
}
