//! What the programs report about their decisions: how often the same was decided alike ([`FlowCounter`]),
//! and single decisions ([`FlowEvent`]) by a ring buffer.
//!
//! Only new connections and dropped packets are reported, never a packet that passes on the entry of its
//! connection. What is alike (same pod, direction, outcome, and a peer and port that no rule can distinguish)
//! is reported a few times a second on each CPU; the rest is only counted.

use crate::{
    Address, ClassId, Direction, IdentityId, Outcome, PolicyId, RuleProtocol, Tuple, packet::overwrite,
};

/// Events of one key, each second on each CPU.
const DENIED_PER_SECOND: u8 = 64;
/// What passes is sampled.
const PASSED_PER_SECOND: u8 = 16;

/// What was asked of the policies, and whose they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLookup {
    /// The veth of the pod whose side was evaluated.
    pub ifindex: u32,
    pub direction: Direction,
    pub policy: PolicyId,
    /// Of the other end.
    pub identity: IdentityId,
    pub class: ClassId,
    /// The other end is the pod's own node.
    pub(crate) is_to_node: bool,
}

impl PolicyLookup {
    pub(crate) const NOTHING: Self = Self {
        ifindex: 0,
        direction: Direction::Egress,
        policy: PolicyId::NOT_ISOLATED,
        identity: IdentityId::NONE,
        class: ClassId::NONE,
        is_to_node: false,
    };

    /// Turns to one side of a connection, of which nothing was asked yet.
    #[inline(always)]
    pub(crate) fn begin(&mut self, at: u32, of: Direction) {
        let Self { ifindex, direction, policy, identity, class, is_to_node } = self;
        (*ifindex, *direction) = (at, of);
        overwrite(policy, Self::NOTHING.policy);
        overwrite(identity, Self::NOTHING.identity);
        overwrite(class, Self::NOTHING.class);
        overwrite(is_to_node, Self::NOTHING.is_to_node);
    }

    /// In place of an address' identity, that of a name which has allowed the connection.
    #[inline(always)]
    pub(crate) const fn of_name(identity: IdentityId) -> IdentityId {
        IdentityId(identity.0 | Self::NAME)
    }

    /// The identity of the name, if it was one that has allowed the connection.
    pub const fn name(identity: IdentityId) -> Option<IdentityId> {
        if identity.0 & Self::NAME == 0 { None } else { Some(IdentityId(identity.0 & !Self::NAME)) }
    }

    const NAME: u32 = 1 << 31;

    /// In place of a class: the identity is that of a service.
    pub const SERVICE: ClassId = ClassId(u16::MAX);
}

/// Key of the map of flow counters: what no rule can distinguish.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowCounterKey {
    /// The veth of the pod whose side was evaluated.
    pub ifindex: u32,
    /// Of the other end; a service's id beside [`PolicyLookup::SERVICE`].
    pub identity: IdentityId,
    pub class: ClassId,
    /// A [`Direction`].
    pub direction: u8,
    /// An [`Outcome`].
    pub outcome: u8,
}

impl FlowCounterKey {
    #[inline(always)]
    pub const fn new(policy_lookup: &PolicyLookup, outcome: Outcome) -> Self {
        Self {
            ifindex: policy_lookup.ifindex,
            identity: policy_lookup.identity,
            class: policy_lookup.class,
            direction: policy_lookup.direction as u8,
            outcome: outcome as u8,
        }
    }

    /// In place of a class, for all peers and ports that are beyond a share of flow counters
    /// ([`crate::Share::FLOW_COUNTERS`]).
    pub const OTHERS: ClassId = ClassId(u16::MAX - 1);

    /// Where a packet is counted that there is no flow counter left for: with all such ones of its direction
    /// and outcome.
    #[inline(always)]
    #[must_use]
    pub const fn of_others(self) -> Self {
        Self { identity: IdentityId::NONE, class: Self::OTHERS, ..self }
    }

    /// Whether it says nothing of peer and port.
    pub const fn is_of_others(&self) -> bool {
        self.class.0 == Self::OTHERS.0
    }
}

/// Value of the map of flow counters, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCounter {
    /// That opened a connection, or were dropped.
    pub packets: u64,
    /// Since when `reported` counts, in ticks.
    pub since: u32,
    /// Packets since the last event.
    pub unreported: u32,
    /// The other end of the last one that was reported.
    pub peer: Address,
    /// The revision in which it was evaluated.
    pub revision: u32,
    /// Where it was bound for: a place ([`RuleProtocol`]).
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Events in this second.
    pub reported: u8,
    /// In whose share it is, a veth; 0: in no one's, as it is one of those that are made beyond a share
    /// ([`FlowCounterKey::of_others`]).
    pub charged_to: u32,
    /// Where the packets come from that this second's events are about, an ifindex; [`Self::SEVERAL`].
    pub from: u32,
}

impl FlowCounter {
    /// In [`Self::from`]: they come from more than one place. No interface has this index.
    const SEVERAL: u32 = u32::MAX;

    pub const EMPTY: Self = Self {
        packets: 0,
        since: 0,
        unreported: 0,
        peer: Address::UNSPECIFIED,
        revision: 0,
        port: 0,
        protocol: 0,
        reported: 0,
        charged_to: 0,
        from: 0,
    };

    /// Counts one more packet, which comes from an ifindex. True: it is to be reported.
    #[inline(always)]
    pub const fn count(&mut self, outcome: Outcome, from: u32, now: u32, second: u32) -> bool {
        self.packets += 1;
        self.unreported = self.unreported.saturating_add(1);
        if now.wrapping_sub(self.since) >= second {
            self.since = now;
            self.reported = 0;
        }
        let limit = if outcome.passes() { PASSED_PER_SECOND } else { DENIED_PER_SECOND };
        if self.reported >= limit {
            return false;
        }
        self.from = if self.reported == 0 || self.from == from { from } else { Self::SEVERAL };
        self.reported += 1;
        true
    }

    /// Whether all events of this second were about packets that come from there.
    #[inline(always)]
    pub const fn is_all_from(&self, from: u32) -> bool {
        self.from == from
    }

    /// Remembers what was reported.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "IP protocol numbers have 8 bits")]
    pub const fn remember(&mut self, tuple: &Tuple, direction: Direction, revision: u32) {
        self.peer = match direction {
            Direction::Egress => tuple.destination,
            Direction::Ingress => tuple.source,
        };
        self.protocol = tuple.protocol as u8;
        self.port = RuleProtocol::of_packet(tuple.protocol, tuple.source_port, tuple.destination_port).1;
        self.revision = revision;
    }
}

/// One decision, as the ring buffer carries it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Of the monotonic clock, in nanoseconds.
    pub time: u64,
    /// How many alike had the same outcome on this CPU since the last event, this one included
    /// ([`FlowCounter::unreported`]).
    pub packets: u32,
    /// The veth of the pod whose side was evaluated.
    pub ifindex: u32,
    /// What evaluated it; [`PolicyId::NOT_ISOLATED`]: nothing did.
    pub policy: PolicyId,
    /// The revision when it was evaluated. A pod may have been switched to its new policy before the revision
    /// was raised.
    pub revision: u32,
    /// The client, untranslated as the hook sees it; the unspecified address if it could not be read.
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u16,
    /// A [`Direction`]: whose side was evaluated, the client's (egress) or the server's (ingress).
    pub direction: u8,
    /// An [`Outcome`].
    pub outcome: u8,
}

impl FlowEvent {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "IP protocol numbers have 8 bits")]
    pub const fn new(
        tuple: &Tuple,
        policy_lookup: &PolicyLookup,
        outcome: Outcome,
        flow_counter: &FlowCounter,
        time: u64,
    ) -> Self {
        Self {
            time,
            packets: flow_counter.unreported,
            ifindex: policy_lookup.ifindex,
            policy: policy_lookup.policy,
            revision: flow_counter.revision,
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            protocol: tuple.protocol as u16,
            direction: policy_lookup.direction as u8,
            outcome: outcome as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 250;

    fn reported(flow_counter: &mut FlowCounter, outcome: Outcome, now: u32, packets: u32) -> u32 {
        (0..packets).map(|_| u32::from(flow_counter.count(outcome, 1, now, SECOND))).sum()
    }

    #[test]
    fn all_are_counted_and_a_few_a_second_are_told() {
        for (outcome, limit) in [
            (Outcome::Denied, DENIED_PER_SECOND),
            (Outcome::Allowed, PASSED_PER_SECOND),
            (Outcome::Pending, DENIED_PER_SECOND),
        ] {
            // Just before the ticks begin again.
            let start = u32::MAX - 10;
            let mut flow_counter = FlowCounter { since: start, ..FlowCounter::EMPTY };
            let limit = u32::from(limit);
            assert_eq!(reported(&mut flow_counter, outcome, start, 1_000), limit, "{outcome}");
            assert_eq!(
                reported(&mut flow_counter, outcome, start.wrapping_add(SECOND - 1), 1_000),
                0,
                "{outcome}"
            );
            assert_eq!(
                reported(&mut flow_counter, outcome, start.wrapping_add(SECOND), 1_000),
                limit,
                "{outcome}"
            );
            assert_eq!(
                (flow_counter.packets, flow_counter.unreported),
                (3_000, 3_000),
                "no event has reported them yet"
            );
        }
    }

    #[test]
    fn whoever_uses_a_second_up_alone_is_known_until_the_next_one() {
        let mut flow_counter = FlowCounter::EMPTY;
        let mut count = |from, now, packets| {
            (0..packets).filter(|_| flow_counter.count(Outcome::Denied, from, now, SECOND)).count();
            [7, 8].map(|from| flow_counter.is_all_from(from))
        };
        let start = 10 * SECOND;
        assert_eq!(count(7, start, 1_000), [true, false]);
        assert_eq!(count(8, start, 1), [true, false], "what is not reported changes nothing");
        assert_eq!(count(8, start + SECOND, 1), [false, true]);
        assert_eq!(count(7, start + SECOND, 1_000), [false, false], "both have used it");
        assert_eq!(count(7, start + 2 * SECOND, 1), [true, false]);
    }

    #[test]
    fn the_other_end_is_remembered_from_the_pods_point_of_view() {
        let tuple = Tuple {
            source: Address::from_v4([10, 0, 0, 1]),
            destination: Address::from_v4([10, 0, 0, 2]),
            source_port: 40_000,
            destination_port: 80,
            protocol: 6,
        };
        for (direction, peer) in [(Direction::Egress, tuple.destination), (Direction::Ingress, tuple.source)]
        {
            let mut flow_counter = FlowCounter::EMPTY;
            flow_counter.remember(&tuple, direction, 7);
            assert_eq!(
                (flow_counter.peer, flow_counter.protocol, flow_counter.port, flow_counter.revision),
                (peer, 6, 80, 7)
            );
        }
    }
}
