//! Port classes: ports that no rule can tell apart.

use std::collections::{BTreeSet, HashMap};

use podgate_common::Protocol;

use super::Shared;
use crate::model::{PortRange, PortSet};

/// The sets of ports that the ports of a class lie in, ascending. It is compared often, and may be large.
pub type PortSignature = Shared<Vec<Shared<PortSet>>>;

/// Which class each port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Index 0: the ports that are in no set; also everything that has no ports.
    pub signatures: Vec<PortSignature>,
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

    /// For each class one of before that some of its ports had. Who tells apart nothing else than both of these do says the
    /// same of both.
    pub(super) fn origins(&self, before: &Self) -> Vec<usize> {
        let mut origins: Vec<Option<usize>> = vec![None; self.signatures.len()];
        // It is also the class of what has no ports.
        origins[0] = Some(0);
        for protocol in Protocol::ALL {
            for &(first, class) in &self.runs[protocol.index() as usize] {
                origins[class].get_or_insert_with(|| before.class(protocol, first));
            }
        }
        origins.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// The classes that a set of ports consists of, some of them more than once. The set must be one that these classes were
    /// made from.
    pub(super) fn of<'a>(&'a self, set: &'a PortSet) -> impl Iterator<Item = usize> + 'a {
        Protocol::ALL.into_iter().flat_map(move |protocol| {
            let runs = &self.runs[protocol.index() as usize];
            set.ranges(protocol).iter().flat_map(move |&(first, last)| {
                let begin = runs.partition_point(|&(start, _)| start < first);
                runs[begin..].iter().take_while(move |&&(start, _)| start <= last).map(|&(_, class)| class)
            })
        })
    }

    /// The ports that other sets contain than before.
    pub(super) fn differences(&self, now: &Self) -> PortSet {
        let mut differing = Vec::new();
        let mut known: HashMap<(usize, usize), bool> = HashMap::new();
        for protocol in Protocol::ALL {
            let runs = |of: &'_ Self| of.runs[protocol.index() as usize].clone();
            let firsts: BTreeSet<u16> =
                runs(self).into_iter().chain(runs(now)).map(|(first, _)| first).collect();
            let ends = firsts.iter().skip(1).map(|first| first - 1).chain([u16::MAX]);
            for (first, last) in firsts.iter().copied().zip(ends) {
                let (before, after) = (self.class(protocol, first), now.class(protocol, first));
                let differs = known.entry((before, after));
                if *differs.or_insert_with(|| self.signatures[before] != now.signatures[after]) {
                    differing.push(PortRange::new(protocol, first, last));
                }
            }
        }
        differing.into_iter().collect()
    }
}

/// The classes that these sets tell apart.
///
/// Each set divides the classes that it cuts: what it takes is to look once at each run of ports that it covers.
pub(super) fn compile<'a>(sets: impl IntoIterator<Item = &'a Shared<PortSet>>) -> Classes {
    let sets: BTreeSet<&Shared<PortSet>> = sets.into_iter().collect();
    let sets: Vec<&Shared<PortSet>> = sets.into_iter().collect();
    // All ports that have been in the same sets so far, and the sets by their places. 0: in none.
    let mut runs = Protocol::ALL.map(|protocol| undivided(protocol, &sets));
    let mut sizes = vec![runs.iter().map(Vec::len).sum::<usize>()];
    let mut places: Vec<Vec<usize>> = vec![Vec::new()];
    // The part of each class that lies in the set at hand; 0: none so far.
    let mut parts = vec![0];
    for (place, set) in sets.iter().enumerate() {
        let mut divided = Vec::new();
        for protocol in Protocol::ALL {
            let runs = &mut runs[protocol.index() as usize];
            for &(first, last) in set.ranges(protocol) {
                let begin = runs.partition_point(|&(start, _)| start < first);
                for (_, class) in runs[begin..].iter_mut().take_while(|(start, _)| *start <= last) {
                    if parts[*class] == 0 {
                        parts[*class] = places.len();
                        divided.push(*class);
                        places.push(places[*class].iter().copied().chain([place]).collect());
                        sizes.push(0);
                        parts.push(0);
                    }
                    let part = parts[*class];
                    sizes[*class] -= 1;
                    sizes[part] += 1;
                    *class = part;
                }
            }
        }
        for class in divided {
            parts[class] = 0;
            // What has no ports left says nothing any more.
            if sizes[class] == 0 {
                places[class] = Vec::new();
            }
        }
    }
    numbered(runs, &places, &sets)
}

/// The ports of a protocol, between two ends of which no range begins or stops.
fn undivided(protocol: Protocol, sets: &[&Shared<PortSet>]) -> Vec<(u16, usize)> {
    let ends = sets
        .iter()
        .flat_map(|set| set.ranges(protocol))
        .flat_map(|&(first, last)| [Some(first), last.checked_add(1)]);
    let mut firsts: Vec<u16> = ends.flatten().chain([0]).collect();
    firsts.sort_unstable();
    firsts.dedup();
    firsts.into_iter().map(|first| (first, 0)).collect()
}

/// The classes in the order of their ports, and neighbours of the same class as one run.
fn numbered(runs: [Vec<(u16, usize)>; 3], places: &[Vec<usize>], sets: &[&Shared<PortSet>]) -> Classes {
    let mut signatures = vec![Shared::new(Vec::new())];
    let mut numbers: HashMap<usize, usize> = HashMap::from([(0, 0)]);
    let runs = runs.map(|mut runs| {
        for (_, class) in &mut runs {
            *class = *numbers.entry(*class).or_insert_with_key(|class| {
                let signature = places[*class].iter().map(|place| sets[*place].clone());
                signatures.push(Shared::new(signature.collect()));
                signatures.len() - 1
            });
        }
        runs.dedup_by_key(|(_, class)| *class);
        runs
    });
    Classes { signatures, runs }
}
