//! Messages of streams that are cut into segments anywhere, against the naive parser.

use std::{boxed::Box, vec, vec::Vec};

use super::{
    Entry, MessageProgress, Next, Notes, Opened, PartialMessage, RefCell, SharedPartial, Stream, TABLE, Walk,
    generate::{self, Numbers},
    naive,
    patterns::Patterns,
};
use crate::{
    FlowSeed, HostAtomic, Tuple,
    frames::{Frame, dns, flag},
};

const STREAMS: u64 = if cfg!(debug_assertions) { 2_000 } else { 50_000 };

/// A pod, and what it has learnt from streams.
struct Learner<'a> {
    tables: Notes<'a>,
    stream: Stream,
    partials: Box<[PartialMessage; 2]>,
    malformed: u32,
    unlearnt: u32,
}

impl<'a> Learner<'a> {
    fn new(patterns: &'a Patterns) -> Self {
        let tables = Notes { patterns, learnt: RefCell::default() };
        let partials = Box::new([PartialMessage::EMPTY; 2]);
        Self { tables, stream: Stream::default(), partials, malformed: 0, unlearnt: 0 }
    }

    /// What the programs do with a segment.
    fn takes(&mut self, sequence: u32, flags: u8, data: &[u8]) {
        let mut frame = Frame::tcp(([192, 0, 2, 53].into(), 53), ([192, 0, 2, 1].into(), 40_000), flags);
        frame.payload[4..8].copy_from_slice(&sequence.to_be_bytes());
        frame.payload.extend(data);
        let frame = frame.bytes();
        let (frame, seed, mut walk) = (frame.as_slice(), FlowSeed::default(), Walk::EMPTY);
        match walk.open(&frame, &Tuple::EMPTY, self.stream, TABLE, &seed) {
            Opened::Nothing => {}
            Opened::Walk => panic!("no datagram"),
            Opened::Stream(stream) => self.stream = stream,
            Opened::Segment => {
                let places = self.partials.each_mut().map(SharedPartial::from_mut);
                let mut progress = None;
                if let Some(own) = places.iter().find(|place| place.stream() == walk.stream()) {
                    assert!(own.take::<HostAtomic>() && !own.take::<HostAtomic>());
                    progress = Some(walk.go_on(*own, &frame, 0));
                    while progress == Some(MessageProgress::Whole) && walk.step(own, &self.tables) {}
                    let is_kept = progress == Some(MessageProgress::More);
                    own.release::<HostAtomic>(if is_kept { walk.stream() } else { Stream::default() });
                }
                if progress != Some(MessageProgress::More) && walk.turn_to_messages() {
                    while walk.step(&frame, &self.tables) {}
                    walk.advance();
                }
                if walk.has_rest() {
                    let free = places.iter().find(|place| place.stream().is_none());
                    let place = free.expect("one stream needs one place");
                    assert!(walk.keep(*place, &frame, 0));
                    place.release::<HostAtomic>(walk.stream());
                }
                self.stream = walk.stream();
            }
        }
        self.malformed += walk.malformed;
        self.unlearnt += walk.unlearnt;
    }

    fn counts(&self) -> (usize, u32, u32) {
        (self.tables.learnt.borrow().len(), self.malformed, self.unlearnt)
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).expect("short").to_be_bytes()[..], message].concat()
}

fn patterns() -> Patterns {
    Patterns::new(["api.example.com", "*.example.com", "good.test", "*.good.test", "com", "x.svc", "*.cdn"])
}

#[test]
fn what_a_stream_teaches_does_not_depend_on_its_segments() {
    let patterns = patterns();
    let (mut learnt, mut cut) = (0, 0);
    for at in 0..STREAMS {
        let numbers = &mut Numbers(at << 24);
        let messages: Vec<_> = (0..=numbers.below(4)).map(|_| generate::message(numbers)).collect();
        let expected: Vec<_> = messages.iter().map(|message| naive::read(message, &patterns)).collect();
        let bytes = messages.iter().flat_map(|message| framed(message)).collect::<Vec<u8>>();
        let mut pod = Learner::new(&patterns);
        // Numbers wrap in the middle of some.
        let start = u32::MAX.wrapping_sub(u32::try_from(numbers.below(2 * bytes.len())).expect("short"));
        pod.takes(start, flag::SYN | flag::ACK, &[]);
        let most = 1 + numbers.below(if at % 2 == 0 { 4 } else { 600 });
        let mut done = 0;
        while done < bytes.len() {
            let end = bytes.len().min(done + 1 + numbers.below(most));
            // Some begin with what was sent before.
            let begin = if numbers.below(4) == 0 { numbers.below(done + 1) } else { done };
            let sequence = start.wrapping_add(1 + u32::try_from(begin).expect("short"));
            pod.takes(sequence, flag::ACK, &bytes[begin..end]);
            if numbers.below(8) == 0 {
                pod.takes(sequence, flag::ACK, &bytes[begin..end]);
            }
            (done, cut) = (end, cut + 1);
        }
        let entries: Vec<Entry> = expected.iter().flat_map(|(_, entries, _)| entries.clone()).collect();
        assert_eq!(*pod.tables.learnt.borrow(), entries, "stream {at}: {messages:02x?}");
        let malformed = expected.iter().filter(|(end, ..)| *end == Next::Malformed).count();
        assert_eq!((pod.malformed as usize, pod.unlearnt), (malformed, 0), "stream {at}: {messages:02x?}");
        learnt += u64::from(!entries.is_empty());
    }
    assert!(learnt > STREAMS / 20 && cut > STREAMS * 10, "{learnt} of {STREAMS}, {cut} segments");
}

#[test]
fn a_gap_costs_the_message_in_which_it_is_and_is_counted() {
    let patterns = patterns();
    let of = |last: u8| dns::reply("api.example.com", &[[198, 51, 100, last].into()]);
    let bytes = [framed(&of(1)), framed(&of(2)), framed(&of(3))].concat();
    let one = bytes.len() / 3;
    for missing in one + 1..2 * one - 1 {
        let mut pod = Learner::new(&patterns);
        pod.takes(0, flag::SYN | flag::ACK, &[]);
        for (begin, end) in [(0, missing), (missing + 1, 2 * one), (2 * one, 3 * one)] {
            pod.takes(1 + u32::try_from(begin).expect("short"), flag::ACK, &bytes[begin..end]);
        }
        // With half of a length, no one knows where the next message begins.
        let expected = if missing == one + 1 { (1, 0, 3) } else { (2, 0, 1) };
        assert_eq!(pod.counts(), expected, "byte {missing} does not come");
    }
}

#[test]
fn a_message_beyond_the_room_is_stepped_over_and_counted() {
    let patterns = patterns();
    let small = dns::reply("api.example.com", &[[198, 51, 100, 1].into()]);
    let room = PartialMessage::ROOM as usize;
    for (length, is_learnt) in [(room - 2, true), (room - 1, false), (65_535, false)] {
        let mut large = small.clone();
        large.resize(length, 0);
        let bytes = [framed(&large), framed(&small)].concat();
        for first in [1, 2, 1_000] {
            let mut pod = Learner::new(&patterns);
            pod.takes(0, flag::SYN | flag::ACK, &[]);
            let (begun, rest) = bytes.split_at(first);
            let mut sequence = 1;
            for part in [begun].into_iter().chain(rest.chunks(1_448)) {
                pod.takes(sequence, flag::ACK, part);
                sequence += u32::try_from(part.len()).expect("short");
            }
            let expected = if is_learnt { (2, 0, 0) } else { (1, 0, 1) };
            assert_eq!(pod.counts(), expected, "{length} bytes, of which {first} come first");
        }
    }
}

#[test]
fn a_new_stream_does_not_go_on_with_what_the_one_before_has_left() {
    let patterns = patterns();
    let message = framed(&dns::reply("api.example.com", &[[198, 51, 100, 1].into()]));
    let (begun, rest) = message.split_at(20);
    let mut pod = Learner::new(&patterns);
    for sequence in [0, 9_000] {
        pod.takes(sequence, flag::SYN | flag::ACK, &[]);
        pod.takes(sequence + 1, flag::ACK, begun);
        if sequence != 0 {
            // As if it belonged to the first.
            pod.takes(21, flag::ACK, rest);
            pod.takes(sequence + 21, flag::ACK, rest);
        }
    }
    assert_eq!(pod.counts(), (1, 0, 0), "of the second one");
    let left: Vec<bool> =
        pod.partials.iter_mut().map(|it| SharedPartial::from_mut(it).stream().is_none()).collect();
    assert_eq!(left, vec![false, true]);
}
