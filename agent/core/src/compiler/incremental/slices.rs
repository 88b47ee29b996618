//! Which slices each service has, kept up to date.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
};

use super::{changes::Forms, numbering::Numbering};
use crate::{
    compiler::services::{ServiceView, View},
    model::{Cluster, EndpointSlice, ObjectName},
};

/// Which slices a service has, and which services have slices with an address.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// (Service, slice).
    by_service: BTreeSet<(ObjectName, ObjectName)>,
    names: Numbering<Option<ObjectName>>,
    /// How many endpoints have an address; by address and the number of their service.
    by_address: BTreeMap<(IpAddr, usize), u32>,
}

impl Slices {
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut slices = Self::default();
        cluster.slices.values().for_each(|slice| slices.add(slice));
        slices
    }

    pub(super) fn follow(&mut self, changed: &[Forms<'_, EndpointSlice>]) {
        for (before, after) in changed {
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

    /// What a service looks like from a node; `None` if there is no such service.
    pub(super) fn view<'c>(
        &self,
        service: &ObjectName,
        cluster: &'c Cluster,
        view: &View<'c>,
    ) -> Option<ServiceView<'c>> {
        let slices = self.of_service(service).filter_map(|slice| cluster.slices.get(slice));
        Some(view.service(cluster.services.get(service)?, slices.map(Arc::as_ref)))
    }

    fn of_service<'a>(&'a self, service: &'a ObjectName) -> impl Iterator<Item = &'a ObjectName> {
        let first = (service.clone(), ObjectName::new("", ""));
        let all = self.by_service.range(first..).take_while(move |(of, _)| of == service);
        all.map(|(_, slice)| slice)
    }

    /// The services that have endpoints with addresses among these.
    pub(super) fn within(&self, addresses: RangeInclusive<IpAddr>) -> impl Iterator<Item = &ObjectName> {
        let numbers = self.by_address.range((*addresses.start(), 0)..=(*addresses.end(), usize::MAX));
        numbers.filter_map(|((_, number), _)| self.names.contents().get(number)?.as_ref().as_ref())
    }
}
