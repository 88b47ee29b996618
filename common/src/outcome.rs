//! What became of a packet, and why: each outcome has a counter.

use core::fmt;

/// The outcome of one decision. Pass and drop reasons are one list, so that one array counts them all.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Passes: belongs to a connection that was evaluated before.
    Established = 0,
    /// Passes: new, the pod is isolated and a rule allows it.
    Allowed = 1,
    /// Passes: new, the pod is not isolated in this direction.
    NotIsolated = 2,
    /// Passes: between a pod and its own node.
    OwnNode = 3,
    /// Passes: from a pod to itself.
    OwnAddress = 4,
    /// Passes: ARP, neighbour discovery, multicast listener discovery, on the link and in the sender's own
    /// name.
    Neighbour = 5,
    /// Passes: a DHCP exchange of a host that has no address yet.
    Dhcp = 6,
    /// Passes: an ICMP error about an established connection.
    Related = 7,
    /// Passes: could not be read, and the direction is not isolated.
    Unparsed = 8,
    /// Passes: to a service of which only some backends are allowed; evaluated where the backend is known.
    Deferred = 9,
    /// Passes: masqueraded by this node, which `--masqueraded-ingress allow` lets in.
    Masqueraded = 10,
    /// Passes: new, and a policy in audit mode would have denied it.
    WouldDeny = 11,
    /// Dropped: new, the pod is isolated and no rule allows it.
    Denied = 12,
    /// Dropped: new, the sender is isolated and no rule allows the backend that its service has chosen.
    DeniedBackend = 13,
    /// Dropped: the source is not an address of the pod that sent it, or it speaks for another one to its
    /// neighbours.
    Spoofed = 14,
    /// Dropped: the pod behind the veth is not known yet.
    Pending = 15,
    /// Dropped: could not be read, and the direction is isolated, or a receiver could take it for what no pod
    /// may send.
    Unreadable = 16,
    /// Dropped: a fragment whose first fragment was not seen, and the direction is isolated.
    Fragment = 17,
    /// Dropped: the connection could not be entered into the flow table, and the pod is isolated.
    FlowTable = 18,
    /// Dropped: a tunnel's packet from a pod to a node, which would take another packet out of it.
    Encapsulated = 19,
}

impl Outcome {
    pub const ALL: [Self; 20] = [
        Self::Established,
        Self::Allowed,
        Self::NotIsolated,
        Self::OwnNode,
        Self::OwnAddress,
        Self::Neighbour,
        Self::Dhcp,
        Self::Related,
        Self::Unparsed,
        Self::Deferred,
        Self::Masqueraded,
        Self::WouldDeny,
        Self::Denied,
        Self::DeniedBackend,
        Self::Spoofed,
        Self::Pending,
        Self::Unreadable,
        Self::Fragment,
        Self::FlowTable,
        Self::Encapsulated,
    ];

    #[inline(always)]
    pub const fn passes(self) -> bool {
        (self as u8) < (Self::Denied as u8)
    }

    /// Whether it is reported in flow counters and events: a new connection, or a packet that is dropped.
    #[inline(always)]
    pub const fn is_reported(self) -> bool {
        !matches!(self, Self::Established | Self::Neighbour | Self::Dhcp | Self::Related | Self::Unparsed)
    }

    /// Its name in counters, metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Allowed => "allowed",
            Self::NotIsolated => "not-isolated",
            Self::OwnNode => "own-node",
            Self::OwnAddress => "own-address",
            Self::Neighbour => "neighbour",
            Self::Dhcp => "dhcp",
            Self::Related => "related",
            Self::Unparsed => "unparsed",
            Self::Deferred => "deferred",
            Self::Masqueraded => "masqueraded",
            Self::WouldDeny => "would-deny",
            Self::Denied => "denied",
            Self::DeniedBackend => "denied-backend",
            Self::Spoofed => "spoofed",
            Self::Pending => "pending",
            Self::Unreadable => "unreadable",
            Self::Fragment => "fragment",
            Self::FlowTable => "flow-table",
            Self::Encapsulated => "encapsulated",
        }
    }
}

impl TryFrom<u8> for Outcome {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Self::ALL.into_iter().find(|outcome| *outcome as u8 == value).ok_or(value)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{COUNTERS, Direction, counter};

    #[test]
    fn every_outcome_comes_back_from_its_number_and_no_other_number_does() {
        for (number, outcome) in (0..).zip(Outcome::ALL) {
            assert_eq!(outcome as u8, number);
        }
        for number in 0..=u8::MAX {
            let expected = Outcome::ALL.get(usize::from(number)).copied().ok_or(number);
            assert_eq!(Outcome::try_from(number), expected);
        }
    }

    #[test]
    fn reasons_to_drop_come_after_reasons_to_pass() {
        let passing: BTreeSet<Outcome> =
            Outcome::ALL.into_iter().filter(|outcome| outcome.passes()).collect();
        assert!(passing.contains(&Outcome::Unparsed) && !passing.contains(&Outcome::Denied));
        assert!(Outcome::ALL.is_sorted_by_key(|outcome| !outcome.passes()));
    }

    #[test]
    fn each_outcome_has_a_name_and_a_counter_of_its_own() {
        let names: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
        let counters: BTreeSet<u32> = Direction::ALL
            .iter()
            .flat_map(|direction| Outcome::ALL.map(|outcome| counter(*direction, outcome)))
            .collect();
        assert_eq!(counters.len(), 2 * Outcome::ALL.len());
        assert!(counters.last().is_some_and(|last| (*last as usize) < COUNTERS));
    }
}
