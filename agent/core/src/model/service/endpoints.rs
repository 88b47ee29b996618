//! The endpoints of a Service as rules of policies match them.
//!
//! In: all slices of the Service. Out: its addresses, and which ports go with which. Conditions do not count:
//! an endpoint that is not ready, or that is about to end, is one. What a slice says counts whether the
//! Service is there or not, and whoever has written it (Calico's `felix/serviceindex`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use podgate_common::RuleProtocol;

use super::EndpointSlice;
use crate::model::{PortRange, PortSet};

/// All endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// Of all its endpoints.
    pub addresses: BTreeSet<IpAddr>,
    /// By the ports that its slices list, the addresses at these. A slice without the number of a port has
    /// none.
    pub by_ports: BTreeMap<PortSet, BTreeSet<IpAddr>>,
}

impl ServiceEndpoints {
    /// `slices`: all of one Service.
    pub fn of<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> Self {
        let mut found = Self::default();
        for slice in slices {
            let addresses = || slice.endpoints.iter().map(|endpoint| endpoint.address);
            found.addresses.extend(addresses());
            let ports = slice.port_set();
            if !ports.is_empty() && !slice.endpoints.is_empty() {
                found.by_ports.entry(ports).or_default().extend(addresses());
            }
        }
        found
    }

    /// Whether it has an endpoint at this address and port.
    pub fn has_at(&self, address: IpAddr, protocol: RuleProtocol, port: u16) -> bool {
        self.by_ports
            .iter()
            .any(|(ports, addresses)| ports.contains(protocol, port) && addresses.contains(&address))
    }
}

impl EndpointSlice {
    /// Whether rules that name its Service match the same with the one as with the other.
    pub fn has_same_endpoints(&self, other: &Self) -> bool {
        let addresses =
            |slice: &Self| -> BTreeSet<IpAddr> { slice.endpoints.iter().map(|it| it.address).collect() };
        self.service == other.service
            && self.port_set() == other.port_set()
            && addresses(self) == addresses(other)
    }

    /// Its ports, by their numbers.
    pub fn port_set(&self) -> PortSet {
        let numbered = self.ports.iter().filter_map(|port| Some((port.protocol, port.number?)));
        numbered.map(|(protocol, number)| PortRange::new(protocol, number, number)).collect()
    }
}
