//! Values that the programs at the node's own devices look up: keys of host endpoints in the map of
//! endpoints, the uses of ports, and the deadline of an unconfirmed change.

use crate::{Direction, FlowKey, bits::bit_set};

/// The key of a host endpoint in the map of endpoints: the ifindex of its device with some of these bits. No
/// ifindex is as large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostKey(pub u32);

impl HostKey {
    /// Set in every such key.
    pub const HOST: u32 = 1 << 31;
    /// Set for forwarded traffic; not set for traffic of the node's own processes.
    pub const FORWARDED: u32 = 1 << 30;
    /// Set for the entries before a change that is not confirmed.
    pub const BEFORE: u32 = 1 << 29;
    /// Devices with a greater ifindex have no host endpoint.
    pub const MAX_IFINDEX: u32 = (1 << 28) - 1;

    /// The key of a device, for traffic of the node's own processes.
    #[inline(always)]
    pub const fn of(ifindex: u32) -> Self {
        Self(Self::HOST | ifindex & Self::MAX_IFINDEX)
    }

    /// The key of the same device for forwarded traffic.
    #[inline(always)]
    #[must_use]
    pub const fn forwarded(self) -> Self {
        Self(self.0 | Self::FORWARDED)
    }

    /// The key of its entry before the change.
    #[inline(always)]
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0 | Self::BEFORE)
    }

    /// Whether a key of the map of endpoints is one of a host endpoint.
    #[inline(always)]
    pub const fn is_host(key: u32) -> bool {
        // The reserved values that stand for no device have all of these bits.
        key & Self::HOST != 0 && key & !Self::MAX_IFINDEX != 0xf000_0000
    }

    /// The ifindex of its device.
    pub const fn ifindex(self) -> u32 {
        self.0 & Self::MAX_IFINDEX
    }
}

/// The uses of a port of TCP, UDP or SCTP, as bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortUse(pub u8);

bit_set!(PortUse);

impl PortUse {
    /// Incoming traffic to this port passes, whatever policies say.
    pub const FAILSAFE_IN: Self = Self(1);
    /// Outgoing traffic to this port passes, whatever policies say.
    pub const FAILSAFE_OUT: Self = Self(2);

    /// Whether traffic of this direction to this port passes, whatever policies say.
    #[inline(always)]
    pub const fn is_failsafe(self, direction: Direction) -> bool {
        self.has(match direction {
            Direction::Ingress => Self::FAILSAFE_IN,
            Direction::Egress => Self::FAILSAFE_OUT,
        })
    }
}

/// Where packets to an address and port of a service end. Value of a map; the key is a [`ServiceKey`], for
/// node ports with the unspecified address.
///
/// [`ServiceKey`]: crate::ServiceKey
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceEnd {
    /// At one of the node's own processes, perhaps.
    Node = 1,
    /// At no process of the node.
    Elsewhere = 2,
}

impl ServiceEnd {
    /// What a value of the map says.
    #[inline(always)]
    pub const fn of(value: u32) -> Self {
        if value == Self::Elsewhere as u32 { Self::Elsewhere } else { Self::Node }
    }
}

/// The state of the last change of host endpoints.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostGuard {
    /// Nanoseconds of the monotonic clock: from then on the entries before the change count again. 0: every
    /// change is confirmed.
    pub deadline: u64,
    /// A hash of the rule sets that were confirmed last; where there is a deadline, of those that it is
    /// about. Only agents read it.
    pub content: u64,
}

impl HostGuard {
    /// Whether the change is undone.
    #[inline(always)]
    pub const fn has_expired(&self, now: u64) -> bool {
        self.deadline != 0 && now >= self.deadline
    }
}

impl FlowKey {
    /// The key of the same connection for the programs at the node's own devices. These and the programs at
    /// pods' veths never look up each other's entries.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn at_host(self) -> Self {
        self.with_end_bit(Self::AT_HOST)
    }

    /// Whether it is a key of those programs.
    pub const fn is_at_host(&self) -> bool {
        self.has_end_bit(Self::AT_HOST)
    }

    /// A bit above those that the key uses otherwise.
    const AT_HOST: u64 = 1 << 41;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Flow, HEARD_BY_NODE, NODE, OTHER_NODE};

    #[test]
    fn a_key_of_a_host_endpoint_is_no_ifindex_and_stands_for_one() {
        for ifindex in [1, 7, HostKey::MAX_IFINDEX] {
            let local = HostKey::of(ifindex);
            let keys = [local, local.forwarded(), local.before(), local.forwarded().before()];
            assert!(keys.iter().all(|key| HostKey::is_host(key.0) && key.ifindex() == ifindex), "{keys:?}");
            assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
            assert!(!HostKey::is_host(ifindex));
        }
        for number in [NODE, OTHER_NODE, HEARD_BY_NODE, Flow::ANY_INGRESS, Flow::UNKNOWN_INGRESS] {
            assert!(!HostKey::is_host(number), "{number:#x}");
        }
    }

    #[test]
    fn a_change_is_undone_at_its_deadline_unless_it_is_confirmed() {
        let guard = HostGuard { deadline: 5, content: 0 };
        assert_eq!([4, 5, 6].map(|now| guard.has_expired(now)), [false, true, true]);
        assert!(!HostGuard { deadline: 0, ..guard }.has_expired(u64::MAX));
    }
}
