//! The cluster that all variants of a path filter for: policy number i isolates pod number i in both
//! directions, lets pod i - 1 in and pod i + 1 be reached.
//!
//! In: how many policies there are, and where those of the two pods that talk stand among them. Out: the same
//! policies in the three forms that podgate, Calico's rules and NPM's rules are made from.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::{
    bench::figure::Standing,
    peers::npm::{Pod, Policy, Ports, Protocol},
};

/// Where the server listens, over TCP and UDP.
pub(super) const PORT: u16 = 8000;
/// Where its listener's queue is full, so that it is silent.
pub(super) const FULL_PORT: u16 = 8001;
/// Where no policy lets anybody in.
pub(super) const CLOSED_PORT: u16 = 9000;
pub(super) const NAMESPACE: &str = "bench";
/// What every policy opens.
const OPEN: [Ports; 2] = [
    Ports { protocol: Protocol::Tcp, first: PORT, last: FULL_PORT },
    Ports { protocol: Protocol::Udp, first: PORT, last: PORT },
];
/// A node of the cluster that is not there: the pods that do not talk are on it.
const ELSEWHERE: &str = "elsewhere";
/// Pods of a node, as kubelets have it: Calico's rules are for a node's own pods.
const PODS_OF_A_NODE: u32 = 110;

#[derive(Clone, Debug)]
pub(super) struct Cluster {
    policies: u32,
    client: u32,
    addresses: [Ipv4Addr; 2],
}

impl Cluster {
    /// `addresses` are those of client and server. Without policies there are the two pods alone.
    pub(super) fn new(policies: u32, standing: Standing, addresses: [Ipv4Addr; 2]) -> Self {
        let client = match standing {
            Standing::First => 0,
            Standing::Last => policies.saturating_sub(2),
        };
        Self { policies, client, addresses }
    }

    /// The label `app` of client and server, before they have addresses.
    pub(super) fn apps(policies: u32, standing: Standing) -> [String; 2] {
        let unknown = [Ipv4Addr::UNSPECIFIED; 2];
        let client = Self::new(policies, standing, unknown).client;
        [app(client), app(client + 1)]
    }

    /// Namespace, pods elsewhere and policies. Client and server are in the lab's own manifests.
    pub(super) fn manifests(&self) -> Value {
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": ELSEWHERE}}),
        ];
        let talking = [self.client, self.client + 1];
        objects.extend(
            (0..self.policies).filter(|number| !talking.contains(number)).map(|number| self.pod(number)),
        );
        objects.extend(self.policies().iter().map(object));
        json!({"apiVersion": "v1", "kind": "List", "items": objects})
    }

    /// What Calico's agent looks at: all pods, and the policies that select pods of this node. Out: these
    /// objects, and how many of the pods at their head are on this node, the first two being client and
    /// server.
    pub(super) fn on_a_node(&self) -> (Vec<Value>, usize) {
        let talking = [self.client, self.client + 1];
        let others = (0..self.policies).filter(|number| !talking.contains(number));
        let pods: Vec<u32> = talking.into_iter().chain(others).collect();
        let policies = self.policies();
        let here = pods.len().min(PODS_OF_A_NODE as usize);
        let of_here = pods[..here].iter().filter_map(|&number| policies.get(number as usize)).map(object);
        (pods.iter().map(|&number| self.pod(number)).chain(of_here).collect(), here)
    }

    /// What NPM's agent looks at: everything.
    pub(super) fn everything(&self) -> (Vec<Pod>, Vec<Policy>) {
        let pods = (0..self.policies).map(|number| Pod { app: app(number), address: self.address(number) });
        (pods.collect(), self.policies())
    }

    fn policies(&self) -> Vec<Policy> {
        let policy = |number: u32| Policy {
            name: format!("p{number}"),
            app: app(number),
            from: app((number + self.policies - 1) % self.policies),
            to: app((number + 1) % self.policies),
            ports: OPEN.to_vec(),
        };
        (0..self.policies).map(policy).collect()
    }

    fn pod(&self, number: u32) -> Value {
        let address = self.address(number).to_string();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("pod-{number}"), "namespace": NAMESPACE, "labels": {"app": app(number)}},
            "spec": {"nodeName": ELSEWHERE, "containers": [{"name": "main", "image": "image"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        })
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        let [client, server] = self.addresses;
        match number.checked_sub(self.client) {
            Some(0) => client,
            Some(1) => server,
            _ => Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 1).to_bits() + number),
        }
    }
}

fn app(number: u32) -> String {
    format!("a{number}")
}

fn object(policy: &Policy) -> Value {
    let Policy { name, app, from, to, ports } = policy;
    let ports = ports.iter().map(|Ports { protocol, first, last }| {
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        json!({"protocol": protocol, "port": first, "endPort": last})
    });
    let ports: Vec<_> = ports.collect();
    let pods = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": pods(from), "ports": ports}],
            "egress": [{"to": pods(to), "ports": ports}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 244, 1, 11), Ipv4Addr::new(10, 244, 1, 12)];

    #[test]
    fn the_talking_pods_have_the_first_or_the_last_two_policies() {
        for (standing, expected) in [(Standing::First, ["a0", "a1"]), (Standing::Last, ["a98", "a99"])] {
            assert_eq!(Cluster::apps(100, standing), expected);
            let (pods, policies) = Cluster::new(100, standing, ADDRESSES).everything();
            let [client, server] = expected;
            let address = |app: &str| pods.iter().find(|pod| pod.app == app).expect("a pod").address;
            assert_eq!([address(client), address(server)], ADDRESSES);
            let of = |app: &str| policies.iter().find(|policy| policy.app == app).expect("a policy");
            assert_eq!((of(client).to.as_str(), of(server).from.as_str()), (server, client));
        }
    }

    #[test]
    fn a_node_has_no_more_pods_than_a_kubelet_takes_and_only_their_policies() {
        for (policies, here) in [(2, 2), (10, 10), (1_000, 110)] {
            let (objects, found) = Cluster::new(policies, Standing::Last, ADDRESSES).on_a_node();
            assert_eq!((found, objects.len()), (here, here + policies as usize), "{policies}");
            assert_eq!(objects[1]["status"]["podIP"], "10.244.1.12");
        }
    }
}
