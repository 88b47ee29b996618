//! Addresses and ports of services, and the verdicts on what is behind them.
//!
//! A service is looked at anew when it or one of its slices changed, or when one of its backends looks different from this
//! node: its address has another identity, or is a local pod's that was not, or is no more. Its fronts then lead to other
//! sets of backends. The verdict of a rule set on a set never changes: a set with another verdict is another set.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
};

use imbl::OrdMap;
use podgate_common::{ServiceKey, ServiceVerdict};

use super::{changes::Forms, claims::Moves, numbering, numbering::Numbering};
use crate::{
    compiler::{
        Backend, Classes, PortRange, Services,
        services::{View, has_handshake, judge},
    },
    model::{Cluster, EndpointSlice, ObjectName, SlicesByService},
};

#[derive(Debug, Default)]
pub(super) struct Fronts {
    /// Sets of backends.
    places: Numbering<BTreeSet<Backend>>,
    fronts: OrdMap<ServiceKey, usize>,
    verdicts: OrdMap<(usize, usize), ServiceVerdict>,
    /// How many fronts lead to a place, and how many of them without a handshake.
    uses: HashMap<usize, (usize, usize)>,
    of_service: BTreeMap<ObjectName, Vec<ServiceKey>>,
    /// Two services claim one address and port: they are all looked at, in order, and the last one has it.
    contested: bool,
    judging: BTreeSet<usize>,
    /// By (rule set, place): see [`Services::leave_node`].
    leaving: BTreeSet<(usize, usize)>,
    /// What this node was when it was looked at last.
    local: HashMap<IpAddr, [usize; 2]>,
    own_addresses: BTreeSet<IpAddr>,
    slices: Slices,
}

/// What may have changed what a service looks like.
pub(super) struct Work<'a> {
    pub(super) new: &'a Cluster,
    /// Those that changed, and those of which a slice did.
    pub(super) services: &'a BTreeSet<&'a ObjectName>,
    /// The slices that changed, in their old and their new form.
    pub(super) slices: &'a [Forms<'a, EndpointSlice>],
    pub(super) moves: &'a Moves,
    /// Addresses in these may have another identity, too.
    pub(super) blocks: &'a [RangeInclusive<IpAddr>],
    /// Until now, if ports are told apart otherwise than before.
    pub(super) classes: Option<&'a Classes>,
}

impl Fronts {
    /// Forgets everything: nobody asks for services.
    pub(super) fn clear(&mut self) {
        if !self.judging.is_empty() {
            let mut places = std::mem::take(&mut self.places);
            places.clear();
            *self = Self { places, ..Self::default() };
        }
    }

    /// `judging`: the rule sets that judge egress, at least one.
    pub(super) fn update(&mut self, work: &Work<'_>, view: &View<'_>, judging: &BTreeSet<usize>) -> Services {
        let first = self.judging.is_empty();
        if first {
            self.slices = Slices::of(work.new);
        } else {
            self.slices.follow(work);
        }
        let mut touched = BTreeSet::new();
        let mut looked_at = !first && !self.contested;
        if looked_at {
            if let Some(classes) = work.classes {
                self.describe(classes, view.classes);
            }
            let dirty = self.dirty(work, view);
            self.look_at(&dirty, work.new, view, &mut touched);
            looked_at = !self.contested;
        }
        if !looked_at {
            self.start_over();
            touched.clear();
            let all: Vec<ObjectName> = work.new.services.keys().cloned().collect();
            self.look_at(&all, work.new, view, &mut touched);
            touched.insert(0);
        }
        self.local.clone_from(view.local);
        self.own_addresses.clone_from(view.site.own_addresses);
        self.judge(&touched, judging, view);
        Services {
            behind: self.places.contents().clone(),
            fronts: self.fronts.clone(),
            verdicts: self.verdicts.clone(),
            leave_node: !self.leaving.is_empty(),
        }
    }

    fn dirty(&self, work: &Work<'_>, view: &View<'_>) -> Vec<ObjectName> {
        let mut addresses: BTreeSet<IpAddr> = work.moves.keys().copied().collect();
        addresses.extend(self.own_addresses.symmetric_difference(view.site.own_addresses));
        let differ = |of: &HashMap<IpAddr, [usize; 2]>, other: &HashMap<IpAddr, [usize; 2]>| -> Vec<IpAddr> {
            of.iter().filter(|(at, egress)| other.get(at) != Some(egress)).map(|(at, _)| *at).collect()
        };
        addresses.extend(differ(&self.local, view.local));
        addresses.extend(differ(view.local, &self.local));
        let mut services: BTreeSet<&ObjectName> = work.services.clone();
        services.extend(addresses.iter().flat_map(|address| self.slices.within(*address..=*address)));
        if let Some(classes) = work.classes {
            let changed = classes.differences(view.classes);
            let slices = work.new.slices.values();
            let of_changed = slices.filter(|slice| slice.ports.iter().any(|port| changed.contains(port)));
            services.extend(of_changed.map(|slice| &slice.service));
        }
        services.extend(work.blocks.iter().flat_map(|block| self.slices.within(block.clone())));
        services.into_iter().cloned().collect()
    }

    /// Describes what is known by the indexes of new classes. What is in a class that is no more is looked at anew.
    fn describe(&mut self, before: &Classes, now: &Classes) {
        let places: HashMap<&BTreeSet<PortRange>, usize> =
            now.signatures.iter().enumerate().map(|(index, signature)| (signature, index)).collect();
        let class = |index: usize| places.get(&before.signatures[index]).copied();
        let backend = |backend: &Backend| {
            Some(match *backend {
                Backend::Node { identity, class: at } => Backend::Node { identity, class: class(at)? },
                Backend::Local { identity, class: at, egress } => {
                    Backend::Local { identity, class: class(at)?, egress }
                }
                Backend::Elsewhere { identity, class: at } => {
                    Backend::Elsewhere { identity, class: class(at)? }
                }
            })
        };
        self.places.rewrite(|behind| behind.iter().map(backend).collect());
    }

    fn start_over(&mut self) {
        self.places.clear();
        (self.fronts, self.verdicts) = (OrdMap::new(), OrdMap::new());
        self.uses.clear();
        self.of_service.clear();
        self.leaving.clear();
        self.judging.clear();
        self.contested = false;
    }

    /// Renews the fronts of services, given in order. `touched`: places that fronts lead to now, or did.
    fn look_at(
        &mut self,
        services: &[ObjectName],
        cluster: &Cluster,
        view: &View<'_>,
        touched: &mut BTreeSet<usize>,
    ) {
        for name in services {
            for key in self.of_service.remove(name).unwrap_or_default() {
                self.lead(key, None, touched);
            }
        }
        for name in services {
            let Some(service) = cluster.services.get(name) else { continue };
            let slices = self.slices.of_service(name).filter_map(|slice| cluster.slices.get(slice));
            let slices = SlicesByService::of(slices.map(AsRef::as_ref));
            let mut keys = Vec::new();
            for (key, behind) in view.fronts(service, &slices) {
                self.contested |= self.fronts.contains_key(&key);
                let place = self.places.number(&behind.into());
                self.lead(key, Some(place), touched);
                keys.push(key);
            }
            self.of_service.insert(name.clone(), keys);
        }
    }

    fn lead(&mut self, key: ServiceKey, place: Option<usize>, touched: &mut BTreeSet<usize>) {
        let before = match place {
            Some(place) => self.fronts.insert(key, place),
            None => self.fronts.remove(&key),
        };
        let bare = usize::from(!has_handshake(&key));
        if let Some(place) = place {
            let (all, without) = self.uses.entry(place).or_default();
            (*all, *without) = (*all + 1, *without + bare);
        }
        if let Some((all, without)) = before.and_then(|before| self.uses.get_mut(&before)) {
            (*all, *without) = (*all - 1, *without - bare);
        }
        touched.extend(place.into_iter().chain(before));
    }

    /// Renews verdicts: of all on the places that were touched, of new rule sets on all places.
    fn judge(&mut self, touched: &BTreeSet<usize>, judging: &BTreeSet<usize>, view: &View<'_>) {
        for &gone in self.judging.difference(judging) {
            numbering::remove_range(&mut self.verdicts, gone);
            self.leaving.retain(|(rule_set, _)| *rule_set != gone);
        }
        for &place in touched.iter().filter(|place| **place != 0) {
            if self.uses.get(&place).is_none_or(|(all, _)| *all == 0) {
                self.uses.remove(&place);
                self.places.remove(place);
                for &rule_set in &self.judging {
                    self.verdicts.remove(&(rule_set, place));
                    self.leaving.remove(&(rule_set, place));
                }
            }
        }
        let (kept, new): (Vec<usize>, Vec<usize>) =
            judging.iter().partition(|rule_set| self.judging.contains(rule_set));
        let places = self.places.contents();
        let again = touched.iter().filter_map(|place| Some((place, places.get(place)?, &kept)));
        let anew = places.iter().filter(|_| !new.is_empty()).map(|(place, behind)| (place, behind, &new));
        for (&place, behind, rule_sets) in again.chain(anew) {
            let without = self.uses.get(&place).is_some_and(|(_, without)| *without > 0);
            for &rule_set in rule_sets {
                let judged = judge(rule_set, behind, view.rows);
                let key = (rule_set, place);
                if judged.verdict == ServiceVerdict::Denied {
                    self.verdicts.remove(&key);
                } else {
                    self.verdicts.insert(key, judged.verdict);
                }
                if judged.may_leave(without) {
                    self.leaving.insert(key);
                } else {
                    self.leaving.remove(&key);
                }
            }
        }
        self.judging.clone_from(judging);
    }
}

/// Which slices a service has, and which services have slices with an address.
#[derive(Debug, Default)]
struct Slices {
    /// (Service, slice).
    by_service: BTreeSet<(ObjectName, ObjectName)>,
    names: Numbering<Option<ObjectName>>,
    /// How many endpoints have an address; by address and the number of their service.
    by_address: BTreeMap<(IpAddr, usize), u32>,
}

impl Slices {
    fn of(cluster: &Cluster) -> Self {
        let mut slices = Self::default();
        cluster.slices.values().for_each(|slice| slices.add(slice));
        slices
    }

    fn follow(&mut self, work: &Work<'_>) {
        for (before, after) in work.slices {
            before.iter().for_each(|slice| self.remove(slice));
            after.iter().for_each(|slice| self.add(slice));
        }
    }

    fn add(&mut self, slice: &EndpointSlice) {
        self.by_service.insert((slice.service.clone(), slice.name.clone()));
        let number = self.names.number(&Some(slice.service.clone()).into());
        for endpoint in &slice.endpoints {
            *self.by_address.entry((endpoint.address, number)).or_default() += 1;
        }
    }

    fn remove(&mut self, slice: &EndpointSlice) {
        self.by_service.remove(&(slice.service.clone(), slice.name.clone()));
        let number = self.names.number(&Some(slice.service.clone()).into());
        for endpoint in &slice.endpoints {
            let key = (endpoint.address, number);
            if let Some(endpoints) = self.by_address.get_mut(&key) {
                *endpoints -= 1;
                if *endpoints == 0 {
                    self.by_address.remove(&key);
                }
            }
        }
        if self.of_service(&slice.service).next().is_none() {
            self.names.remove(number);
        }
    }

    fn of_service<'a>(&'a self, service: &'a ObjectName) -> impl Iterator<Item = &'a ObjectName> {
        let first = (service.clone(), ObjectName::new("", ""));
        let all = self.by_service.range(first..).take_while(move |(of, _)| of == service);
        all.map(|(_, slice)| slice)
    }

    fn within(&self, addresses: RangeInclusive<IpAddr>) -> impl Iterator<Item = &ObjectName> {
        let numbers = self.by_address.range((*addresses.start(), 0)..=(*addresses.end(), usize::MAX));
        numbers.filter_map(|((_, number), _)| self.names.contents().get(number)?.as_ref().as_ref())
    }
}
