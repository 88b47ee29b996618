//! Ranges of ports, and sets of them.

use podgate_common::Protocol;

use super::NamedPort;

/// Ports `first` to `last` of one protocol, both included. Port 0 is matched only by [`PortRange::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol of all of them.
    pub protocol: Protocol,
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// All ports of a rule together, whatever ranges it names them by: for each protocol (by [`Protocol::index`])
/// ascending ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet([Vec<(u16, u16)>; 3]);

impl PortRange {
    /// Ports `first` to `last`.
    pub const fn new(protocol: Protocol, first: u16, last: u16) -> Self {
        Self { protocol, first, last }
    }

    /// Every port of a protocol, 0 too.
    pub const fn all(protocol: Protocol) -> Self {
        Self { protocol, first: 0, last: u16::MAX }
    }
}

impl From<&NamedPort> for PortRange {
    fn from(port: &NamedPort) -> Self {
        Self::new(port.protocol, port.number, port.number)
    }
}

impl PortSet {
    /// Whether the port is in the set.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        let ranges = self.ranges(protocol);
        let after = ranges.partition_point(|&(first, _)| first <= port);
        after > 0 && port <= ranges[after - 1].1
    }

    /// Whether every port of the other set is in it.
    pub fn covers(&self, other: &Self) -> bool {
        Protocol::ALL.into_iter().all(|protocol| {
            let wide = self.ranges(protocol);
            other.ranges(protocol).iter().all(|&(first, last)| {
                let after = wide.partition_point(|&(start, _)| start <= first);
                after > 0 && last <= wide[after - 1].1
            })
        })
    }

    /// Its ranges of one protocol, first and last port, in order and apart.
    pub fn ranges(&self, protocol: Protocol) -> &[(u16, u16)] {
        &self.0[protocol.index() as usize]
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
