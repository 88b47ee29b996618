//! How many frontends the Services of one namespace may have beyond those that they list. An object lists
//! addresses and ports; what it stands for is each address with each port.
//!
//! In: the Services of a namespace. Out: those of which the pairs do not fit. The tables have such a Service
//! by its external addresses alone, and what is sent there is evaluated where it ends: no verdict is another
//! one. Smaller Services come first: a large one never takes the room of a small one.

use std::sync::Arc;

use crate::model::Service;

/// Pairs of an external address and a port of one namespace. A Service with one external address, or with one
/// port, has no more frontends than it lists, and is not counted.
pub const MAX_FRONTENDS: usize = 4_096;

/// The Services of one namespace that do not fit, marked as such.
pub fn services_over_limit<'a>(services: impl IntoIterator<Item = &'a Arc<Service>>) -> Vec<Arc<Service>> {
    let with_pairs = services.into_iter().map(|service| (pairs(service), service));
    let mut services: Vec<(usize, &Arc<Service>)> = with_pairs.filter(|(pairs, _)| *pairs > 0).collect();
    services.sort_by_key(|(pairs, service)| (*pairs, &service.name));
    let mut room = MAX_FRONTENDS;
    let misfits = services.into_iter().filter(|(pairs, _)| match room.checked_sub(*pairs) {
        Some(left) => {
            room = left;
            false
        }
        None => true,
    });
    misfits.map(|(_, service)| Arc::new(Service { is_over_limit: true, ..Service::clone(service) })).collect()
}

fn pairs(service: &Service) -> usize {
    match (service.external_addresses.len(), service.ports.len()) {
        (0 | 1, _) | (_, 0 | 1) => 0,
        (addresses, ports) => addresses.saturating_mul(ports),
    }
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
    fn one_service_fits_as_long_as_its_pairs_do() {
        assert_eq!(misfits(&[service("fits", 64, 64)]), [""; 0]);
        assert_eq!(misfits(&[service("large", 64, 65)]), ["large"]);
    }

    #[test]
    fn many_services_have_no_more_room_than_one_and_the_smaller_ones_come_first() {
        let mut services = vec![service("a-large", 64, 63)];
        services.extend((0..16).map(|at| service(&format!("small-{at:02}"), 4, 16)));
        assert_eq!(misfits(&services), ["a-large"]);
        services.extend((16..80).map(|at| service(&format!("small-{at:02}"), 4, 16)));
        let beyond = (64..80).map(|at| format!("small-{at:02}"));
        assert_eq!(misfits(&services), beyond.chain(["a-large".into()]).collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_more_frontends_than_it_lists_is_not_counted() {
        let listed =
            [service("addresses", 30_000, 1), service("ports", 1, 30_000), service("none", 0, 30_000)];
        assert_eq!(misfits(&listed), [""; 0]);
    }
}
