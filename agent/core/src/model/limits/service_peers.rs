//! How many endpoints the Services may have that the rules of Calico's policies name: those of one namespace
//! together, and the cluster's together. Their addresses stand in tables that all pods of a node share, and
//! who writes the slices of a Service need not be who writes the rule.
//!
//! In: the Services that rules name, with their endpoints. Out: those that do not fit. Smaller ones come
//! first: a large one never takes the room of a small one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{Lists, MAX_GROUPS, MAX_NETWORKS, MAX_RANGES};
use crate::model::{EndpointSlice, ObjectName, PortSet, ServiceEndpoints};

/// The endpoints of Services that rules name; `None`: more than any namespace has room for.
pub type NamedServices = BTreeMap<ObjectName, Option<ServiceEndpoints>>;

/// The endpoints of these, by all slices of a cluster. One without slices is left out.
pub fn named_services<'a>(
    services: &BTreeSet<ObjectName>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> NamedServices {
    let mut by_service: BTreeMap<&ObjectName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices.into_iter().filter(|slice| services.contains(&slice.service)) {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    let endpoints = |slices: Vec<&EndpointSlice>| {
        let listed: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        // An endpoint may stand in a slice for each of a few ports.
        (listed <= 4 * MAX_NETWORKS).then(|| ServiceEndpoints::of(slices))
    };
    by_service.into_iter().map(|(service, slices)| (service.clone(), endpoints(slices))).collect()
}

/// Those for whose endpoints the rules of one namespace, or of the cluster, have no room.
pub fn services_over_room<'a>(
    named: &BTreeSet<&'a ObjectName>,
    services: &NamedServices,
) -> BTreeSet<&'a ObjectName> {
    let known = named.iter().filter_map(|name| Some((*name, services.get(*name)?.as_ref())));
    let mut known: Vec<(usize, &ObjectName, Option<&ServiceEndpoints>)> =
        known.map(|(name, of)| (of.map_or(usize::MAX, entries), name, of)).collect();
    known.sort_by_key(|(entries, name, _)| (*entries, *name));
    let mut room = ServiceRoom::default();
    let over = known.into_iter().filter(|(_, _, endpoints)| !endpoints.is_some_and(|of| room.take(of)));
    over.map(|(_, name, _)| name).collect()
}

/// Lists of addresses that rules can tell apart: of all endpoints, and of those at the same ports.
fn lists(ServiceEndpoints { addresses, by_ports }: &ServiceEndpoints) -> BTreeSet<&BTreeSet<IpAddr>> {
    by_ports.values().chain([addresses]).collect()
}

fn entries(endpoints: &ServiceEndpoints) -> usize {
    lists(endpoints).into_iter().map(BTreeSet::len).sum()
}

/// What is taken of the room.
#[derive(Default)]
struct ServiceRoom<'a> {
    entries: usize,
    ports: Lists<&'a PortSet>,
    /// Which group each address is in; all others are in group 0.
    groups: HashMap<IpAddr, usize>,
    /// How many addresses are in each group.
    sizes: HashMap<usize, usize>,
    made: usize,
}

impl<'a> ServiceRoom<'a> {
    /// Whether there is room. If there is none, nothing is taken.
    fn take(&mut self, endpoints: &'a ServiceEndpoints) -> bool {
        let entries = entries(endpoints);
        let mut ports = self.ports.clone();
        let fits = endpoints.by_ports.keys().all(|at| {
            let list = ports.with(at, at.len(), MAX_RANGES);
            list.map(|list| ports.add(list)).is_ok()
        });
        if !fits || self.entries + entries > MAX_NETWORKS {
            return false;
        }
        let mut moved = Vec::new();
        for list in lists(endpoints) {
            self.divide(list, &mut moved);
        }
        if self.sizes.len() >= MAX_GROUPS {
            for (address, before) in moved.into_iter().rev() {
                self.put(address, before);
            }
            return false;
        }
        self.entries += entries;
        self.ports = ports;
        true
    }

    /// `moved`: the addresses that are in another group now, with that of before.
    fn divide(&mut self, list: &BTreeSet<IpAddr>, moved: &mut Vec<(IpAddr, usize)>) {
        let mut parts: HashMap<usize, usize> = HashMap::new();
        for address in list {
            let before = self.groups.get(address).copied().unwrap_or(0);
            let made = &mut self.made;
            let part = *parts.entry(before).or_insert_with(|| {
                *made += 1;
                *made
            });
            moved.push((*address, before));
            self.put(*address, part);
        }
    }

    fn put(&mut self, address: IpAddr, group: usize) {
        let before = match group {
            0 => self.groups.remove(&address),
            _ => self.groups.insert(address, group),
        };
        if let Some(before) = before
            && let Some(size) = self.sizes.get_mut(&before)
        {
            *size -= 1;
            if *size == 0 {
                self.sizes.remove(&before);
            }
        }
        if group != 0 {
            *self.sizes.entry(group).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use podgate_common::Protocol;

    use super::*;
    use crate::model::{Name, Proxy, SliceEndpoint, SlicePort};

    /// With these addresses, at each of these ports in a slice of its own.
    fn slices(name: &str, addresses: std::ops::Range<u32>, ports: u16) -> Vec<EndpointSlice> {
        let endpoint = |at: u32| SliceEndpoint {
            address: Ipv4Addr::from(0x0a00_0000 + at).into(),
            node: None,
            ready: true,
            serving: true,
            terminating: false,
            hints: None,
        };
        let slice = |port: u16| EndpointSlice {
            name: ObjectName::new("x", format!("{name}-{port}")),
            service: ObjectName::new("x", name),
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort { name: Name::from(""), protocol: Protocol::Tcp, number: Some(port) }],
            endpoints: addresses.clone().map(endpoint).collect(),
        };
        (1..=ports).map(slice).collect()
    }

    fn over(slices: &[EndpointSlice]) -> Vec<String> {
        let mut named: BTreeSet<ObjectName> = slices.iter().map(|slice| slice.service.clone()).collect();
        named.insert(ObjectName::new("x", "gone"));
        let services = named_services(&named, slices);
        let over = services_over_room(&named.iter().collect(), &services);
        over.into_iter().map(|name| name.name.to_string()).collect()
    }

    #[test]
    fn a_large_service_takes_no_room_from_small_ones() {
        let most = u32::try_from(MAX_NETWORKS).unwrap();
        assert_eq!(over(&slices("fits", 0..most, 1)), [""; 0]);
        for large in [most + 1, 100_000] {
            let mut all = slices("a-large", 0..large, 1);
            all.extend(slices("b", 0..3, 2));
            all.extend(slices("c", 7..1_007, 1));
            assert_eq!(over(&all), ["a-large"]);
        }
    }

    #[test]
    fn services_together_have_no_more_room_than_one() {
        let of = |at: u32| slices(&format!("s{at:03}"), 1_000 * at..1_000 * (at + 1), 1);
        assert_eq!(over(&(0..16).flat_map(of).collect::<Vec<_>>()), [""; 0]);
        assert_eq!(over(&(0..18).flat_map(of).collect::<Vec<_>>()), ["s016", "s017"]);
    }

    #[test]
    fn groups_are_those_that_the_addresses_make() {
        // Each by itself.
        let of = |at: u32| slices(&format!("s{at:03}"), 10 * at..10 * (at + 1), 1);
        assert_eq!(over(&(0..511).flat_map(of).collect::<Vec<_>>()), [""; 0]);
        assert_eq!(over(&(0..512).flat_map(of).collect::<Vec<_>>()), ["s511"]);
        // Ten that overlap in every way; what does not fit gives its room back.
        let mut all = Vec::new();
        for bit in 0..10_u32 {
            let name = format!("b{bit}");
            let ones = (0..1_024_u32).filter(|at| at >> bit & 1 == 1);
            let mut slice = slices(&name, 0..0, 1).remove(0);
            slice.endpoints = ones.flat_map(|at| slices("", at..at + 1, 1).remove(0).endpoints).collect();
            all.push(slice);
        }
        all.extend(slices("large", 2_000..3_000, 1));
        assert_eq!(over(&all), ["b9", "large"]);
        all.remove(8);
        assert_eq!(over(&all), ["large"]);
    }

    #[test]
    fn slices_with_many_different_ports_have_a_limit_too() {
        assert_eq!(over(&slices("ports", 0..20, 500)), [""; 0]);
        let mut all = slices("ports", 0..20, 600);
        all.extend(slices("after", 0..1_000, 1));
        assert_eq!(over(&all), ["ports"]);
    }
}
