//! Connections that were seen, without those that a side denied since.
//!
//! Each agent sees its own side alone: what passed the client's may have been denied at the server's, and a
//! client looks at a service where its server sees a pod. So the two are joined here.

use std::collections::BTreeMap;

use podgate_common::Direction;

use super::{Observation, Observed, ObservedPort, Peer, SideVerdicts};
use crate::model::Cluster;

/// Those that passed, and that no side denied after it let them pass for the last time.
pub fn standing(cluster: &Cluster, observations: Vec<Observation>) -> Vec<Observation> {
    let observed = Observed::of(cluster);
    let mut verdicts: BTreeMap<(Peer, Peer, ObservedPort), [SideVerdicts; 2]> = BTreeMap::new();
    for observation in &observations {
        for connection in observed.connections(&observation.from, &observation.to, observation.port) {
            let sides = verdicts.entry(connection).or_default();
            for (side, direction) in sides.iter_mut().zip(Direction::ALL) {
                let SideVerdicts { passed, denied } = observation.side(direction);
                // No time is before all others.
                side.passed = side.passed.take().max(passed.clone());
                side.denied = side.denied.take().max(denied.clone());
            }
        }
    }
    let is_standing = |observation: &Observation| {
        let passed = Direction::ALL.into_iter().any(|direction| observation.side(direction).passed.is_some());
        let connections = observed.connections(&observation.from, &observation.to, observation.port);
        let is_denied = |connection| {
            let sides: Option<&[SideVerdicts; 2]> = verdicts.get(connection);
            sides.is_some_and(|sides| sides.iter().any(|side| side.denied > side.passed))
        };
        // A service of which nothing is left leads nowhere that could deny.
        passed && (connections.is_empty() || !connections.iter().all(is_denied))
    };
    observations.into_iter().filter(is_standing).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podgate_common::Protocol;

    use super::*;
    use crate::{
        advise::ObservedEnd,
        fixtures::ready,
        model::{EndpointSlice, Labels, ObjectName, Pod, Proxy, Service, ServicePort, SlicePort},
    };

    const PORT: (Protocol, u16) = (Protocol::Tcp, 80);

    fn cluster() -> Cluster {
        let mut cluster = crate::fixtures::cluster(Vec::new());
        let name = ObjectName::new("x", "web");
        let service = Service {
            name: name.clone(),
            cluster_addresses: vec!["10.96.0.1".parse().unwrap()],
            external_addresses: Vec::new(),
            proxy: Proxy::KubeProxy,
            internal_local: false,
            external_local: false,
            is_over_limit: false,
            ports: vec![ServicePort { name: "".into(), protocol: PORT.0, number: 8080, node_port: None }],
        };
        let slice = EndpointSlice {
            name: ObjectName::new("x", "web-1"),
            service: name.clone(),
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort { name: "".into(), protocol: PORT.0, number: Some(PORT.1) }],
            endpoints: vec![ready(server(&cluster).addresses[0])],
        };
        cluster.services.insert(name, Arc::new(service));
        cluster.slices.insert(slice.name.clone(), Arc::new(slice));
        cluster
    }

    fn server(cluster: &Cluster) -> Arc<Pod> {
        cluster.pods[&ObjectName::new("x", "b")].clone()
    }

    fn pod(name: &str) -> ObservedEnd {
        let cluster = crate::fixtures::cluster(Vec::new());
        let name = ObjectName::new("x", name);
        ObservedEnd::Pod(name.clone(), Labels::clone(&cluster.pods[&name].labels))
    }

    fn at(minute: Option<u8>) -> Option<String> {
        minute.map(|minute| format!("2026-01-01T00:{minute:02}:00.000Z"))
    }

    /// Last passed and last denied, in minutes, at the client's side and at the server's.
    fn observation(to: ObservedEnd, port: (Protocol, u16), sides: [[Option<u8>; 2]; 2]) -> Observation {
        let [egress, ingress] =
            sides.map(|[passed, denied]| SideVerdicts { passed: at(passed), denied: at(denied) });
        let seen = ["2026-01-01T00:00:00.000Z", "2026-01-01T01:00:00.000Z"].map(str::to_owned);
        Observation { from: pod("a"), to, port, seen, egress, ingress }
    }

    #[test]
    fn what_a_side_denied_last_does_not_stand() {
        for (egress, ingress, stands) in [
            ([Some(1), None], [None, None], true),
            ([Some(1), None], [Some(1), None], true),
            ([Some(1), None], [None, Some(1)], false),
            ([Some(1), None], [Some(1), Some(2)], false),
            ([Some(1), None], [Some(3), Some(2)], true),
            ([Some(1), Some(2)], [Some(1), None], false),
            ([None, Some(1)], [None, None], false),
        ] {
            let seen = vec![observation(pod("b"), PORT, [egress, ingress])];
            let count = standing(&cluster(), seen).len();
            assert_eq!(count, usize::from(stands), "{egress:?} {ingress:?}");
        }
    }

    #[test]
    fn a_denial_at_the_backend_is_one_of_the_service() {
        let service = || ObservedEnd::Service(ObjectName::new("x", "web"));
        let through = || observation(service(), (PORT.0, 8080), [[Some(1), None], [None, None]]);
        let at_backend = |verdicts| observation(pod("b"), PORT, [[None, None], verdicts]);
        assert_eq!(standing(&cluster(), vec![through(), at_backend([None, Some(2)])]), []);
        assert_eq!(standing(&cluster(), vec![through(), at_backend([Some(3), Some(2)])]).len(), 2);
        assert_eq!(standing(&cluster(), vec![through()]).len(), 1);
        // A service that is gone.
        let mut gone = cluster();
        gone.services.remove(&ObjectName::new("x", "web"));
        assert_eq!(standing(&gone, vec![through()]).len(), 1);
    }
}
