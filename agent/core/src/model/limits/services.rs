//! How many frontends the Services of one namespace may have: each is an address with a port, and an object
//! lists addresses and ports, of which it stands for each with each.
//!
//! In: the Services of a namespace. Out: those that do not fit. The addresses of such a Service stand in a
//! filter of fixed size, and what is sent there is evaluated where it ends: no verdict is another one.
//! Smaller Services come first: a large one never takes the room of a small one.

use std::sync::Arc;

use crate::model::Service;

/// Frontends of one namespace, but for those of small Services.
pub const MAX_FRONTENDS: usize = 4_096;

/// What makes a Service small: six ports with a cluster address and an external one of each family are 24.
pub const SMALL_SERVICE: usize = 24;

/// Frontends of the small Services of one namespace: of 5,000 with three ports each, for example.
pub const MAX_FRONTENDS_OF_SMALL: usize = 16_384;

/// The Services of one namespace that do not fit, marked as such.
pub fn services_over_limit<'a>(services: impl IntoIterator<Item = &'a Arc<Service>>) -> Vec<Arc<Service>> {
    let counted = services.into_iter().map(|service| (frontends(service), service));
    let mut services: Vec<(usize, &Arc<Service>)> = counted.filter(|(frontends, _)| *frontends > 0).collect();
    services.sort_by_key(|(frontends, service)| (*frontends, &service.name));
    let (mut room, mut room_of_small) = (MAX_FRONTENDS, MAX_FRONTENDS_OF_SMALL);
    let misfits = services.into_iter().filter(|(frontends, _)| {
        let room = if *frontends <= SMALL_SERVICE { &mut room_of_small } else { &mut room };
        let left = room.checked_sub(*frontends);
        *room = left.unwrap_or(*room);
        left.is_none()
    });
    misfits.map(|(_, service)| Arc::new(Service { is_over_limit: true, ..Service::clone(service) })).collect()
}

/// Node ports are not among them: a cluster has no more than their range.
fn frontends(service: &Service) -> usize {
    let addresses = service.cluster_addresses.len() + service.external_addresses.len();
    addresses.saturating_mul(service.ports.len())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use podgate_common::Protocol;

    use super::*;
    use crate::model::{ObjectName, Proxy, ServicePort};

    fn service(name: &str, addresses: u16, ports: u16) -> Arc<Service> {
        let address = |at: u16| IpAddr::from(Ipv4Addr::from(0xc633_0000 + u32::from(at)));
        let port = |number: u16| ServicePort {
            name: format!("p{number}").into(),
            protocol: Protocol::Tcp,
            number,
            node_port: None,
        };
        Arc::new(Service {
            name: ObjectName::new("x", name),
            proxy: Proxy::KubeProxy,
            cluster_addresses: vec![[10, 96, 0, 1].into()],
            external_addresses: (0..addresses).map(address).collect(),
            internal_local: false,
            external_local: false,
            is_over_limit: false,
            ports: (1..=ports).map(port).collect(),
        })
    }

    fn misfits(services: &[Arc<Service>]) -> Vec<String> {
        let marked = services_over_limit(services);
        assert!(marked.iter().all(|service| service.is_over_limit));
        marked.iter().map(|service| service.name.name.to_string()).collect()
    }

    #[test]
    fn one_service_fits_as_long_as_its_frontends_do() {
        for (addresses, ports) in [(63, 64), (0, 4_096), (4_095, 1), (2_047, 2)] {
            assert_eq!(misfits(&[service("fits", addresses, ports)]), [""; 0]);
            assert_eq!(misfits(&[service("large", addresses + 1, ports)]), ["large"]);
        }
        assert_eq!(misfits(&[service("ports", 0, 4_097)]), ["ports"]);
    }

    #[test]
    fn many_services_have_no_more_room_than_one_and_the_smaller_ones_come_first() {
        let mut services = vec![service("a-large", 63, 63)];
        services.extend((0..16).map(|at| service(&format!("small-{at:02}"), 3, 16)));
        assert_eq!(misfits(&services), ["a-large"]);
        services.extend((16..80).map(|at| service(&format!("small-{at:02}"), 3, 16)));
        let beyond = (64..80).map(|at| format!("small-{at:02}"));
        assert_eq!(misfits(&services), beyond.chain(["a-large".into()]).collect::<Vec<_>>());
    }

    #[test]
    fn small_services_have_a_room_of_their_own() {
        let small = |count: u16| (0..count).map(|at| service(&format!("small-{at:04}"), 3, 6)).collect();
        let mut services: Vec<_> = small(682);
        assert_eq!(misfits(&services), [""; 0]);
        services.extend((0..200).map(|at| service(&format!("others-{at:03}"), 4, 5)));
        assert_eq!(misfits(&services).len(), 200 - 4_096 / 25);
        assert_eq!(misfits(&small(684)), ["small-0682", "small-0683"]);
    }
}
