//! How long an entry lives.

use super::*;

#[test]
fn an_entry_ends_when_nothing_was_heard_for_its_time() {
    // (what is exchanged before the silence, seconds that the entry lives on)
    let closed = [tcp(flag::FIN | flag::ACK), tcp_reply(flag::FIN | flag::ACK)];
    let reset = [tcp_reply(flag::RST)];
    let syn_ack = [tcp_reply(flag::SYN | flag::ACK)];
    let table: [(Frame, &[Frame], Frame, u32); 6] = [
        (udp(), &[], udp_reply(), 30),
        (udp(), &[udp_reply()], udp_reply(), 120),
        (tcp(flag::SYN), &[], tcp_reply(flag::ACK), 120),
        (tcp(flag::SYN), &syn_ack, tcp_reply(flag::ACK), 432_000),
        (tcp(flag::SYN), &closed, tcp_reply(flag::ACK), 120),
        (tcp(flag::SYN), &reset, tcp_reply(flag::ACK), 120),
    ];
    for (first, exchanged, after, seconds) in table {
        for (silence, expected) in
            [(seconds * SECOND, Outcome::Established), (seconds * SECOND + 1, Outcome::Denied)]
        {
            let node = Node::new();
            assert_eq!(node.sends(&first), Outcome::Allowed);
            node.allows.set(false);
            for frame in exchanged {
                let seen = if frame.source == pod() { node.sends(frame) } else { node.receives(frame) };
                assert_eq!(seen, Outcome::Established);
            }
            node.wait(silence);
            assert_eq!(node.receives(&after), expected, "{first:?}, {exchanged:?}, {silence} ticks");
        }
    }
}

#[test]
fn an_entry_in_use_lives_on_across_the_turn_of_the_clock() {
    let node = Node::new();
    assert_eq!(node.sends(&udp()), Outcome::Allowed);
    node.allows.set(false);
    for _ in 0..100 {
        node.wait(29 * SECOND);
        assert_eq!(node.receives(&udp_reply()), Outcome::Established);
    }
}

#[test]
fn an_entry_that_another_cpu_has_just_refreshed_is_alive() {
    let node = Node::new();
    assert_eq!(node.sends(&udp()), Outcome::Allowed);
    node.allows.set(false);
    node.busy.set(1);
    assert_eq!(node.receives(&udp_reply()), Outcome::Established);
}

#[test]
fn last_use_is_not_written_with_each_packet() {
    let node = Node::new();
    node.sends(&tcp(flag::SYN));
    node.receives(&tcp_reply(flag::SYN | flag::ACK));
    let last = || node.flows.borrow().values().next().expect("one connection").last;
    let first = last();
    for _ in 1..SECOND {
        node.wait(1);
        node.sends(&tcp(flag::ACK));
        assert_eq!(last(), first);
    }
    node.wait(1);
    node.sends(&tcp(flag::ACK));
    assert_eq!(last(), first.wrapping_add(SECOND));
}

#[test]
fn an_init_is_evaluated_whatever_is_known_of_its_association() {
    let sctp = |chunk| Frame::sctp((pod(), 5_000), (server(), 80), chunk);
    let reply = |chunk| Frame::sctp((server(), 80), (pod(), 5_000), chunk);
    let [init, init_ack, data, abort, shutdown_complete] = [1, 2, 0, 6, 14];
    for end in [None, Some(abort), Some(shutdown_complete)] {
        let node = Node::new();
        assert_eq!(node.sends(&sctp(init)), Outcome::Allowed);
        assert_eq!(node.receives(&reply(init_ack)), Outcome::Established);
        if let Some(end) = end {
            assert_eq!(node.receives(&reply(end)), Outcome::Established);
        }
        node.allows.set(false);
        assert_eq!(node.sends(&sctp(data)), Outcome::Established);
        assert_eq!(node.sends(&sctp(init)), Outcome::Denied);
        assert_eq!(node.receives(&reply(init)), Outcome::Denied);
        // What is over is soon forgotten.
        node.wait(100 * SECOND);
        let later = if end.is_some() { Outcome::Denied } else { Outcome::Established };
        assert_eq!(node.sends(&sctp(data)), later, "after {end:?}");
    }
}

#[test]
fn an_answer_of_dhcp_is_let_in_while_it_was_asked_for() {
    let asks = |from: &str| Frame::udp((ip(from), 68), (ip("255.255.255.255"), 67), 100);
    let answers = |to: &str| Frame::udp((server(), 67), (ip(to), 68), 100);
    let node = Node::new();
    node.allows.set(false);
    for to in ["255.255.255.255", "10.0.0.99", "10.0.0.1"] {
        assert_eq!(node.receives(&answers(to)), Outcome::Denied, "no one has asked");
    }
    for from in ["0.0.0.0", "10.0.0.1"] {
        assert_eq!(node.sends(&asks(from)), Outcome::Dhcp);
        for to in ["255.255.255.255", "10.0.0.99", "10.0.0.1"] {
            assert_eq!(node.receives(&answers(to)), Outcome::Dhcp);
        }
        assert_eq!(node.receives(&answers("10.0.0.2")), Outcome::Denied, "another pod's address");
        let relayed = |port| Frame::udp((server(), port), (pod(), 68), 100);
        assert_eq!(node.receives(&relayed(68)), Outcome::Denied);
        node.wait(30 * SECOND + 1);
        assert_eq!(node.receives(&answers("10.0.0.1")), Outcome::Denied, "too late");
    }
    assert_eq!(node.sends(&asks("10.0.0.2")), Outcome::Spoofed);
    assert_eq!(node.sends(&Frame::udp((pod(), 68), (server(), 67), 100)), Outcome::Denied, "not to everyone");
}

/// By what was in force before: the agent writes the endpoints, then the revision.
#[test]
fn what_is_evaluated_while_a_policy_is_published_does_not_count_as_evaluated_by_it() {
    type Passes = fn(&Node, &Frame) -> Outcome;
    type Segment = fn(u8) -> Frame;
    let sides: [(Passes, Segment); 2] = [(Node::sends, tcp), (Node::receives, tcp_reply)];
    for (passes, frame) in sides {
        let node = Node::new();
        node.recheck.set(true);
        node.next_revision.set(Some(2));
        assert_eq!(passes(&node, &frame(flag::SYN)), Outcome::Allowed);
        assert_eq!(node.revision.get(), 2, "published meanwhile");
        node.allows.set(false);
        assert_eq!(passes(&node, &frame(flag::ACK)), Outcome::Denied);
    }
}
