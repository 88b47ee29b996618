//! Port classes: ports that no rule can tell apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use podgate_common::Protocol;

use super::{CompileError, MAX_CLASSES};
use crate::model::NamedPort;

/// Ports `first` to `last` of one protocol, both included. Port 0 is matched only by [`PortRange::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub const fn new(protocol: Protocol, first: u16, last: u16) -> Self {
        Self { protocol, first, last }
    }

    pub const fn all(protocol: Protocol) -> Self {
        Self { protocol, first: 0, last: u16::MAX }
    }
}

impl From<&NamedPort> for PortRange {
    fn from(port: &NamedPort) -> Self {
        Self::new(port.protocol, port.number, port.number)
    }
}

/// Which class each port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The ranges that the ports of a class lie in. Index 0: none; also everything that has no ports.
    pub signatures: Vec<BTreeSet<PortRange>>,
    /// For each protocol (by [`Protocol::index`]): first port of each run of one class, and the class. The first run
    /// begins at 0, each ends where the next begins.
    pub runs: [Vec<(u16, usize)>; 3],
}

impl Classes {
    pub fn class(&self, protocol: Protocol, port: u16) -> usize {
        let runs = &self.runs[protocol.index() as usize];
        let after = runs.partition_point(|&(first, _)| first <= port);
        runs[after - 1].1
    }
}

/// Ports, as inclusive ranges of each protocol.
pub(super) struct PortSet([Vec<(u16, u16)>; 3]);

impl PortSet {
    pub(super) fn contains(&self, protocol: Protocol, number: u16) -> bool {
        let ranges = &self.0[protocol.index() as usize];
        ranges.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }
}

impl Classes {
    /// The ports that lie in other ranges than before.
    pub(super) fn differences(&self, now: &Self) -> PortSet {
        PortSet(Protocol::ALL.map(|protocol| {
            let runs = |of: &'_ Self| of.runs[protocol.index() as usize].clone();
            let firsts: BTreeSet<u16> =
                runs(self).into_iter().chain(runs(now)).map(|(first, _)| first).collect();
            let ends = firsts.iter().skip(1).map(|first| first - 1).chain([u16::MAX]);
            let differs = |first: u16| {
                self.signatures[self.class(protocol, first)] != now.signatures[now.class(protocol, first)]
            };
            firsts.iter().copied().zip(ends).filter(|(first, _)| differs(*first)).collect()
        }))
    }
}

/// The classes that these ranges tell apart.
pub(super) fn compile(ranges: BTreeSet<PortRange>) -> Result<Classes, CompileError> {
    let mut signatures = vec![BTreeSet::new()];
    let mut by_signature = HashMap::from([(BTreeSet::new(), 0)]);
    let runs = Protocol::ALL.map(|protocol| {
        runs_of(protocol, &ranges)
            .into_iter()
            .map(|(first, signature)| {
                let class = *by_signature.entry(signature).or_insert_with_key(|signature| {
                    signatures.push(signature.clone());
                    signatures.len() - 1
                });
                (first, class)
            })
            .collect()
    });
    if signatures.len() > MAX_CLASSES {
        return Err(CompileError::TooManyPortClasses(signatures.len()));
    }
    Ok(Classes { signatures, runs })
}

/// Walks over the ends of all ranges of a protocol; between two ends no range begins or stops.
fn runs_of(protocol: Protocol, ranges: &BTreeSet<PortRange>) -> Vec<(u16, BTreeSet<PortRange>)> {
    let mut ends: BTreeMap<u32, (Vec<PortRange>, Vec<PortRange>)> = BTreeMap::from([(0, Default::default())]);
    for range in ranges.iter().filter(|range| range.protocol == protocol) {
        ends.entry(u32::from(range.first)).or_default().0.push(*range);
        ends.entry(u32::from(range.last) + 1).or_default().1.push(*range);
    }
    let mut open = BTreeSet::new();
    let mut runs = Vec::with_capacity(ends.len());
    for (first, (begin, stop)) in ends {
        for range in stop {
            open.remove(&range);
        }
        open.extend(begin);
        if let Ok(first) = u16::try_from(first) {
            runs.push((first, open.clone()));
        }
    }
    runs
}
