//! What was found when the entries of a rule were tried.

use std::fmt;

use super::{
    name::NameFinding,
    peers::PeerFinding,
    ports::{AskedPort, PortFinding, WantedPort},
};

/// An entry of a rule, printed as in `from[0]`; without an index the list itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryName {
    /// The list.
    pub list: RuleList,
    /// The place in it.
    pub index: Option<usize>,
}

/// A list of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleList {
    /// Peers of ingress.
    From,
    /// Peers of egress.
    To,
    /// Ports.
    Ports,
    /// Ports of a rule of Calico's that do not match.
    NotPorts,
    /// A field of an end of a rule of Calico's, as in `source.selector`.
    Field(&'static str),
}

/// An entry that was tried.
pub(super) struct TriedEntry {
    pub(super) entry: EntryName,
    /// Why it matches, or else why not.
    pub(super) found: Result<EntryFinding, EntryFinding>,
}

/// Why an entry matches, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryFinding {
    /// There is no list of peers.
    AnyPeer,
    /// There is no list of ports.
    AnyPort,
    /// The list has nothing that can match.
    EmptyList,
    /// Nor can the entry.
    NotUnderstood,
    /// It is a name of the DNS: which addresses it has, each pod learns for itself.
    Name(NameFinding),
    /// Of a peer.
    Peer(PeerFinding),
    /// Of a port.
    Port(PortFinding),
}

/// Why a rule does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Neither does this entry.
    Entry(EntryName, EntryFinding),
    /// None of its ports is the one.
    Ports {
        /// Its ports.
        wanted: Vec<WantedPort>,
        /// The one in question.
        asked: AskedPort,
    },
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.list {
            RuleList::From => "from",
            RuleList::To => "to",
            RuleList::Ports => "ports",
            RuleList::NotPorts => "notPorts",
            RuleList::Field(field) => field,
        })?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

impl fmt::Display for EntryFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnyPeer => f.write_str("names none, so every peer matches"),
            Self::AnyPort => f.write_str("names none, so every port matches"),
            Self::EmptyList => f.write_str("has no entry that was understood"),
            Self::NotUnderstood => f.write_str("was not understood, matches nothing"),
            Self::Name(name) => name.fmt(f),
            Self::Peer(peer) => peer.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(entry, finding) => write!(f, "{entry} {finding}"),
            Self::Ports { wanted, asked } => {
                let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
                let wanted =
                    if wanted.is_empty() { "no port that was understood".into() } else { wanted.join(", ") };
                write!(f, "ports wants {wanted}, not {asked}")
            }
        }
    }
}
