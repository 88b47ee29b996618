//! What policies may have too much of, in words.

use std::fmt;

use super::{MAX_GROUPS, MAX_NETWORKS, MAX_RANGES, MAX_RULES, MAX_SELECTORS};

/// What there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Blocks of addresses.
    Networks,
    /// Ranges of ports.
    Ranges,
    /// Selectors of pods and namespaces.
    Selectors,
    /// Rules of policies.
    Rules,
    /// Groups of addresses that the rules distinguish.
    AddressGroups,
    /// Groups of ports that the rules distinguish.
    PortGroups,
    /// Endpoints of Services that rules name.
    Endpoints,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Networks => write!(f, "{MAX_NETWORKS} networks in ipBlocks"),
            Self::Ranges => write!(f, "{MAX_RANGES} ranges of ports"),
            Self::Selectors => write!(f, "{MAX_SELECTORS} selectors of peers"),
            Self::Rules => write!(f, "{MAX_RULES} rules"),
            Self::AddressGroups => {
                write!(f, "{MAX_GROUPS} groups of addresses that different ipBlocks tell apart")
            }
            Self::PortGroups => {
                write!(f, "{MAX_GROUPS} groups of ports that different lists of ports tell apart")
            }
            Self::Endpoints => write!(
                f,
                "{MAX_NETWORKS} endpoints in the Services that rules name, or {MAX_GROUPS} groups of these"
            ),
        }
    }
}
