//! Ranges of ports, and sets of them. Types of ICMP and numbers of protocols stand in them as ports do
//! ([`RuleProtocol`]).

use podgate_common::RuleProtocol;

use super::NamedPort;

/// Ports `first` to `last` of one protocol, both included. Port 0 is matched only by [`PortRange::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol of all of them.
    pub protocol: RuleProtocol,
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// All ports of a rule together, whatever ranges it names them by: for each protocol (by
/// [`RuleProtocol::index`]) ascending ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet([Vec<(u16, u16)>; RuleProtocol::ALL.len()]);

impl PortRange {
    /// Ports `first` to `last`.
    pub fn new(protocol: impl Into<RuleProtocol>, first: u16, last: u16) -> Self {
        Self { protocol: protocol.into(), first, last }
    }

    /// Every port of a protocol, 0 too.
    pub fn all(protocol: impl Into<RuleProtocol>) -> Self {
        Self::new(protocol, 0, u16::MAX)
    }

    /// Everything of the IP protocol with this number.
    pub fn of_number(number: u8) -> Self {
        let (protocol, place) = RuleProtocol::of_packet(number.into(), 0, 0);
        match protocol {
            RuleProtocol::Other => Self::new(protocol, place, place),
            RuleProtocol::Tcp
            | RuleProtocol::Udp
            | RuleProtocol::Sctp
            | RuleProtocol::Icmp
            | RuleProtocol::IcmpV6 => Self::all(protocol),
        }
    }
}

impl From<&NamedPort> for PortRange {
    fn from(port: &NamedPort) -> Self {
        Self::new(port.protocol, port.number, port.number)
    }
}

impl PortSet {
    /// Whether the port is in the set.
    pub fn contains(&self, protocol: impl Into<RuleProtocol>, port: u16) -> bool {
        let ranges = self.ranges(protocol);
        let after = ranges.partition_point(|&(first, _)| first <= port);
        after > 0 && port <= ranges[after - 1].1
    }

    /// Whether every port of the other set is in it.
    pub fn covers(&self, other: &Self) -> bool {
        RuleProtocol::ALL.into_iter().all(|protocol| {
            let wide = self.ranges(protocol);
            other.ranges(protocol).iter().all(|&(first, last)| {
                let after = wide.partition_point(|&(start, _)| start <= first);
                after > 0 && last <= wide[after - 1].1
            })
        })
    }

    /// The ports that are in any of both.
    pub fn union(&self, other: &Self) -> Self {
        let ranges = |set: &'_ Self| {
            let of =
                |protocol| set.ranges(protocol).iter().map(move |&(first, last)| (protocol, first, last));
            RuleProtocol::ALL.into_iter().flat_map(of).collect::<Vec<_>>()
        };
        let all = ranges(self).into_iter().chain(ranges(other));
        all.map(|(protocol, first, last)| PortRange::new(protocol, first, last)).collect()
    }

    /// The ports that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let both = RuleProtocol::ALL.into_iter().flat_map(|protocol| {
            self.ranges(protocol).iter().flat_map(move |&(first, last)| {
                let others = other.ranges(protocol);
                let begin = others.partition_point(|&(_, end)| end < first);
                let within = others[begin..].iter().take_while(move |&&(start, _)| start <= last);
                within.map(move |&(start, end)| PortRange::new(protocol, start.max(first), end.min(last)))
            })
        });
        both.collect()
    }

    /// Its ranges of one protocol, first and last port, in order and apart.
    pub fn ranges(&self, protocol: impl Into<RuleProtocol>) -> &[(u16, u16)] {
        &self.0[protocol.into().index() as usize]
    }

    /// Whether it has no port.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// How many ranges it consists of.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut set = Self::default();
        for PortRange { protocol, first, last } in ranges {
            set.0[protocol.index() as usize].push((first, last));
        }
        for ranges in &mut set.0 {
            ranges.sort_unstable();
            ranges.dedup_by(|next, before| {
                let touches = u32::from(next.0) <= u32::from(before.1) + 1;
                if touches {
                    before.1 = before.1.max(next.1);
                }
                touches
            });
            ranges.shrink_to_fit();
        }
        set
    }
}
