//! What each of a rule's ports says of a number, and why none matches.

use std::{collections::BTreeSet, fmt};

use podgate_common::{Protocol, RuleProtocol};

use super::{
    end::ResolvedEndpoint,
    findings::{EntryFinding, EntryName, Miss, RuleList, TriedEntry},
};
use crate::{
    model::{Name, Pod, PortRule, Ports},
    port_spec::{Port, PortSpec},
};

/// What a port of a rule wants, and which one is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFinding {
    /// By the rule.
    pub wanted: WantedPort,
    /// By the question.
    pub asked: AskedPort,
    /// It is the one.
    pub matched: bool,
}

/// A port of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedPort {
    /// All of a protocol.
    Protocol(Protocol),
    /// From one to another; of the same for a single one.
    Range(Protocol, u16, u16),
    /// All of the protocol with this number.
    Number(u8),
    /// Messages of ICMP of one type, and of one code if there is one.
    Icmp(RuleProtocol, u8, Option<u8>),
    /// By name.
    Named {
        /// `None`: of any protocol.
        protocol: Option<Protocol>,
        /// The name.
        name: Name,
        /// What it stands for on the destination.
        found: NamedPortFinding,
    },
    /// Nothing matches it.
    NotUnderstood,
}

/// What a name of a port stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedPortFinding {
    /// The destination is no pod.
    NoPod,
    /// The pod has no such port.
    NotOn(String),
    /// The pod gives it these numbers.
    Numbers(BTreeSet<u16>),
}

/// The port that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedPort {
    /// As it was asked.
    pub port: PortSpec,
    /// What it stands for, if it was asked by name.
    pub number: Option<u16>,
}

/// One for each port of the rule; a single one for the list when there are none.
pub(super) fn entries(
    ports: &Ports,
    asked: &PortSpec,
    number: u16,
    to: &ResolvedEndpoint<'_>,
) -> Vec<TriedEntry> {
    let entry = |list, index, found| TriedEntry { entry: EntryName { list, index }, found };
    let any = || entry(RuleList::Ports, None, Ok(EntryFinding::AnyPort));
    let tried = |list, index, port: &PortRule, is_excluded: bool| {
        let matched = matches(port, asked, number, to.policed());
        let wanted = WantedPort::of(port, to);
        let finding = match wanted {
            WantedPort::NotUnderstood => EntryFinding::NotUnderstood,
            WantedPort::Protocol(_)
            | WantedPort::Range(..)
            | WantedPort::Number(_)
            | WantedPort::Icmp(..)
            | WantedPort::Named { .. } => {
                EntryFinding::Port(PortFinding { wanted, asked: AskedPort::of(asked, number), matched })
            }
        };
        entry(list, Some(index), if matched == is_excluded { Err(finding) } else { Ok(finding) })
    };
    let listed = |ports: &[PortRule]| -> Vec<TriedEntry> {
        if ports.is_empty() {
            return vec![entry(RuleList::Ports, None, Err(EntryFinding::EmptyList))];
        }
        let ports = ports.iter().enumerate();
        ports.map(|(index, port)| tried(RuleList::Ports, index, port, false)).collect()
    };
    match ports {
        Ports::Any => vec![any()],
        Ports::Listed(ports) => listed(ports),
        Ports::Except { listed: wanted, except } => {
            let mut entries = wanted.as_ref().map_or_else(|| vec![any()], |ports| listed(ports));
            let except = except.iter().enumerate();
            entries.extend(except.map(|(index, port)| tried(RuleList::NotPorts, index, port, true)));
            entries
        }
    }
}

/// `None` when a port of the rule matches, or when the rule names none.
pub(super) fn miss(ports: &Ports, asked: &PortSpec, number: u16, to: &ResolvedEndpoint<'_>) -> Option<Miss> {
    let (ports, except) = match ports {
        Ports::Any => return None,
        Ports::Listed(ports) => (Some(ports), &Vec::new()),
        Ports::Except { listed, except } => (listed.as_ref(), except),
    };
    let destination = to.policed();
    let is_among = |ports: &Vec<PortRule>| ports.iter().any(|port| matches(port, asked, number, destination));
    let asked_port = AskedPort::of(asked, number);
    if let Some(place) = except.iter().position(|port| matches(port, asked, number, destination)) {
        let finding =
            PortFinding { wanted: WantedPort::of(&except[place], to), asked: asked_port, matched: true };
        let entry = EntryName { list: RuleList::NotPorts, index: Some(place) };
        return Some(Miss::Entry(entry, EntryFinding::Port(finding)));
    }
    let ports = ports.filter(|ports| !is_among(ports))?;
    let wanted = ports.iter().map(|port| WantedPort::of(port, to)).collect();
    Some(Miss::Ports { wanted, asked: asked_port })
}

fn matches(port: &PortRule, asked: &PortSpec, number: u16, destination: Option<&Pod>) -> bool {
    match port {
        PortRule::Named(protocol, name) => {
            let named = PortSpec { protocol: asked.protocol, port: Port::Name(name.clone()) };
            protocol.is_none_or(|protocol| protocol == asked.protocol)
                && named.numbers(destination).contains(&number)
        }
        PortRule::Protocol(_)
        | PortRule::Range { .. }
        | PortRule::Number(_)
        | PortRule::Icmp { .. }
        | PortRule::Nothing => port.range().is_some_and(|range| {
            range.protocol == asked.protocol && (range.first..=range.last).contains(&number)
        }),
    }
}

impl WantedPort {
    fn of(port: &PortRule, to: &ResolvedEndpoint<'_>) -> Self {
        match port {
            PortRule::Protocol(protocol) => Self::Protocol(*protocol),
            PortRule::Range { protocol, first, last } => Self::Range(*protocol, *first, *last),
            PortRule::Number(number) => Self::Number(*number),
            PortRule::Icmp { protocol, kind, code } => Self::Icmp(*protocol, *kind, *code),
            PortRule::Named(protocol, name) => {
                let found = NamedPortFinding::of(*protocol, name, to);
                Self::Named { protocol: *protocol, name: name.clone(), found }
            }
            PortRule::Nothing => Self::NotUnderstood,
        }
    }
}

impl NamedPortFinding {
    fn of(protocol: Option<Protocol>, name: &Name, to: &ResolvedEndpoint<'_>) -> Self {
        let Some(pod) = to.policed() else { return Self::NoPod };
        let is_it = |of: &Protocol| protocol.is_none_or(|protocol| protocol == *of);
        let protocols = Protocol::ALL.into_iter().filter(is_it);
        let named =
            protocols.map(|protocol| PortSpec { protocol: protocol.into(), port: Port::Name(name.clone()) });
        let numbers: BTreeSet<u16> = named.flat_map(|named| named.numbers(Some(pod))).collect();
        if numbers.is_empty() { Self::NotOn(to.shown.clone()) } else { Self::Numbers(numbers) }
    }
}

impl AskedPort {
    fn of(port: &PortSpec, number: u16) -> Self {
        let number = match port.port {
            Port::Number(_) => None,
            Port::Name(_) => Some(number),
        };
        Self { port: port.clone(), number }
    }
}

impl fmt::Display for PortFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, asked, matched } = self;
        let (wanted, asked) = (wanted.to_string(), asked.to_string());
        match matched {
            true if wanted == asked => write!(f, "wants {wanted}, as asked"),
            true => write!(f, "wants {wanted}, {asked} is asked for"),
            false => write!(f, "wants {wanted}, not {asked}"),
        }
    }
}

impl fmt::Display for WantedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "any {protocol}"),
            Self::Range(protocol, first, last) if first == last => write!(f, "{protocol}/{first}"),
            Self::Range(protocol, first, last) => write!(f, "{protocol}/{first}-{last}"),
            Self::Number(number) => match RuleProtocol::of_packet(u32::from(*number), 0, 0).0 {
                RuleProtocol::Other => write!(f, "IP/{number}"),
                known => write!(f, "any {known}"),
            },
            Self::Icmp(protocol, kind, Some(code)) => write!(f, "{protocol}/{kind}/{code}"),
            Self::Icmp(protocol, kind, None) => write!(f, "{protocol}/{kind} of any code"),
            Self::Named { protocol, name, found } => {
                match protocol {
                    Some(protocol) => write!(f, "{protocol}/{name}")?,
                    None => write!(f, "a port named {name}")?,
                }
                match found {
                    NamedPortFinding::NoPod => f.write_str(" (only pods have named ports)"),
                    NamedPortFinding::NotOn(pod) => write!(f, " ({pod} has none)"),
                    NamedPortFinding::Numbers(numbers) => {
                        let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
                        write!(f, " ({})", numbers.join(", "))
                    }
                }
            }
            Self::NotUnderstood => f.write_str("an entry that was not understood"),
        }
    }
}

impl fmt::Display for AskedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.port.fmt(f)?;
        self.number.map_or(Ok(()), |number| write!(f, " ({number})"))
    }
}
