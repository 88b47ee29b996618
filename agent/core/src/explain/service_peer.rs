//! What a rule of Calico's that names a Service says of an address and port.

use std::{fmt, net::IpAddr};

use podgate_common::{Direction, RuleProtocol};

use crate::{
    model::{Cluster, ObjectName},
    port_spec::Place,
};

/// A Service of which an endpoint is wanted, and whether the address is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWish {
    /// The Service.
    pub service: ObjectName,
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub found: EndpointPlace,
}

/// Whether an address is an endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointPlace {
    /// The Service has no endpoints.
    NoEndpoints,
    /// It has others.
    Outside,
    /// The address is one, at other ports.
    OtherPorts(RuleProtocol, u16),
    /// The address is one; its ports do not count.
    Endpoint,
    /// The address is one at this port.
    EndpointAt(RuleProtocol, u16),
}

impl ServiceWish {
    /// `port`: the destination's.
    pub(super) fn of(
        cluster: &Cluster,
        service: &ObjectName,
        direction: Direction,
        address: IpAddr,
        (protocol, port): (RuleProtocol, u16),
    ) -> Self {
        let endpoints = cluster.service_endpoints(service);
        let addresses = &endpoints.addresses;
        let found = match direction {
            _ if addresses.is_empty() => EndpointPlace::NoEndpoints,
            _ if !addresses.contains(&address) => EndpointPlace::Outside,
            Direction::Ingress => EndpointPlace::Endpoint,
            Direction::Egress if endpoints.has_at(address, protocol, port) => {
                EndpointPlace::EndpointAt(protocol, port)
            }
            Direction::Egress => EndpointPlace::OtherPorts(protocol, port),
        };
        Self { service: service.clone(), address, found }
    }

    pub(super) const fn matched(&self) -> bool {
        match self.found {
            EndpointPlace::Endpoint | EndpointPlace::EndpointAt(..) => true,
            EndpointPlace::NoEndpoints | EndpointPlace::Outside | EndpointPlace::OtherPorts(..) => false,
        }
    }
}

impl fmt::Display for ServiceWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, address, found } = self;
        write!(f, "wants an endpoint of the Service {service}, ")?;
        match found {
            EndpointPlace::NoEndpoints => f.write_str("which has none"),
            EndpointPlace::Outside => write!(f, "{address} is none"),
            EndpointPlace::OtherPorts(protocol, port) => {
                write!(f, "{address} is one, but not at {}", Place(*protocol, *port))
            }
            EndpointPlace::Endpoint => write!(f, "{address} is one"),
            EndpointPlace::EndpointAt(protocol, port) => {
                write!(f, "{address} is one at {}", Place(*protocol, *port))
            }
        }
    }
}
