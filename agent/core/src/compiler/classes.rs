//! Port classes: ports that no rule can distinguish.

use std::collections::{BTreeSet, HashMap};

use podgate_common::RuleProtocol;

use super::{Shared, TableLimits};
use crate::model::{PortRange, PortSet};

/// The sets of ports that the ports of a class lie in, ascending. It is compared often, and may be large.
pub type PortSignature = Shared<Vec<Shared<PortSet>>>;

/// For each protocol the runs of ports of one class.
type Runs = [Vec<(u16, usize)>; RuleProtocol::ALL.len()];

/// Which class each port has. Types of ICMP and numbers of protocols stand among them as ports do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Index 0: what is in no set.
    pub signatures: Vec<PortSignature>,
    /// For each protocol (by [`RuleProtocol::index`]): first port of each run of one class, and the class.
    /// The first run begins at 0, each ends where the next begins.
    pub runs: Runs,
}

impl Classes {
    /// All ports are of one class.
    pub fn undivided() -> Self {
        Self { signatures: vec![Shared::new(Vec::new())], runs: RuleProtocol::ALL.map(|_| vec![(0, 0)]) }
    }

    /// The class of a port.
    pub fn class(&self, protocol: impl Into<RuleProtocol>, port: u16) -> usize {
        let runs = &self.runs[protocol.into().index() as usize];
        let after = runs.partition_point(|&(first, _)| first <= port);
        runs[after - 1].1
    }

    /// For each class one of before that some of its ports had. Who tells apart nothing else than both of
    /// these do says the same of both.
    pub(super) fn origins(&self, before: &Self) -> Vec<usize> {
        let mut origins: Vec<Option<usize>> = vec![None; self.signatures.len()];
        origins[0] = Some(0);
        for protocol in RuleProtocol::ALL {
            for &(first, class) in &self.runs[protocol.index() as usize] {
                origins[class].get_or_insert_with(|| before.class(protocol, first));
            }
        }
        origins.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// The classes that a set of ports consists of, some of them more than once. The set must be one that
    /// these classes were made from.
    pub(super) fn of<'a>(&'a self, set: &'a PortSet) -> impl Iterator<Item = usize> + 'a {
        RuleProtocol::ALL.into_iter().flat_map(move |protocol| {
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
        for protocol in RuleProtocol::ALL {
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

/// The classes that these sets distinguish; `None`: more than the limits allow.
///
/// Each set divides the classes that it cuts: what it takes is to look at each run of ports that it covers.
pub(super) fn compile<'a>(
    sets: impl IntoIterator<Item = &'a Shared<PortSet>>,
    limits: &TableLimits,
) -> Option<Classes> {
    let sets: BTreeSet<&Shared<PortSet>> = sets.into_iter().collect();
    let sets: Vec<&Shared<PortSet>> = sets.into_iter().collect();
    let mut runs = RuleProtocol::ALL.map(|protocol| undivided(protocol, &sets));
    let mut division = Division::of(runs.iter().map(Vec::len).sum());
    let mut visits = 0;
    for (place, set) in sets.iter().enumerate() {
        let of_set = |runs: &mut Runs, visit: &mut dyn FnMut(&mut usize)| {
            for protocol in RuleProtocol::ALL {
                let runs = &mut runs[protocol.index() as usize];
                for &(first, last) in set.ranges(protocol) {
                    let begin = runs.partition_point(|&(start, _)| start < first);
                    let covered = runs[begin..].iter_mut().take_while(|(start, _)| *start <= last);
                    covered.for_each(|(_, class)| visit(class));
                }
            }
        };
        of_set(&mut runs, &mut |class| {
            visits += 1;
            division.cover(*class);
        });
        let has_divided = division.divide(place);
        if visits > MOST_VISITS || !division.is_within(limits) {
            return None;
        }
        if has_divided {
            of_set(&mut runs, &mut |class| *class = division.parts[*class]);
        }
        division.end();
    }
    Some(numbered(runs, &division.places, &sets))
}

/// Runs of ports that are looked at: some 100 ms. One namespace can cause a quarter of it.
const MOST_VISITS: usize = 1 << 25;

/// Classes as far as the sets until now divide them.
struct Division {
    /// How many runs each class has. Class 0: those in no set.
    sizes: Vec<usize>,
    /// The sets that it lies in, by their places.
    places: Vec<Vec<usize>>,
    memberships: usize,
    /// Of each class, how many runs lie in the set at hand, and which class those become.
    covered: Vec<usize>,
    parts: Vec<usize>,
    /// The classes that have any.
    touched: Vec<usize>,
}

impl Division {
    fn of(runs: usize) -> Self {
        let (places, touched) = (vec![Vec::new()], Vec::new());
        Self { sizes: vec![runs], places, memberships: 0, covered: vec![0], parts: vec![0], touched }
    }

    /// A run of this class lies in the set at hand.
    fn cover(&mut self, class: usize) {
        if self.covered[class] == 0 {
            self.touched.push(class);
        }
        self.covered[class] += 1;
    }

    /// Makes classes of the parts that lie in the set at hand. Out: whether any run has another class now.
    fn divide(&mut self, place: usize) -> bool {
        let mut has_divided = false;
        for &class in &self.touched {
            let covered = std::mem::take(&mut self.covered[class]);
            self.memberships += 1;
            if class != 0 && covered == self.sizes[class] {
                self.places[class].push(place);
                continue;
            }
            has_divided = true;
            self.memberships += self.places[class].len();
            self.parts[class] = self.places.len();
            self.parts.push(self.places.len());
            self.places.push(self.places[class].iter().copied().chain([place]).collect());
            self.covered.push(0);
            self.sizes.push(covered);
            self.sizes[class] -= covered;
        }
        has_divided
    }

    /// Ends the set at hand.
    fn end(&mut self) {
        for class in self.touched.drain(..) {
            self.parts[class] = class;
        }
    }

    const fn is_within(&self, limits: &TableLimits) -> bool {
        self.places.len() <= limits.classes && self.memberships <= limits.memberships
    }
}

/// The ports of a protocol, between two ends of which no range begins or stops.
fn undivided(protocol: RuleProtocol, sets: &[&Shared<PortSet>]) -> Vec<(u16, usize)> {
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
fn numbered(runs: Runs, places: &[Vec<usize>], sets: &[&Shared<PortSet>]) -> Classes {
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
