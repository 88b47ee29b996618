//! Each thing by which parsers of DNS messages are deceived, by itself.

use std::{vec, vec::Vec};

use super::{
    Address, Entry, NameId, Next,
    generate::Message,
    naive,
    patterns::{Patterns, name},
    walk,
};

const A: [u8; 4] = [192, 0, 2, 1];

fn patterns() -> Patterns {
    Patterns::new(["good.test", "*.wild.test", "api.example.com"])
}

/// A reply to a question for an address, with one.
fn reply(asked: &[&[u8]]) -> Message {
    let mut message = Message::new(1);
    message.question(asked, 1);
    message.record(1, 1, 30, &A);
    message
}

/// What is learnt; the naive parser says the same.
fn learn(message: &[u8]) -> (Next, Vec<Entry>) {
    let patterns = patterns();
    let (end, entries, refused, _) = walk(message, &patterns);
    assert_eq!((end, entries.clone(), refused), naive::read(message, &patterns));
    (end, entries)
}

fn number(text: &str) -> NameId {
    patterns().number(&name(text)).expect("a name that some pattern matches")
}

fn known(text: &str) -> (Next, Vec<Entry>) {
    (Next::Done, vec![(Address::from_v4(A), number(text), 30)])
}

const NOTHING: (Next, Vec<Entry>) = (Next::Done, Vec::new());
const MALFORMED: (Next, Vec<Entry>) = (Next::Malformed, Vec::new());

#[test]
fn case_does_not_count() {
    assert_eq!(learn(&reply(&[b"gOOd", b"TEST"]).bytes), known("good.test"));
}

#[test]
fn names_that_only_look_alike_are_others() {
    for asked in [
        &[&b"good\0"[..], b"test"][..],
        &[b"good.test"],
        &[b"notgood", b"test"],
        &[b"x", b"good", b"test"],
        &[b"good"],
        &[b"test"],
        &[b"good", b"test", b"evil"],
        &[b"wild", b"test"],
        &[],
    ] {
        assert_eq!(learn(&reply(asked).bytes), NOTHING, "{asked:?}");
    }
}

#[test]
fn a_wildcard_is_one_label_or_more() {
    assert_eq!(learn(&reply(&[b"a", b"wild", b"test"]).bytes), known("a.wild.test"));
    assert_eq!(learn(&reply(&[b"a", b"b", b"c", b"wild", b"test"]).bytes), known("a.b.c.wild.test"));
    assert_ne!(number("a.wild.test"), number("a.b.wild.test"));
}

#[test]
fn only_a_reply_to_one_question_counts() {
    let with = |at: usize, byte: u8| {
        let mut bytes = reply(&[b"good", b"test"]).bytes;
        bytes[at] = byte;
        learn(&bytes)
    };
    assert_eq!(with(2, 0x01), MALFORMED, "a query");
    assert_eq!(with(2, 0xa1), MALFORMED, "another opcode");
    assert_eq!(with(5, 0), MALFORMED, "no question");
    assert_eq!(with(5, 2), MALFORMED, "two questions");
    assert_eq!(with(5 - 1, 1), MALFORMED, "257 questions");
}

#[test]
fn a_question_of_another_class_is_not_learnt_from() {
    let mut bytes = reply(&[b"good", b"test"]).bytes;
    bytes[12 + 11 + 3] = 3;
    assert_eq!(learn(&bytes), NOTHING);
}

#[test]
fn pointers_lead_backwards_only() {
    let mut question = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    question.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(learn(&question), MALFORMED, "a question that is a pointer");
    for to in [0, 11, 200, 12 + 15 + 12] {
        let mut message = Message::new(1);
        message.question(&[b"good", b"test"], 1);
        // At 27: the owner has 2 bytes, the head 10.
        message.record(5, 1, 30, &[0xc0, to]);
        assert_eq!(learn(&message.bytes), MALFORMED, "an alias that points to {to}");
    }
}

#[test]
fn bytes_between_lengths_and_pointers_are_neither() {
    for length in [0x40, 0x7f, 0x80, 0xbf] {
        let mut bytes = reply(&[b"good", b"test"]).bytes;
        bytes[12] = length;
        assert_eq!(learn(&bytes), MALFORMED, "{length:#x}");
        let mut message = Message::new(1);
        message.question(&[b"good", b"test"], 1);
        message.bytes.extend([length, 0, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        message.bytes.extend(A);
        assert_eq!(learn(&message.bytes), MALFORMED, "an owner with {length:#x}");
    }
}

#[test]
fn a_name_has_255_bytes() {
    let label = [b'a'; 61];
    let with = |last: usize| {
        let mut asked: Vec<&[u8]> = vec![&label; 3];
        asked.extend([&label[..last], b"wild", b"test"]);
        learn(&reply(&asked).bytes)
    };
    // Three labels of 62 bytes, two of 5, the root of 1: 58 are left.
    assert_eq!(with(57).1.len(), 1);
    assert_eq!(with(58), MALFORMED);
    let asked: Vec<&[u8]> = [&b"a"[..]; 127].to_vec();
    assert_eq!(learn(&reply(&asked).bytes), NOTHING, "127 labels");
    let asked: Vec<&[u8]> = [&b"a"[..]; 128].to_vec();
    assert_eq!(learn(&reply(&asked).bytes), MALFORMED, "128 labels");
}

#[test]
fn counts_and_lengths_that_lie_end_it() {
    let mut message = reply(&[b"good", b"test"]);
    message.bytes[7] = 9;
    assert_eq!(learn(&message.bytes), (Next::Malformed, known("good.test").1), "nine records, one there");
    for length in [0, 3, 5] {
        let mut message = reply(&[b"good", b"test"]);
        let at = message.bytes.len() - 5;
        message.bytes[at] = length;
        message.bytes.push(0);
        assert_eq!(learn(&message.bytes), MALFORMED, "an address of {length} bytes");
    }
    let mut message = reply(&[b"good", b"test"]);
    message.bytes.truncate(message.bytes.len() - 1);
    assert_eq!(learn(&message.bytes), MALFORMED, "half a record");
}

#[test]
fn glue_does_not_count() {
    let mut message = reply(&[b"good", b"test"]);
    message.bytes[7] = 0;
    message.bytes[9] = 1;
    assert_eq!(learn(&message.bytes), NOTHING, "the authority section");
    message.bytes[9] = 0;
    message.bytes[11] = 1;
    assert_eq!(learn(&message.bytes), NOTHING, "the additional section");
}

#[test]
fn records_of_another_class_or_type_do_not_count() {
    let mut message = Message::new(4);
    message.question(&[b"good", b"test"], 1);
    message.record(1, 3, 30, &A);
    message.record(16, 1, 30, b"\x04text");
    message.record(28, 1, 30, &[0x20; 16]);
    message.record(1, 1, 30, &A);
    assert_eq!(learn(&message.bytes), known("good.test"));
}

#[test]
fn a_time_to_live_of_half_the_range_and_more_is_none() {
    for (ttl, expected) in [(0, 0), (0x7fff_ffff, 0x7fff_ffff), (1 << 31, 0), (u32::MAX, 0)] {
        let mut message = Message::new(1);
        message.question(&[b"good", b"test"], 1);
        message.record(1, 1, ttl, &A);
        assert_eq!(learn(&message.bytes).1[0].2, expected, "{ttl}");
    }
}

#[test]
fn addresses_that_no_name_leads_to_are_left_out() {
    let mut message = Message::new(3);
    message.question(&[b"good", b"test"], 1);
    message.record(1, 1, 30, &[169, 254, 169, 254]);
    message.record(1, 1, 30, &[127, 0, 0, 1]);
    message.record(1, 1, 30, &A);
    assert_eq!(learn(&message.bytes), known("good.test"));
    assert_eq!(walk(&message.bytes, &patterns()).2, 2);
    let mut message = Message::new(1);
    message.question(&[b"good", b"test"], 28);
    message.record(28, 1, 30, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
    assert_eq!(learn(&message.bytes), NOTHING);
    assert_eq!(walk(&message.bytes, &patterns()).2, 1);
}

#[test]
fn an_alias_beside_addresses_opens_none_of_them() {
    // Whoever has a zone may answer so to a question for all types, and resolvers hand it on as it is.
    for asked in [255, 5, 16, 46] {
        let mut message = Message::new(2);
        message.question(&[b"evil", b"test"], asked);
        message.record(5, 1, 30, b"\x03api\x07example\x03com\0");
        message.record(1, 1, 30, &A);
        assert_eq!(learn(&message.bytes), NOTHING, "type {asked}");
    }
}

#[test]
fn an_error_that_repeats_its_query_opens_nothing() {
    for error in [1, 2, 3, 4, 5, 15] {
        let mut bytes = reply(&[b"good", b"test"]).bytes;
        bytes[3] |= error;
        assert_eq!(learn(&bytes), NOTHING, "error {error}");
    }
}

#[test]
fn an_alias_counts_whatever_was_asked() {
    // As `autopath` of CoreDNS answers a search list.
    let mut message = Message::new(2);
    message.question(&[b"api", b"example", b"com", b"ns", b"svc", b"cluster", b"local"], 1);
    message.record(5, 1, 30, b"\x03api\x07example\x03com\0");
    message.record(1, 1, 30, &A);
    assert_eq!(learn(&message.bytes), known("api.example.com"));
}

#[test]
fn an_alias_may_be_compressed() {
    let mut message = Message::new(2);
    message.question(&[b"www", b"wild", b"test"], 1);
    // "good", then a pointer to "test" of the question.
    message.record(5, 1, 30, &[4, b'g', b'o', b'o', b'd', 0xc0, 12 + 9]);
    message.record(1, 1, 30, &A);
    let (end, entries) = learn(&message.bytes);
    let names: Vec<NameId> = entries.iter().map(|(_, name, _)| *name).collect();
    assert_eq!((end, names), (Next::Done, vec![number("www.wild.test"), number("good.test")]));
}

#[test]
fn an_alias_fills_its_record() {
    for data in [&b"\x04good\x04test\0\0"[..], b"\x04good\x04test", b"\x04good\xc0\x11\0", b""] {
        let mut message = Message::new(2);
        message.question(&[b"x", b"test"], 1);
        message.record(5, 1, 30, data);
        message.record(1, 1, 30, &A);
        assert_eq!(learn(&message.bytes), MALFORMED, "{data:?}");
    }
}

#[test]
fn hints_count_in_answers() {
    let mut message = Message::new(1);
    message.question(&[b"good", b"test"], 65);
    let mut data = vec![0, 1, 0];
    data.extend([0, 1, 0, 3, 2, b'h', b'2']);
    data.extend([0, 4, 0, 8, 192, 0, 2, 1, 192, 0, 2, 2]);
    data.extend([0, 6, 0, 16, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    message.record(65, 1, 30, &data);
    assert_eq!(learn(&message.bytes).1.len(), 3);
    // An alias has no parameters.
    let at = message.bytes.len() - data.len();
    message.bytes[at + 1] = 0;
    assert_eq!(learn(&message.bytes), NOTHING);
}

#[test]
fn a_reply_without_a_name_of_rules_ends_at_its_first_address() {
    let mut message = Message::new(60);
    message.question(&[b"other", b"test"], 1);
    (0..60).for_each(|_| message.record(1, 1, 30, &A));
    let (end, entries, _, steps) = walk(&message.bytes, &patterns());
    assert_eq!((end, entries.len()), (Next::Done, 0));
    assert!(steps < 12, "{steps} steps");
}

#[test]
fn a_thousand_steps_are_enough_for_a_large_reply() {
    let mut message = Message::new(300);
    message.question(&[b"good", b"test"], 1);
    (0..300_u16).for_each(|at| {
        let [high, low] = at.to_be_bytes();
        message.record(1, 1, 30, &[10, 1, high, low]);
    });
    let (end, entries, _, steps) = walk(&message.bytes, &patterns());
    assert_eq!((end, entries.len()), (Next::Done, 300));
    assert!(steps <= 620, "{steps} steps");
}
