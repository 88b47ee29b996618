//! What became of a packet, and why: each outcome has a counter.
//!
//! The table of `outcomes!` is all that is said of an outcome: its number, its name, what happens to the
//! packet, and what it means. A new one is a new row with a number of its own; the numbers of the others
//! stay, as pinned counters and flow counters are found by them.

use core::fmt;

macro_rules! outcomes {
    ($($outcome:ident = $number:literal {
        name: $name:literal, passes: $passes:literal, is_reported: $is_reported:literal,
        policies: $policies:ident, meaning: $meaning:literal $(,)?
    })*) => {
        /// The outcome of one decision. Pass and drop reasons are one list, so that one array counts them
        /// all.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Outcome {
            $(#[doc = $meaning] $outcome = $number,)*
        }

        impl Outcome {
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$outcome),*];

            /// Whether the packet goes on; else it is dropped.
            #[inline(always)]
            pub const fn passes(self) -> bool {
                match self {
                    $(Self::$outcome => $passes,)*
                }
            }

            /// Whether it is reported in flow counters and events: a new connection, or a packet that is
            /// dropped.
            #[inline(always)]
            pub const fn is_reported(self) -> bool {
                match self {
                    $(Self::$outcome => $is_reported,)*
                }
            }

            /// What policies have to do with it.
            pub const fn policies(self) -> PolicyRole {
                match self {
                    $(Self::$outcome => PolicyRole::$policies,)*
                }
            }

            /// Its name in counters, metrics and messages.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$outcome => $name,)*
                }
            }

            /// In words, for people: about a packet.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$outcome => $meaning,)*
                }
            }
        }
    };
}

outcomes! {
    Established = 0 {
        name: "established", passes: true, is_reported: false, policies: NotAsked,
        meaning: "belongs to a connection that was evaluated before",
    }
    Allowed = 1 {
        name: "allowed", passes: true, is_reported: true, policies: Allow,
        meaning: "new, the pod is isolated and a rule allows it",
    }
    NotIsolated = 2 {
        name: "not-isolated", passes: true, is_reported: true, policies: NotIsolating,
        meaning: "new, the pod is not isolated in this direction",
    }
    OwnNode = 3 {
        name: "own-node", passes: true, is_reported: true, policies: NotAsked,
        meaning: "between a pod and its own node",
    }
    OwnAddress = 4 {
        name: "own-address", passes: true, is_reported: true, policies: NotAsked,
        meaning: "from a pod to itself",
    }
    Neighbour = 5 {
        name: "neighbour", passes: true, is_reported: false, policies: NotAsked,
        meaning: "ARP, neighbour discovery or multicast listener discovery, on the link and in the sender's own name",
    }
    Dhcp = 6 {
        name: "dhcp", passes: true, is_reported: false, policies: NotAsked,
        meaning: "a DHCP exchange of a host that has no address yet",
    }
    Related = 7 {
        name: "related", passes: true, is_reported: false, policies: NotAsked,
        meaning: "an ICMP error about an established connection",
    }
    Unparsed = 8 {
        name: "unparsed", passes: true, is_reported: false, policies: NotAsked,
        meaning: "could not be read, and the direction is not isolated",
    }
    Deferred = 9 {
        name: "deferred", passes: true, is_reported: true, policies: Allow,
        meaning: "to a service of which only some backends are allowed; evaluated where the backend is known",
    }
    Masqueraded = 10 {
        name: "masqueraded", passes: true, is_reported: true, policies: NotAsked,
        meaning: "masqueraded by this node, which `--masqueraded-ingress allow` lets in",
    }
    WouldDeny = 11 {
        name: "would-deny", passes: true, is_reported: true, policies: WouldDeny,
        meaning: "new, and a policy in audit mode would have denied it",
    }
    Denied = 12 {
        name: "denied", passes: false, is_reported: true, policies: Deny,
        meaning: "new, the pod is isolated and no rule allows it",
    }
    DeniedBackend = 13 {
        name: "denied-backend", passes: false, is_reported: true, policies: Deny,
        meaning: "new, the sender is isolated and no rule allows the backend that its service has chosen",
    }
    Spoofed = 14 {
        name: "spoofed", passes: false, is_reported: true, policies: NotAsked,
        meaning: "the source is not an address of the pod that sent it, or it speaks for another one to its \
                  neighbours",
    }
    Pending = 15 {
        name: "pending", passes: false, is_reported: true, policies: NotAsked,
        meaning: "the pod behind the veth is not known yet",
    }
    Unreadable = 16 {
        name: "unreadable", passes: false, is_reported: true, policies: NotAsked,
        meaning: "could not be read, and the direction is isolated, or a receiver could take it for what no pod \
                  may send",
    }
    Fragment = 17 {
        name: "fragment", passes: false, is_reported: true, policies: NotAsked,
        meaning: "a fragment whose first fragment was not seen, and the direction is isolated",
    }
    FlowTable = 18 {
        name: "flow-table", passes: false, is_reported: true, policies: NotAsked,
        meaning: "the connection could not be entered into the flow table, and the pod is isolated",
    }
    Encapsulated = 19 {
        name: "encapsulated", passes: false, is_reported: true, policies: NotAsked,
        meaning: "a tunnel's packet from a pod to a node, which would take another packet out of it",
    }
    Failsafe = 20 {
        name: "failsafe", passes: true, is_reported: true, policies: NotAsked,
        meaning: "new, to or from a port of the node that no policy closes",
    }
}

impl Outcome {
    /// Whether policies were asked.
    pub const fn is_by_policy(self) -> bool {
        match self.policies() {
            PolicyRole::NotAsked => false,
            PolicyRole::NotIsolating | PolicyRole::Allow | PolicyRole::WouldDeny | PolicyRole::Deny => true,
        }
    }
}

/// What policies have to do with an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyRole {
    /// None is behind it.
    NotAsked,
    /// None that is enforced isolates the pod.
    NotIsolating,
    /// Some rule has allowed it.
    Allow,
    /// One in audit mode would have denied it.
    WouldDeny,
    /// They have denied it.
    Deny,
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
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{COUNTERS, Direction, counter};

    #[test]
    fn every_outcome_comes_back_from_its_number_and_no_other_number_does() {
        let by_number: BTreeMap<u8, Outcome> =
            Outcome::ALL.into_iter().map(|outcome| (outcome as u8, outcome)).collect();
        for number in 0..=u8::MAX {
            assert_eq!(Outcome::try_from(number).ok(), by_number.get(&number).copied());
        }
    }

    #[test]
    fn what_policies_deny_is_dropped_and_all_else_that_they_say_passes_and_each_is_reported() {
        for outcome in Outcome::ALL {
            let is_consistent = match outcome.policies() {
                PolicyRole::NotAsked => true,
                PolicyRole::NotIsolating | PolicyRole::Allow | PolicyRole::WouldDeny => {
                    outcome.passes() && outcome.is_reported()
                }
                PolicyRole::Deny => !outcome.passes() && outcome.is_reported(),
            };
            assert!(is_consistent && (outcome.passes() || outcome.is_reported()), "{outcome}");
        }
    }

    #[test]
    fn each_outcome_has_a_name_a_meaning_and_a_counter_of_its_own() {
        let of_all =
            |text: fn(Outcome) -> &'static str| Outcome::ALL.map(text).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(of_all(Outcome::name).len(), Outcome::ALL.len());
        assert_eq!(of_all(Outcome::meaning).len(), Outcome::ALL.len());
        let counters: BTreeSet<u32> = Direction::ALL
            .iter()
            .flat_map(|direction| Outcome::ALL.map(|outcome| counter(*direction, outcome)))
            .collect();
        assert_eq!(counters.len(), 2 * Outcome::ALL.len());
        assert!(counters.last().is_some_and(|last| (*last as usize) < COUNTERS));
    }
}
