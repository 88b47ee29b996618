//! Pods that should be isolated and are not, and why.

use std::{fmt, time::Instant};

/// A pod that some policy isolates, while nothing stands between it and everybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unenforced {
    pub reason: UnenforcedReason,
    /// A sentence without a full stop.
    pub detail: String,
    pub since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnenforcedReason {
    /// No interface of the node is known to lead to it.
    NoDevice,
    Macvlan,
    Ipvlan,
    Netkit,
    /// SR-IOV, or a network card of its own.
    PhysicalDevice,
    OtherDevice,
    AttachRefused,
    ForeignProgram,
    DuplicateAddress,
}

impl UnenforcedReason {
    pub const ALL: [Self; 9] = [
        Self::NoDevice,
        Self::Macvlan,
        Self::Ipvlan,
        Self::Netkit,
        Self::PhysicalDevice,
        Self::OtherDevice,
        Self::AttachRefused,
        Self::ForeignProgram,
        Self::DuplicateAddress,
    ];

    /// By the kernel's word for the device that a pod has in its own namespace.
    pub(crate) fn of_kind(kind: &str) -> Self {
        match kind {
            "" => Self::PhysicalDevice,
            "macvlan" | "macvtap" => Self::Macvlan,
            "ipvlan" | "ipvtap" => Self::Ipvlan,
            "netkit" => Self::Netkit,
            _ => Self::OtherDevice,
        }
    }
}

impl fmt::Display for UnenforcedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDevice => "no-device",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Netkit => "netkit",
            Self::PhysicalDevice => "physical-device",
            Self::OtherDevice => "other-device",
            Self::AttachRefused => "attach-refused",
            Self::ForeignProgram => "foreign-program",
            Self::DuplicateAddress => "duplicate-address",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_of_device_has_its_reason() {
        for (kind, reason) in [
            ("macvlan", "macvlan"),
            ("ipvlan", "ipvlan"),
            ("netkit", "netkit"),
            ("", "physical-device"),
            ("dummy", "other-device"),
        ] {
            assert_eq!(UnenforcedReason::of_kind(kind).to_string(), reason);
        }
        let names: BTreeSet<String> = UnenforcedReason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), UnenforcedReason::ALL.len());
    }
}
