//! Addresses and ports of services, and the verdicts on what is behind them.
//!
//! A service is looked at again when it or one of its slices changed, or when one of its backends or of its
//! own addresses looks different from this node: it has another identity, or is a local pod's that was not,
//! or is no more. Its frontends then lead to other sets of backends. A frontend that other services claim as
//! well is made of the claims of all of them. The verdict of a rule set on a set changes only when a limit
//! closes the rule set, or does so no more.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use imbl::OrdMap;
use podgate_common::{ServiceKey, ServiceVerdict};

use super::{changes::Forms, claims::Moves, numbering, numbering::Numbering, slices::Slices};
use crate::{
    address_filter::AddressFilter,
    compiler::{
        Backend, Classes, PortSignature, Services,
        services::{
            AddressClaim, ServiceView, View, backend_set_verdict, claim_of_filtered, filter,
            has_foreign_node_port, has_handshake, is_filtered, node_port, together,
        },
    },
    model::{Cluster, EndpointSlice, ObjectName, Service},
};

#[derive(Debug, Default)]
pub(super) struct Frontends {
    /// Sets of backends.
    places: Numbering<BTreeSet<Backend>>,
    frontends: OrdMap<ServiceKey, usize>,
    verdicts: OrdMap<(usize, usize), ServiceVerdict>,
    /// How many frontends lead to a place, and how many of them without a handshake.
    uses: HashMap<usize, (usize, usize)>,
    /// Services over the limit, and their addresses.
    over_limit: BTreeMap<ObjectName, Arc<Service>>,
    filter: AddressFilter,
    of_service: BTreeMap<ObjectName, Vec<ServiceKey>>,
    /// The addresses and ports that each service claims.
    claims: BTreeSet<ClaimKey>,
    /// See [`has_foreign_node_port`].
    foreign: BTreeSet<ObjectName>,
    isolating_sets: BTreeSet<usize>,
    /// By (rule set, place): see [`Services::leave_node`].
    leaving: BTreeSet<(usize, usize)>,
    /// What this node was when it was looked at last.
    local: HashMap<IpAddr, [usize; 2]>,
    own_addresses: BTreeSet<IpAddr>,
    slices: Slices,
}

/// Address, port, protocol; the unspecified address is that of node ports. In the order of addresses, unlike
/// [`ServiceKey`].
type ClaimKey = (IpAddr, u16, u16, ObjectName);

fn claim_key(key: &ServiceKey, service: ObjectName) -> ClaimKey {
    (key.address.into(), key.port, key.protocol, service)
}

/// Less than that of any service.
fn nameless() -> ObjectName {
    ObjectName::new("", "")
}

/// Services that claim what others do, each looked at once.
struct Others<'a> {
    /// Their claims are known already.
    looked_at: &'a BTreeSet<ObjectName>,
    cluster: &'a Cluster,
    view: &'a View<'a>,
    known: HashMap<ObjectName, Option<ServiceView<'a>>>,
}

impl Others<'_> {
    fn claim_at(&mut self, slices: &Slices, name: &ObjectName, key: ServiceKey) -> Option<AddressClaim> {
        let Self { known, cluster, view, .. } = self;
        let service = known.entry(name.clone()).or_insert_with(|| slices.view(name, cluster, view));
        service.as_mut()?.claim_at(key)
    }
}

/// What may have changed what a service looks like.
pub(super) struct FrontendChanges<'a> {
    pub(super) new: &'a Cluster,
    /// Those that changed, and those of which a slice did.
    pub(super) services: &'a BTreeSet<&'a ObjectName>,
    /// The slices that changed, in their old and their new form.
    pub(super) slices: &'a [Forms<'a, EndpointSlice>],
    pub(super) moves: &'a Moves,
    /// Addresses in these may have another identity, too.
    pub(super) blocks: &'a [RangeInclusive<IpAddr>],
    /// Until now, if ports are distinguished otherwise than before.
    pub(super) classes: Option<&'a Classes>,
    /// Rule sets that were closed, or are no more: their verdicts are others than before.
    pub(super) reopened: &'a BTreeSet<usize>,
}

impl Frontends {
    /// Forgets everything: no one asks for services.
    pub(super) fn clear(&mut self) {
        if !self.isolating_sets.is_empty() {
            let mut places = std::mem::take(&mut self.places);
            places.clear();
            *self = Self { places, ..Self::default() };
        }
    }

    /// `isolating_sets`: the rule sets that evaluate egress, at least one.
    pub(super) fn update(
        &mut self,
        work: &FrontendChanges<'_>,
        view: &View<'_>,
        isolating_sets: &BTreeSet<usize>,
    ) -> Services {
        let first = self.isolating_sets.is_empty();
        if first {
            self.slices = Slices::of(work.new);
        } else {
            self.slices.follow(work.slices);
        }
        let mut touched = BTreeSet::new();
        if first {
            let all = work.new.services.keys().cloned().collect();
            self.look_at(&all, work.new, view, &mut touched);
            touched.insert(0);
        } else {
            if let Some(classes) = work.classes {
                self.describe(classes, view.classes);
            }
            let dirty = self.dirty(work, view);
            self.look_at(&dirty, work.new, view, &mut touched);
        }
        self.local.clone_from(view.local);
        self.own_addresses.clone_from(view.site.own_addresses);
        self.backend_set_verdict(&touched, isolating_sets, work.reopened, view);
        Services {
            backends: self.places.contents().clone(),
            frontends: self.frontends.clone(),
            verdicts: self.verdicts.clone(),
            leave_node: !self.leaving.is_empty() || !self.foreign.is_empty(),
            filter: self.filter.clone(),
        }
    }

    fn dirty(&self, work: &FrontendChanges<'_>, view: &View<'_>) -> BTreeSet<ObjectName> {
        let mut addresses: BTreeSet<IpAddr> = work.moves.keys().copied().collect();
        let of_node: Vec<IpAddr> =
            self.own_addresses.symmetric_difference(view.site.own_addresses).copied().collect();
        addresses.extend(&of_node);
        let differ = |of: &HashMap<IpAddr, [usize; 2]>, other: &HashMap<IpAddr, [usize; 2]>| -> Vec<IpAddr> {
            of.iter().filter(|(at, egress)| other.get(at) != Some(egress)).map(|(at, _)| *at).collect()
        };
        addresses.extend(differ(&self.local, view.local));
        addresses.extend(differ(view.local, &self.local));
        let mut services: BTreeSet<&ObjectName> = work.services.clone();
        services.extend(addresses.iter().flat_map(|address| self.slices.within(*address..=*address)));
        services.extend(addresses.iter().flat_map(|address| self.claimants(*address..=*address)));
        if let Some(classes) = work.classes {
            let changed = classes.differences(view.classes);
            let slices = work.new.slices.values();
            let of_changed = slices.filter(|slice| {
                slice
                    .ports
                    .iter()
                    .any(|port| port.number.is_some_and(|number| changed.contains(port.protocol, number)))
            });
            services.extend(of_changed.map(|slice| &slice.service));
            let of_changed = work.new.services.values().filter(|service| {
                service.ports.iter().any(|port| changed.contains(port.protocol, port.number))
            });
            services.extend(of_changed.map(|service| &service.name));
        }
        services.extend(work.blocks.iter().flat_map(|block| self.slices.within(block.clone())));
        services.extend(work.blocks.iter().flat_map(|block| self.claimants(block.clone())));
        services.into_iter().cloned().collect()
    }

    /// The services to whose claims it matters what these addresses are.
    fn claimants(&self, addresses: RangeInclusive<IpAddr>) -> impl Iterator<Item = &ObjectName> {
        let (first, last) = addresses.into_inner();
        let claims = self.claims.range((first, 0, 0, nameless())..);
        claims.take_while(move |(address, ..)| *address <= last).map(|(.., service)| service)
    }

    /// Describes what is known by the indexes of new classes. What is in a class that is no more is looked at
    /// again.
    fn describe(&mut self, before: &Classes, now: &Classes) {
        let places: HashMap<&PortSignature, usize> =
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
                Backend::Untranslated | Backend::Unlisted => *backend,
            })
        };
        self.places.rewrite(|backends| backends.iter().map(backend).collect());
    }

    /// Renews the frontends of services. `touched`: places that frontends lead to now, or did.
    fn look_at(
        &mut self,
        services: &BTreeSet<ObjectName>,
        cluster: &Cluster,
        view: &View<'_>,
        touched: &mut BTreeSet<usize>,
    ) {
        let mut claims: BTreeMap<ServiceKey, Vec<AddressClaim>> = BTreeMap::new();
        let mut is_filter_stale = false;
        for name in services {
            let service = cluster.services.get(name);
            match service.is_some_and(|service| has_foreign_node_port(service)) {
                true => self.foreign.insert(name.clone()),
                false => self.foreign.remove(name),
            };
            let over_limit = service.filter(|service| service.is_over_limit);
            let before = match over_limit {
                Some(service) => self.over_limit.insert(name.clone(), service.clone()),
                None => self.over_limit.remove(name),
            };
            is_filter_stale |= !have_same_addresses(before.as_ref(), over_limit);
            let found = self.slices.view(name, cluster, view).map(|mut service| service.claims());
            let found = found.unwrap_or_default();
            let before = self.of_service.remove(name).unwrap_or_default();
            for key in before.iter().filter(|key| !found.contains_key(key)) {
                self.claims.remove(&claim_key(key, name.clone()));
                claims.entry(*key).or_default();
            }
            let keys: Vec<ServiceKey> = found.keys().copied().collect();
            for (key, claim) in found {
                // They are in order.
                if before.binary_search(&key).is_err() {
                    self.claims.insert(claim_key(&key, name.clone()));
                }
                claims.entry(key).or_default().push(claim);
            }
            if !keys.is_empty() {
                self.of_service.insert(name.clone(), keys);
            }
        }
        let own_addresses = view.site.own_addresses;
        let of_node_ports: Vec<ServiceKey> = claims
            .keys()
            .filter(|key| key.address.is_unspecified())
            .flat_map(|key| own_addresses.iter().map(|own| ServiceKey { address: (*own).into(), ..*key }))
            .filter(|key| self.frontends.contains_key(key))
            .collect();
        for key in of_node_ports {
            claims.entry(key).or_default();
        }
        let mut others = Others { looked_at: services, cluster, view, known: HashMap::new() };
        let filter = match is_filter_stale {
            true => filter(self.over_limit.values().map(|service| &**service)),
            false => self.filter.clone(),
        };
        let leads_elsewhere = claims.remove(&ServiceKey::FILTERED).is_some_and(|mut at_key| {
            at_key.extend(self.claims_of_others(&ServiceKey::FILTERED, &mut others));
            self.lead(ServiceKey::FILTERED, &at_key, touched)
        });
        if leads_elsewhere || !filter.is(&self.filter) || *own_addresses != self.own_addresses {
            // It is, or was, one more claim at each of these.
            let changes = |key: &&ServiceKey| {
                let was = is_filtered(&self.filter, key, &self.own_addresses);
                let is = is_filtered(&filter, key, own_addresses);
                was != is || is && leads_elsewhere
            };
            for key in self.frontends.keys().filter(changes) {
                claims.entry(*key).or_default();
            }
        }
        self.filter = filter;
        let filtered = self.frontends.get(&ServiceKey::FILTERED);
        let filtered = filtered.map(|place| claim_of_filtered(self.places.contents()[place].clone()));
        for (key, mut at_key) in claims {
            at_key.extend(self.claims_of_others(&key, &mut others));
            if !at_key.is_empty() {
                if let Some(port) = node_port(&key, own_addresses) {
                    at_key.extend(self.claims_at(&port, &mut others, |_| true));
                }
                let filtered = filtered.as_ref().filter(|_| is_filtered(&self.filter, &key, own_addresses));
                at_key.extend(filtered.cloned());
            }
            self.lead(key, &at_key, touched);
        }
    }

    /// What services have here that are not looked at again.
    fn claims_of_others(&self, key: &ServiceKey, others: &mut Others<'_>) -> Vec<AddressClaim> {
        let looked_at = others.looked_at;
        self.claims_at(key, others, |service| !looked_at.contains(service))
    }

    fn claims_at(
        &self,
        key: &ServiceKey,
        others: &mut Others<'_>,
        is_wanted: impl Fn(&ObjectName) -> bool,
    ) -> Vec<AddressClaim> {
        let at = claim_key(key, nameless());
        let claims = self.claims.range(at.clone()..);
        let claims = claims.take_while(|claim| (claim.0, claim.1, claim.2) == (at.0, at.1, at.2));
        let wanted = claims.map(|(.., service)| service).filter(|service| is_wanted(service));
        wanted.filter_map(|service| others.claim_at(&self.slices, service, *key)).collect()
    }

    /// Leads an address and port to all that is claimed there. Out: whether it led elsewhere before.
    fn lead(&mut self, key: ServiceKey, claims: &[AddressClaim], touched: &mut BTreeSet<usize>) -> bool {
        let place = (!claims.is_empty()).then(|| self.places.number(&together(claims)));
        let before = self.frontends.get(&key).copied();
        if place == before {
            return false;
        }
        match place {
            Some(place) => self.frontends.insert(key, place),
            None => self.frontends.remove(&key),
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
        true
    }

    /// Renews verdicts: of all on the places that were touched, of rule sets that are new or reopened on all
    /// places.
    fn backend_set_verdict(
        &mut self,
        touched: &BTreeSet<usize>,
        isolating_sets: &BTreeSet<usize>,
        reopened: &BTreeSet<usize>,
        view: &View<'_>,
    ) {
        for &gone in self.isolating_sets.difference(isolating_sets) {
            numbering::remove_range(&mut self.verdicts, gone);
            self.leaving.retain(|(rule_set, _)| *rule_set != gone);
        }
        for &place in touched.iter().filter(|place| **place != 0) {
            if self.uses.get(&place).is_none_or(|(all, _)| *all == 0) {
                self.uses.remove(&place);
                self.places.remove(place);
                for &rule_set in &self.isolating_sets {
                    self.verdicts.remove(&(rule_set, place));
                    self.leaving.remove(&(rule_set, place));
                }
            }
        }
        let (kept, new): (Vec<usize>, Vec<usize>) =
            isolating_sets.iter().partition(|at| self.isolating_sets.contains(at) && !reopened.contains(at));
        let places = self.places.contents();
        let again = touched.iter().filter_map(|place| Some((place, places.get(place)?, &kept)));
        let added =
            places.iter().filter(|_| !new.is_empty()).map(|(place, backends)| (place, backends, &new));
        for (&place, backends, rule_sets) in again.chain(added) {
            let without = self.uses.get(&place).is_some_and(|(_, without)| *without > 0);
            for &rule_set in rule_sets {
                let verdict_of_set = backend_set_verdict(rule_set, backends, view.rows);
                let key = (rule_set, place);
                if verdict_of_set.verdict == ServiceVerdict::Denied {
                    self.verdicts.remove(&key);
                } else {
                    self.verdicts.insert(key, verdict_of_set.verdict);
                }
                if verdict_of_set.may_leave(without) {
                    self.leaving.insert(key);
                } else {
                    self.leaving.remove(&key);
                }
            }
        }
        self.isolating_sets.clone_from(isolating_sets);
    }
}

/// Whether the filter is the same with one as with the other.
fn have_same_addresses(one: Option<&Arc<Service>>, other: Option<&Arc<Service>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            one.cluster_addresses == other.cluster_addresses
                && one.external_addresses == other.external_addresses
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}
