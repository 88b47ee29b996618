//! How much the network sets of a cluster may list. Their networks stand in tables that all pods of a node
//! share, and a rule of the cluster's matches the sets of every namespace: so those of a namespace have a
//! limit, and those of all namespaces together. A set that does not fit matches nothing.
//!
//! In: the sets of one store. Out: those that do not fit, each with its limit. Smaller ones come first, and
//! so do namespaces that list less.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use ipnet::IpNet;

use super::{MAX_GROUPS, MAX_NETWORKS};
use crate::model::{Labels, Name, NetworkSet, NetworkSetName};

/// Groups of addresses that the network sets of all namespaces distinguish.
pub const MAX_GROUPS_OF_ALL_SETS: usize = 4 * MAX_GROUPS;

/// What there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkSetLimit {
    /// The networks of one namespace, or of the global sets.
    Networks,
    /// The groups of addresses of one namespace.
    Groups,
    /// The networks or the groups of all namespaces.
    OfAllNamespaces,
}

type Sets<'a> = Vec<(&'a NetworkSetName, &'a Arc<NetworkSet>)>;

/// The sets of one store that do not fit.
pub fn network_sets_over_limit<'a>(
    sets: impl IntoIterator<Item = (&'a NetworkSetName, &'a Arc<NetworkSet>)>,
) -> BTreeMap<NetworkSetName, NetworkSetLimit> {
    let mut by_namespace: BTreeMap<Option<&Name>, Sets<'_>> = BTreeMap::new();
    for (name, set) in sets {
        by_namespace.entry(name.0.as_ref()).or_default().push((name, set));
    }
    let mut over = BTreeMap::new();
    let mut fitting: Vec<Sets<'_>> = Vec::new();
    for (namespace, mut sets) in by_namespace {
        sets.sort_by_key(|(name, set)| (set.nets.len(), *name));
        let fits = |sets: &Sets<'_>| networks(sets) <= MAX_NETWORKS;
        drop_over(&mut sets, fits, NetworkSetLimit::Networks, &mut over);
        if namespace.is_some() {
            let fits = |sets: &Sets<'_>| groups(sets, MAX_GROUPS) <= MAX_GROUPS;
            drop_over(&mut sets, fits, NetworkSetLimit::Groups, &mut over);
            fitting.push(sets);
        }
    }
    fitting.sort_by_key(|sets| networks(sets));
    let fits = |namespaces: &Vec<Sets<'_>>| {
        let all: Sets<'_> = namespaces.iter().flatten().copied().collect();
        networks(&all) <= MAX_NETWORKS && groups(&all, MAX_GROUPS_OF_ALL_SETS) <= MAX_GROUPS_OF_ALL_SETS
    };
    for (name, _) in split_off_over(&mut fitting, fits).into_iter().flatten() {
        over.insert(name.clone(), NetworkSetLimit::OfAllNamespaces);
    }
    over
}

fn drop_over(
    sets: &mut Sets<'_>,
    fits: impl Fn(&Sets<'_>) -> bool,
    limit: NetworkSetLimit,
    over: &mut BTreeMap<NetworkSetName, NetworkSetLimit>,
) {
    over.extend(split_off_over(sets, fits).into_iter().map(|(name, _)| (name.clone(), limit)));
}

/// Takes what does not fit from the end of a list. More never fit where fewer do not.
fn split_off_over<T: Clone>(list: &mut Vec<T>, fits: impl Fn(&Vec<T>) -> bool) -> Vec<T> {
    if fits(list) {
        return Vec::new();
    }
    let (mut fitting, mut over) = (0, list.len());
    while over - fitting > 1 {
        let half = usize::midpoint(fitting, over);
        if fits(&list[..half].to_vec()) { fitting = half } else { over = half }
    }
    list.split_off(fitting)
}

fn networks(sets: &Sets<'_>) -> usize {
    sets.iter().map(|(_, set)| set.nets.len()).sum()
}

/// How many groups of addresses selectors can distinguish at most; more than `enough` are not counted. Sets
/// of one namespace with the same labels are one. Each counts, also where its networks are those of others:
/// rules list it.
fn groups(sets: &Sets<'_>, enough: usize) -> usize {
    let mut by_labels: BTreeMap<(Option<&Name>, &Labels), usize> = BTreeMap::new();
    let mut nets: Vec<(IpNet, usize)> = Vec::new();
    for (_, set) in sets {
        let next = by_labels.len();
        let number = *by_labels.entry((set.namespace.as_ref(), &set.labels)).or_insert(next);
        nets.extend(set.nets.iter().map(|net| (*net, number)));
    }
    if by_labels.len() > enough || nets.len() <= enough {
        return by_labels.len();
    }
    // What contains others comes before these.
    nets.sort_unstable();
    nets.dedup();
    let mut around: Vec<OpenNetwork> = Vec::new();
    let mut open = vec![0_usize; by_labels.len()];
    let mut lists: HashMap<(usize, usize), usize> = HashMap::new();
    let mut found: HashSet<usize> = HashSet::new();
    for same in nets.chunk_by(|(one, _), (other, _)| one == other) {
        let net = same[0].0;
        while let Some(inner) = around.pop_if(|outer| !outer.net.contains(&net)) {
            open[inner.number] -= 1;
        }
        for &(net, number) in same {
            let outer = around.last().map_or(NO_SET, |outer| outer.list);
            let next = NO_SET + 1 + lists.len();
            let list = if open[number] > 0 { outer } else { *lists.entry((outer, number)).or_insert(next) };
            open[number] += 1;
            around.push(OpenNetwork { net, number, list });
        }
        found.extend(around.last().map(|last| last.list));
        if found.len() > enough {
            break;
        }
    }
    by_labels.len().max(found.len())
}

/// The list of no set.
const NO_SET: usize = 0;

/// A network around the one at hand: its set, and which sets all up to it are of.
struct OpenNetwork {
    net: IpNet,
    number: usize,
    list: usize,
}

impl fmt::Display for NetworkSetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Networks => write!(f, "{MAX_NETWORKS} networks"),
            Self::Groups => write!(f, "{MAX_GROUPS} groups of addresses"),
            Self::OfAllNamespaces => {
                write!(f, "{MAX_NETWORKS} networks or {MAX_GROUPS_OF_ALL_SETS} groups of addresses")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// Networks of one address each, and one label.
    fn set(namespace: Option<&str>, label: usize, nets: std::ops::Range<u32>) -> Arc<NetworkSet> {
        let net = |at: u32| IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + 2 * at)));
        Arc::new(NetworkSet {
            namespace: namespace.map(Name::from),
            labels: Arc::new([("a".into(), label.to_string().into())].into()),
            nets: nets.map(net).collect(),
        })
    }

    fn over(sets: &[(NetworkSetName, Arc<NetworkSet>)]) -> Vec<(String, NetworkSetLimit)> {
        let over = network_sets_over_limit(sets.iter().map(|(name, set)| (name, set)));
        over.into_iter().map(|((_, name), limit)| (name.to_string(), limit)).collect()
    }

    #[test]
    fn a_large_set_takes_no_room_from_small_ones() {
        let all = u32::try_from(MAX_NETWORKS).unwrap();
        let sets = [("large", 0..all), ("small", 0..9), ("smaller", 0..1)];
        let sets = sets.map(|(name, nets)| ((None, name.into()), set(None, 0, nets)));
        assert_eq!(over(&sets), [("large".to_owned(), NetworkSetLimit::Networks)]);
    }

    #[test]
    fn sets_of_a_namespace_distinguish_no_more_groups_than_its_policies() {
        let most = u32::try_from(MAX_GROUPS).unwrap();
        let named = |at: u32, set| ((Some("x".into()), format!("{at:04}").into()), set);
        // Different labels, and the same networks.
        let sets = |number: u32, label: fn(u32) -> usize, nets: fn(u32) -> std::ops::Range<u32>| {
            let sets = (0..number).map(|at| named(at, set(Some("x"), label(at), nets(at))));
            over(&sets.collect::<Vec<_>>())
        };
        let own_label = |at| at as usize;
        assert_eq!(sets(most, own_label, |_| 0..1), []);
        assert_eq!(sets(most + 1, own_label, |_| 0..1), [("0512".to_owned(), NetworkSetLimit::Groups)]);
        assert_eq!(
            sets(most + 1, own_label, |at| at..at + 1),
            [("0512".to_owned(), NetworkSetLimit::Groups)]
        );
        // The same labels.
        assert_eq!(sets(2 * most, |_| 7, |at| at..at + 2), []);
        // Ten sets that overlap distinguish a thousand groups.
        let overlapping = (0..10).map(|bit: u32| {
            let nets = (0..1_024_u32).filter(|at| at >> bit & 1 == 1);
            let nets = nets.flat_map(|at| set(None, 0, at..at + 1).nets.clone()).collect();
            named(bit, Arc::new(NetworkSet { nets, ..(*set(Some("x"), bit as usize, 0..0)).clone() }))
        });
        let found = over(&overlapping.collect::<Vec<_>>());
        assert_eq!(found, [("0009".to_owned(), NetworkSetLimit::Groups)]);
    }

    #[test]
    fn a_namespace_with_many_networks_takes_no_room_from_others() {
        let of = |namespace: &str, nets| {
            ((Some(namespace.into()), namespace.into()), set(Some(namespace), 0, nets))
        };
        let all = u32::try_from(MAX_NETWORKS).unwrap();
        let sets = [of("a", 0..all - 10), of("b", 0..9), of("c", 0..2)];
        assert_eq!(over(&sets), [("a".to_owned(), NetworkSetLimit::OfAllNamespaces)]);
        // Each namespace by itself has few groups, all together too many.
        let many = (0..6_u32).flat_map(|namespace| {
            let namespace = format!("n{namespace}");
            (0..500_u32).map(move |at| {
                let name = (Some(Name::from(&*namespace)), Name::from(format!("{namespace}-{at}")));
                (name, set(Some(&namespace), at as usize, at..at + 1))
            })
        });
        let found = over(&many.collect::<Vec<_>>());
        assert_eq!(found.len(), 1_000, "two namespaces");
        assert!(found.iter().all(|(_, limit)| *limit == NetworkSetLimit::OfAllNamespaces));
    }
}
