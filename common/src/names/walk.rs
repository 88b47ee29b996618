//! The walk over a DNS message, step by step.
//!
//! A message comes from the network, and whoever owns a name writes a part of it. Nothing is read beyond it,
//! pointers in names lead only backwards (so that they end), and a name is compared by its labels, never as
//! text with dots.
//!
//! All state stands in [`Walk`], in the kernel in memory of a map: of that the verifier remembers nothing, so
//! that it checks one step, whatever came before. No step loops.

use super::{LabelKey, NameId, NameNode, NameTables, Stream};
use crate::{
    Address, Packet,
    packet::{forget, overwrite},
};

/// Where a walk is, and what it has found. What it holds before [`Walk::begin`] does not matter.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    pub(super) key: LabelKey,
    /// Of a segment: where messages of its stream begin.
    pub(super) stream: Stream,
    /// Whose table learns, a number of [`crate::Endpoint::names`].
    pub(super) table: u32,
    /// What comes next.
    pub(super) next: Next,
    /// Where the message begins in the packet, and where it ends.
    pub(super) message: u32,
    pub(super) end: u32,
    /// Where the next step reads.
    pub(super) at: u32,
    /// The type that was asked for.
    pub(super) asked: u32,
    /// Records of the answer section that are left.
    pub(super) records: u32,
    /// Aliases that were read.
    pub(super) aliases: u32,
    /// Where the record's data ends; 0 in the question.
    pub(super) data_end: u32,
    /// The record's time to live in seconds.
    pub(super) ttl: u32,
    /// Bytes of each address in the hint; 0: it is no hint but the record itself.
    pub(super) hint: u32,
    /// Where the hint ends.
    pub(super) hint_end: u32,
    /// The address to learn, and for which of the names it is learnt next.
    pub(super) address: Address,
    pub(super) turn: u32,
    /// The names that the reply speaks of and that rules have: the one that was asked, and aliases.
    pub(super) names: [NameId; MAX_NAMES],
    pub(super) known: u32,
    /// The name that is read: its labels so far and their bytes, the place before which a pointer must lead,
    /// and where the name must end within its record; 0: anywhere, or it has left the record.
    labels: u32,
    bytes: u32,
    before: u32,
    name_end: u32,
    /// The deepest node that it reaches.
    node: NameNode,
    /// What came of it.
    pub learnt: u32,
    /// Live entries that others took the place of.
    pub evicted: u32,
    /// Addresses that no name may open.
    pub refused: u32,
    /// Where the question ends.
    pub question_end: u32,
    /// Messages that were not learnt from to the end, and those that contradict themselves.
    pub unlearnt: u32,
    pub malformed: u32,
    /// 1: the packet is the first part of a datagram.
    pub is_fragment: u32,
    /// Of a segment of TCP: where its data begins and ends, and its sequence number. 0: it is none.
    pub(super) first: u32,
    pub(super) stop: u32,
    pub(super) sequence: u32,
    /// Where its next message begins, and where those end that are read.
    pub(super) resume: u32,
    pub(super) segment_end: u32,
    /// Where a message begins that goes on in other segments; 0: none does.
    pub(super) rest: u32,
    /// Where bytes are that are kept next, and how many.
    pub(super) kept_from: u32,
    pub(super) kept_count: u32,
    /// Where each label of the name stands.
    pub(super) places: [u16; PLACES],
}

/// What a walk does next, or how it ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Reads a label of a name that is looked up.
    Label = 0,
    /// Looks up the rightmost label that is left.
    Node,
    /// Steps over a label of a record's owner, and reads the record behind it.
    Record,
    /// Steps over a label of the target of a service binding.
    Target,
    /// Reads a parameter of a service binding.
    Parameter,
    /// Reads an address of a hint.
    Hint,
    /// Learns the address for one of the names.
    Learn,
    /// Turns to the next message of a segment.
    Message,
    /// All is read that counts.
    Done,
    /// It is no reply, or contradicts itself.
    Malformed,
    /// An address could not be entered.
    Unlearnt,
}

impl Next {
    /// Whether the walk has ended.
    #[inline(always)]
    pub const fn is_end(self) -> bool {
        match self {
            Self::Label | Self::Node | Self::Record | Self::Target => false,
            Self::Parameter | Self::Hint | Self::Learn | Self::Message => false,
            Self::Done | Self::Malformed | Self::Unlearnt => true,
        }
    }
}

/// Bytes of a message's header.
pub(super) const HEADER: u32 = 12;
/// Names of one reply that an address is learnt for.
const MAX_NAMES: usize = 4;
/// A name has 255 bytes, the root's one included (RFC 1035, 2.3.4), and so 127 labels before it.
const MAX_BYTES: u32 = 255;
const MOST_LABELS: u32 = 127;
/// A power of two: indexes are masked.
const PLACES: usize = 128;
/// Where a pointer begins (RFC 1035, 4.1.4), and the bits of its place.
pub(super) const POINTER: u8 = 0xc0;
const CLASS_IN: [u8; 2] = [0, 1];

impl Walk {
    pub const EMPTY: Self = Self {
        key: LabelKey::EMPTY,
        stream: Stream(0),
        table: 0,
        next: Next::Done,
        message: 0,
        end: 0,
        at: 0,
        asked: 0,
        records: 0,
        aliases: 0,
        data_end: 0,
        ttl: 0,
        hint: 0,
        hint_end: 0,
        address: Address::UNSPECIFIED,
        turn: 0,
        names: [NameId::NONE; MAX_NAMES],
        known: 0,
        labels: 0,
        bytes: 0,
        before: 0,
        name_end: 0,
        node: NameNode::ROOT,
        learnt: 0,
        evicted: 0,
        refused: 0,
        question_end: 0,
        unlearnt: 0,
        malformed: 0,
        is_fragment: 0,
        first: 0,
        stop: 0,
        sequence: 0,
        resume: 0,
        segment_end: 0,
        rest: 0,
        kept_from: 0,
        kept_count: 0,
        places: [0; PLACES],
    };

    /// Forgets what came of the packet before; `table`: whose names are learnt.
    #[inline(always)]
    pub(super) fn clear(&mut self, table: u32) {
        for word in [
            &mut self.learnt,
            &mut self.evicted,
            &mut self.refused,
            &mut self.unlearnt,
            &mut self.malformed,
            &mut self.is_fragment,
            &mut self.first,
            &mut self.segment_end,
            &mut self.resume,
            &mut self.rest,
            &mut self.question_end,
        ] {
            overwrite(word, 0);
        }
        overwrite(&mut self.table, table);
    }

    /// Turns to a message that user space has got itself: one from `message` on in bytes that end with it,
    /// and with at least one byte before it. `table`: what is handed to [`NameTables::learn`].
    pub fn over(&mut self, bytes: &&[u8], message: u32, table: u32) {
        self.clear(table);
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.turn_to(bytes, message, end);
    }

    /// Turns to the message between two places of the packet, which has at least a byte before it.
    #[inline(always)]
    pub(super) fn turn_to(&mut self, packet: &impl Packet, message: u32, end: u32) {
        for word in [&mut self.aliases, &mut self.data_end, &mut self.known, &mut self.hint] {
            overwrite(word, 0);
        }
        overwrite(&mut self.message, message);
        overwrite(&mut self.end, end);
        let next = self.header(packet).unwrap_or(Next::Malformed);
        overwrite(&mut self.next, next);
    }

    /// A reply to a query, with one question (RFC 1035, 4.1.1).
    ///
    /// Nothing counts in an error: some servers make one of the query, with all that its client has written
    /// behind the question.
    #[inline(always)]
    fn header(&mut self, packet: &impl Packet) -> Option<Next> {
        const REPLY: u8 = 0x80;
        const OPCODE: u8 = 0x78;
        const ERROR: u8 = 0x0f;
        let message = forget(&self.message);
        let [_, _, flags, more, questions_high, questions_low, high, low] =
            self.read::<8>(packet, message)?;
        if flags & (REPLY | OPCODE) != REPLY || [questions_high, questions_low] != [0, 1] {
            return None;
        }
        if more & ERROR != 0 {
            return Some(Next::Done);
        }
        overwrite(&mut self.records, u16::from_be_bytes([high, low]).into());
        // The question has no pointers: none leads before it.
        self.name_at(message + HEADER, 0, 0);
        Some(Next::Label)
    }

    /// Turns to a name that is to be looked up.
    #[inline(always)]
    pub(super) fn name_at(&mut self, at: u32, before: u32, name_end: u32) {
        overwrite(&mut self.at, at);
        overwrite(&mut self.labels, 0);
        overwrite(&mut self.bytes, 1);
        overwrite(&mut self.before, before);
        overwrite(&mut self.name_end, name_end);
        overwrite(&mut self.node, NameNode::ROOT);
    }

    /// Goes one step; false when the walk has ended.
    #[inline(always)]
    pub fn step<P: Packet, T: NameTables>(&mut self, packet: &P, tables: &T) -> bool {
        let next = match forget(&self.next) {
            Next::Label => self.label(packet),
            Next::Node => self.look_up(packet, tables),
            Next::Record => self.record(packet),
            Next::Target => self.target(packet),
            Next::Parameter => self.parameter(packet),
            Next::Hint => self.hint(packet),
            Next::Learn => Some(Next::Learn),
            Next::Message => self.message(packet),
            Next::Done => Some(Next::Done),
            Next::Malformed => None,
            Next::Unlearnt => Some(Next::Unlearnt),
        };
        // An address is learnt in the step that has found it.
        let next = if next == Some(Next::Learn) { Some(self.learn(tables)) } else { next };
        overwrite(&mut self.next, next.unwrap_or(Next::Malformed));
        let next = forget(&self.next);
        if !next.is_end() {
            return true;
        }
        let of_it = if next == Next::Malformed { &mut self.malformed } else { &mut self.unlearnt };
        let count = forget(of_it) + u32::from(next != Next::Done);
        overwrite(of_it, count);
        if forget(&self.resume) >= forget(&self.segment_end) {
            return false;
        }
        overwrite(&mut self.next, Next::Message);
        true
    }

    /// One label of a name that is looked up: its place is noted.
    #[inline(always)]
    fn label(&mut self, packet: &impl Packet) -> Option<Next> {
        let at = forget(&self.at);
        let length = self.byte(packet, at)?;
        let name_end = forget(&self.name_end);
        if length >= POINTER {
            let [high, low] = self.read::<2>(packet, at)?;
            let to = u32::from(u16::from_be_bytes([high & !POINTER, low]));
            if to < HEADER || to >= forget(&self.before) || (name_end != 0 && at + 2 != name_end) {
                return None;
            }
            overwrite(&mut self.before, to);
            overwrite(&mut self.name_end, 0);
            overwrite(&mut self.at, forget(&self.message) + to);
            return Some(Next::Label);
        }
        if length == 0 {
            if name_end != 0 && at + 1 != name_end {
                return None;
            }
            overwrite(&mut self.at, at + 1);
            return Some(Next::Node);
        }
        let after = at + 1 + u32::from(length);
        let bytes = forget(&self.bytes) + 1 + u32::from(length);
        let labels = forget(&self.labels);
        let is_whole = after < forget(&self.end);
        if length as usize > LabelKey::MAX_LABEL || bytes > MAX_BYTES || labels >= MOST_LABELS || !is_whole {
            return None;
        }
        let place = u16::try_from(at).ok()?;
        if let Some(slot) = self.places.get_mut(labels as usize % PLACES) {
            overwrite(slot, place);
        }
        overwrite(&mut self.labels, labels + 1);
        overwrite(&mut self.bytes, bytes);
        overwrite(&mut self.at, after);
        Some(Next::Label)
    }

    /// The rightmost label that is left, in the tree.
    #[inline(always)]
    fn look_up<T: NameTables>(&mut self, packet: &impl Packet, tables: &T) -> Option<Next> {
        let labels = forget(&self.labels);
        if labels != 0 {
            let place = *self.places.get((labels as usize - 1) % PLACES)?;
            let at = u32::from(place);
            let length = self.byte(packet, at)?;
            let node = forget(&self.node);
            packet.load(at as usize, usize::from(length) + 1, self.key.begin(node.number()))?;
            self.key.fold(length);
            let node = tables.node(&self.key);
            if node != NameNode::ROOT {
                overwrite(&mut self.node, node);
                overwrite(&mut self.labels, labels - 1);
                return Some(Next::Node);
            }
        }
        let (node, left) = (forget(&self.node), forget(&self.labels));
        if node.matches(left) {
            self.remember(NameId::new(node, left));
        }
        if forget(&self.data_end) != 0 {
            return Some(self.next_record());
        }
        self.end_of_question(packet)
    }

    /// Notes a name that rules have; what is beyond the first few is left out.
    #[inline(always)]
    fn remember(&mut self, name: NameId) {
        let known = forget(&self.known);
        let is_known = self.names.iter().zip(0..).any(|(one, at)| at < known && forget(one) == name);
        if let (false, Some(place)) = (is_known, self.names.get_mut(known as usize)) {
            overwrite(place, name);
            overwrite(&mut self.known, known + 1);
        }
    }

    /// Type and class; then the answer section begins.
    #[inline(always)]
    fn end_of_question(&mut self, packet: &impl Packet) -> Option<Next> {
        let at = forget(&self.at);
        let [kind @ .., class_high, class_low] = self.read::<4>(packet, at)?;
        let (kind, class) = (u16::from_be_bytes(kind), [class_high, class_low]);
        overwrite(&mut self.asked, kind.into());
        overwrite(&mut self.question_end, at + 4);
        if class != CLASS_IN {
            return Some(Next::Done);
        }
        overwrite(&mut self.at, at + 4);
        Some(Next::Record)
    }
}
