//! Who reaches whom, by groups of pods instead of pods.
//!
//! Pods that the tables treat alike have one row: of each group a few pods stand for all. Groups whose pods
//! are treated alike share a row, too, so that a cluster of many pods takes the time of its different rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Identity, PairVerdict, PodTables, PortColumns, ReachableClasses};
use crate::{
    compiler::{self, CompiledTables},
    model::{Cluster, IpFamily, NamedPort, Pod},
    port_spec::PortSpec,
};

/// Verdicts of groups on groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMatrix {
    /// Of each group, its row and column among the verdicts.
    pub classes: Vec<usize>,
    /// What holds at each port.
    pub ports: BTreeMap<PortSpec, PortVerdicts>,
}

/// Verdicts at one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortVerdicts {
    /// By class of the source, what holds for each class of the destination, of pods of different groups.
    pub classes: Vec<Vec<GroupVerdict>>,
    /// Of each group, what holds between its own pods; a single one reaches itself.
    pub own: Vec<GroupVerdict>,
}

/// What holds for the pods of two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupVerdict {
    /// All connect.
    Allowed,
    /// None does.
    Denied,
    /// Some do.
    Mixed,
    /// No destination has a port of this name.
    NoPort,
}

impl GroupVerdict {
    /// The letter that stands for it.
    pub const fn character(self) -> char {
        match self {
            Self::Allowed => '.',
            Self::Denied => 'X',
            Self::Mixed => '~',
            Self::NoPort => '-',
        }
    }

    fn and(known: Option<Self>, pair: PairVerdict) -> Option<Self> {
        let pair = match pair {
            PairVerdict::Allowed => Self::Allowed,
            PairVerdict::Denied => Self::Denied,
            PairVerdict::NoPort => Self::NoPort,
        };
        Some(match known {
            None | Some(Self::NoPort) => pair,
            Some(known) if known == pair || pair == Self::NoPort => known,
            Some(_) => Self::Mixed,
        })
    }
}

/// What decides about a pod: the rule sets of both directions, the identities of its addresses, its ports.
type Treatment<'a> = ([usize; 2], Vec<(IpFamily, usize)>, &'a [NamedPort]);

/// For one port, by treatment of the source, what holds for each treatment of the destination.
pub(super) type TreatmentVerdicts = Vec<Vec<PairVerdict>>;

/// Computes the matrix of groups. Pods on the host network and those without an address count for nothing.
/// `None`: it would have more than `most` classes, or as many treatments.
pub fn group_matrix(
    cluster: &Cluster,
    ports: &BTreeSet<PortSpec>,
    groups: &[Vec<&Pod>],
    most: usize,
) -> Option<GroupMatrix> {
    let is_meant = |pod: &&Pod| !pod.host_network && !pod.addresses.is_empty();
    let tables = compiler::compile(cluster, None, groups.iter().flatten().copied().filter(is_meant), []);
    let mut treatments = Treatments::default();
    // Of each group its treatments, and whether several pods have one.
    let groups: Vec<BTreeMap<usize, bool>> = groups
        .iter()
        .map(|group| {
            let mut counts = BTreeMap::new();
            for pod in group.iter().copied().filter(is_meant) {
                let treatment = treatments.number(PodTables::new(pod, &tables));
                counts.entry(treatment).and_modify(|is_several| *is_several = true).or_insert(false);
            }
            counts
        })
        .collect();
    let mut classes: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    let class_of = groups.iter().map(|group| {
        let next = classes.len();
        *classes.entry(group.keys().copied().collect()).or_insert(next)
    });
    let class_of: Vec<usize> = class_of.collect();
    if classes.len() > most || treatments.numbers.len() > most {
        return None;
    }
    let mut members = vec![&[][..]; classes.len()];
    for (treatments, class) in &classes {
        members[*class] = treatments;
    }
    let verdicts = treatments.verdicts(&tables, ports);
    let port = |verdicts: &TreatmentVerdicts| {
        let cell = |from: &[usize], to: &[usize]| {
            let pairs = from.iter().flat_map(|from| to.iter().map(|to| verdicts[*from][*to]));
            pairs.fold(None, GroupVerdict::and).unwrap_or(GroupVerdict::Denied)
        };
        let row = |from: &&[usize]| members.iter().map(|to| cell(from, to)).collect();
        let own = |group: &BTreeMap<usize, bool>| {
            let pairs = group.iter().flat_map(|(from, is_several)| {
                let others = group.keys().filter(move |to| *to != from || *is_several);
                others.map(|to| verdicts[*from][*to])
            });
            pairs.fold(None, GroupVerdict::and).unwrap_or(GroupVerdict::Allowed)
        };
        PortVerdicts { classes: members.iter().map(row).collect(), own: groups.iter().map(own).collect() }
    };
    let ports = ports.iter().cloned().zip(verdicts.iter().map(port)).collect();
    Some(GroupMatrix { classes: class_of, ports })
}

/// Different treatments, each with pods that stand for all that have it.
#[derive(Default)]
struct Treatments<'a> {
    numbers: HashMap<Treatment<'a>, usize>,
    pods: Vec<PodTables<'a>>,
    /// By treatment, places of one or two pods.
    representatives: Vec<Vec<usize>>,
}

impl<'a> Treatments<'a> {
    fn number(&mut self, pod: PodTables<'a>) -> usize {
        let next = self.numbers.len();
        let number = *self.numbers.entry(treatment(&pod)).or_insert(next);
        if number == next {
            self.representatives.push(Vec::new());
        }
        // Two, so that there is a pair of pods.
        let representatives = &mut self.representatives[number];
        if representatives.len() < 2 {
            representatives.push(self.pods.len());
            self.pods.push(pod);
        }
        number
    }

    /// One for each port.
    fn verdicts(&self, tables: &CompiledTables, ports: &BTreeSet<PortSpec>) -> Vec<TreatmentVerdicts> {
        let Self { numbers: _, pods, representatives } = self;
        verdicts(tables, pods, representatives, ports)
    }
}

/// The number of each pod's treatment.
pub(super) fn treatment_numbers(pods: &[&Pod], tables: &CompiledTables) -> Vec<usize> {
    let mut treatments = Treatments::default();
    pods.iter().map(|pod| treatments.number(PodTables::new(pod, tables))).collect()
}

/// For each port, what holds from the pods of a row to those of another, and between two pods of one row; of
/// a row with one pod, from that to itself. The pods of a row are treated alike.
pub(super) fn row_verdicts(
    tables: &CompiledTables,
    rows: &[Vec<&Pod>],
    ports: &BTreeSet<PortSpec>,
) -> Vec<TreatmentVerdicts> {
    let mut pods = Vec::new();
    let representatives = rows.iter().map(|row| {
        let first = pods.len();
        pods.extend(row.iter().take(2).map(|pod| PodTables::new(pod, tables)));
        (first..pods.len()).collect()
    });
    let representatives: Vec<Vec<usize>> = representatives.collect();
    verdicts(tables, &pods, &representatives, ports)
}

/// `representatives`: of each row, the places of one or two pods.
fn verdicts(
    tables: &CompiledTables,
    pods: &[PodTables<'_>],
    representatives: &[Vec<usize>],
    ports: &BTreeSet<PortSpec>,
) -> Vec<TreatmentVerdicts> {
    let columns: Vec<PortColumns> = ports.iter().map(|port| PortColumns::new(port, pods, tables)).collect();
    let mut verdicts = vec![Vec::with_capacity(representatives.len()); ports.len()];
    let mut reach = ReachableClasses::new(tables, pods);
    let families: BTreeSet<Option<IpFamily>> = ports.iter().map(PortSpec::family).collect();
    for sources in representatives {
        for family in &families {
            reach.from(&pods[sources[0]], *family);
            let of_family = ports.iter().zip(&columns).zip(&mut verdicts);
            for ((_, columns), rows) in of_family.filter(|((port, _), _)| port.family() == *family) {
                let row = representatives.iter().map(|destinations| {
                    let other = destinations.iter().find(|place| **place != sources[0]);
                    columns.verdict(*other.unwrap_or(&sources[0]), &reach)
                });
                rows.push(row.collect());
            }
        }
    }
    verdicts
}

fn treatment<'a>(PodTables { rules, addresses, pod, name: _ }: &PodTables<'a>) -> Treatment<'a> {
    let mut identities: Vec<(IpFamily, usize)> =
        addresses.iter().map(|Identity { family, identity }| (*family, *identity)).collect();
    identities.sort_unstable();
    ([rules.ingress, rules.egress], identities, &pod.ports)
}

#[cfg(test)]
mod tests {
    use podgate_common::Protocol;

    use super::*;
    use crate::{
        fixtures::{block, cluster, from, has, named, policy, rule},
        matrix::{Matrix, matrix},
        model::{Name, ObjectName, Peer, Peers, PortRule, Ports, Rule},
    };

    fn ports() -> BTreeSet<PortSpec> {
        ["TCP/80", "UDP/53", "TCP/http", "ICMP/8"].into_iter().map(|port| port.parse().unwrap()).collect()
    }

    /// What the matrix of pods says of the pods of two groups.
    fn from_pods(matrix: &Matrix, port: &PortSpec, from: &[&Pod], to: &[&Pod]) -> Option<GroupVerdict> {
        let mut verdict = None;
        for source in from {
            let row = &matrix.ports[port][&Name::from(source.name.to_string())];
            for destination in to.iter().filter(|it| it.name != source.name) {
                let place = matrix.pods.iter().position(|name| **name == *destination.name.to_string());
                verdict = GroupVerdict::and(verdict, row.0[place.unwrap()]);
            }
        }
        verdict
    }

    /// Every way to make three groups of the pods.
    fn groupings<'a>(pods: &[&'a Pod]) -> Vec<Vec<Vec<&'a Pod>>> {
        let ways = 3_usize.pow(u32::try_from(pods.len()).unwrap());
        let grouping = |mut way: usize| {
            let mut groups = vec![Vec::new(); 3];
            for pod in pods {
                groups[way % 3].push(*pod);
                way /= 3;
            }
            groups
        };
        (0..ways).map(grouping).collect()
    }

    #[test]
    fn groups_say_what_their_pods_say() {
        let listed = |name: &str| {
            let ports = Ports::Listed(vec![PortRule::Named(Some(Protocol::Tcp), name.into())]);
            rule(Peers::Any, ports)
        };
        let backends = from(Peer::Pods { namespaces: None, pods: has("role", "backend") });
        let closed: Vec<Vec<Rule>> =
            vec![vec![], vec![from(block("10.0.0.0/31", &[]))], vec![backends], vec![listed("http")]];
        let mut seen = BTreeSet::new();
        for rules in closed {
            for is_egress in [false, true] {
                let policy = match is_egress {
                    true => policy("p", None, Some(rules.clone())),
                    false => policy("p", Some(rules.clone()), None),
                };
                let mut cluster = cluster(vec![policy]);
                let mut named_port = (*cluster.pods[&ObjectName::new("x", "a")]).clone();
                named_port.ports = [named("http", 80)].into();
                cluster.pods.insert(named_port.name.clone(), named_port.into());
                let pods: Vec<&Pod> = cluster
                    .pods
                    .values()
                    .map(|pod| &**pod)
                    .filter(|pod| !pod.host_network && !pod.addresses.is_empty())
                    .collect();
                let by_pod = matrix(&cluster, &ports());
                for groups in groupings(&pods) {
                    let by_group = group_matrix(&cluster, &ports(), &groups, 99).expect("few classes");
                    for port in ports() {
                        let PortVerdicts { classes, own } = &by_group.ports[&port];
                        for (at, from) in groups.iter().enumerate() {
                            for (other, to) in groups.iter().enumerate() {
                                let expected = from_pods(&by_pod, &port, from, to);
                                let [row, column] = [at, other].map(|group| by_group.classes[group]);
                                let found = if at == other { own[at] } else { classes[row][column] };
                                if let Some(expected) = expected {
                                    assert_eq!(found, expected, "{port}: {from:?} -> {to:?}");
                                    seen.insert(found.character());
                                }
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(seen, BTreeSet::from(['.', 'X', '~', '-']), "each verdict is there");
    }

    #[test]
    fn too_many_classes_are_no_matrix() {
        let cluster = cluster(vec![]);
        let groups: Vec<Vec<&Pod>> = cluster.pods.values().map(|pod| vec![&**pod]).collect();
        assert!(group_matrix(&cluster, &ports(), &groups, 0).is_none());
        assert!(group_matrix(&cluster, &ports(), &groups, 99).is_some());
    }
}
