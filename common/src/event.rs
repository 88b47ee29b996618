//! What the programs tell of their decisions: how often alike was judged alike ([`Tally`]), and single decisions
//! ([`FlowEvent`]) by a ring buffer.
//!
//! Only new connections and dropped packets are told of, never a packet that passes on the entry of its connection. What
//! is alike (same pod, direction, outcome, and a peer and port that no rule can tell apart) is told of a few times a second
//! on each CPU; the rest is only counted.

use crate::{Address, ClassId, Direction, IdentityId, Outcome, PolicyId, Tuple};

/// Events of one key, each second on each CPU.
const DENIED_PER_SECOND: u8 = 64;
/// What passes is sampled.
const PASSED_PER_SECOND: u8 = 16;

/// What was asked of the policies, and whose they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The veth of the pod whose side was judged.
    pub ifindex: u32,
    pub direction: Direction,
    pub policy: PolicyId,
    /// Of the other end.
    pub identity: IdentityId,
    pub class: ClassId,
}

impl Judged {
    pub(crate) const NOTHING: Self = Self {
        ifindex: 0,
        direction: Direction::Egress,
        policy: PolicyId::FREE,
        identity: IdentityId::NONE,
        class: ClassId::NONE,
    };

    /// In place of a class: the identity is that of a service.
    pub const SERVICE: ClassId = ClassId(u16::MAX);
}

/// Key of the map of tallies: what no rule can tell apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TallyKey {
    /// The veth of the pod whose side was judged.
    pub ifindex: u32,
    /// Of the other end; a service's id beside [`Judged::SERVICE`].
    pub identity: IdentityId,
    pub class: ClassId,
    /// A [`Direction`].
    pub direction: u8,
    /// An [`Outcome`].
    pub outcome: u8,
}

impl TallyKey {
    #[inline(always)]
    pub const fn new(judged: &Judged, outcome: Outcome) -> Self {
        Self {
            ifindex: judged.ifindex,
            identity: judged.identity,
            class: judged.class,
            direction: judged.direction as u8,
            outcome: outcome as u8,
        }
    }

    /// In place of a class, for all peers and ports that are beyond a share of tallies ([`crate::Share::TALLIES`]).
    pub const OTHERS: ClassId = ClassId(u16::MAX - 1);

    /// Where a packet is counted that there is no tally left for: with all such ones of its direction and outcome.
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

/// Value of the map of tallies, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// That opened a connection, or were dropped.
    pub packets: u64,
    /// Since when `told` counts, in ticks.
    pub since: u32,
    /// Packets since the last event.
    pub untold: u32,
    /// The other end of the last one that was told of.
    pub peer: Address,
    /// In which it was judged.
    pub epoch: u32,
    /// Where it was bound for.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Events in this second.
    pub told: u8,
    /// In whose share it is, a veth.
    pub charged_to: u32,
    /// 0: in nobody's, as it is one of those that are made beyond a share ([`TallyKey::of_others`]).
    pub is_charged: u32,
}

impl Tally {
    pub const EMPTY: Self = Self {
        packets: 0,
        since: 0,
        untold: 0,
        peer: Address::UNSPECIFIED,
        epoch: 0,
        port: 0,
        protocol: 0,
        told: 0,
        charged_to: 0,
        is_charged: 0,
    };

    /// Counts one more packet. True: it is to be told of.
    #[inline(always)]
    pub const fn count(&mut self, outcome: Outcome, now: u32, second: u32) -> bool {
        self.packets += 1;
        self.untold = self.untold.saturating_add(1);
        if now.wrapping_sub(self.since) >= second {
            self.since = now;
            self.told = 0;
        }
        let limit = if outcome.passes() { PASSED_PER_SECOND } else { DENIED_PER_SECOND };
        if self.told >= limit {
            return false;
        }
        self.told += 1;
        true
    }

    /// Remembers what was told of.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "IP protocol numbers have 8 bits")]
    pub const fn remember(&mut self, tuple: &Tuple, direction: Direction, epoch: u32) {
        self.peer = match direction {
            Direction::Egress => tuple.destination,
            Direction::Ingress => tuple.source,
        };
        self.protocol = tuple.protocol as u8;
        self.port = tuple.destination_port;
        self.epoch = epoch;
    }
}

/// One decision, as the ring buffer carries it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Of the monotonic clock, in nanoseconds.
    pub time: u64,
    /// How many alike were judged alike on this CPU since the last event, this one included ([`Tally::untold`]).
    pub packets: u32,
    /// The veth of the pod whose side was judged.
    pub ifindex: u32,
    /// What judged it; free: nothing did.
    pub policy: PolicyId,
    /// The epoch when it was judged. A pod may have been switched to its new policy before the epoch was raised.
    pub epoch: u32,
    /// The client, untranslated as the hook sees it; the unspecified address if it could not be read.
    pub source: Address,
    pub destination: Address,
    pub source_port: u16,
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u16,
    /// A [`Direction`]: whose side was judged, the client's (egress) or the server's (ingress).
    pub direction: u8,
    /// An [`Outcome`].
    pub outcome: u8,
}

impl FlowEvent {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "IP protocol numbers have 8 bits")]
    pub const fn new(tuple: &Tuple, judged: &Judged, outcome: Outcome, tally: &Tally, time: u64) -> Self {
        Self {
            time,
            packets: tally.untold,
            ifindex: judged.ifindex,
            policy: judged.policy,
            epoch: tally.epoch,
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            protocol: tuple.protocol as u16,
            direction: judged.direction as u8,
            outcome: outcome as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 250;

    fn told(tally: &mut Tally, outcome: Outcome, now: u32, packets: u32) -> u32 {
        (0..packets).map(|_| u32::from(tally.count(outcome, now, SECOND))).sum()
    }

    #[test]
    fn all_are_counted_and_a_few_a_second_are_told() {
        for (outcome, limit) in [
            (Outcome::Denied, DENIED_PER_SECOND),
            (Outcome::Allowed, PASSED_PER_SECOND),
            (Outcome::Held, DENIED_PER_SECOND),
        ] {
            // Just before the ticks begin anew.
            let start = u32::MAX - 10;
            let mut tally = Tally { since: start, ..Tally::EMPTY };
            let limit = u32::from(limit);
            assert_eq!(told(&mut tally, outcome, start, 1_000), limit, "{outcome}");
            assert_eq!(told(&mut tally, outcome, start.wrapping_add(SECOND - 1), 1_000), 0, "{outcome}");
            assert_eq!(told(&mut tally, outcome, start.wrapping_add(SECOND), 1_000), limit, "{outcome}");
            assert_eq!((tally.packets, tally.untold), (3_000, 3_000), "nobody has told of them yet");
        }
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
            let mut tally = Tally::EMPTY;
            tally.remember(&tuple, direction, 7);
            assert_eq!((tally.peer, tally.protocol, tally.port, tally.epoch), (peer, 6, 80, 7));
        }
    }
}
