//! Advice: it allows what was observed, closes the rest, and says so in few words.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{labels, pod, ready},
    matrix::matrix,
    model::{EndpointSlice, Proxy, Selector, Service, ServicePort, SlicePort},
    port_spec::PortSpec,
};

fn cluster(pods: Vec<crate::model::Pod>) -> Cluster {
    Cluster {
        pods: pods.into_iter().map(|pod| (pod.name.clone(), Arc::new(pod))).collect(),
        ..Cluster::default()
    }
}

fn end(cluster: &Cluster, name: &str) -> ObservedEnd {
    let (namespace, name) = name.split_once('/').unwrap();
    let name = ObjectName::new(namespace, name);
    let labels = cluster.pods[&name].labels.clone();
    ObservedEnd::Pod(name, labels)
}

fn seen(from: ObservedEnd, to: ObservedEnd, port: u16) -> Observation {
    let times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"].map(str::to_owned);
    let port = (Protocol::Tcp, port);
    Observation {
        from,
        to,
        port,
        seen: times,
        egress: SideVerdicts::default(),
        ingress: SideVerdicts::default(),
    }
}

fn address(text: &str) -> ObservedEnd {
    ObservedEnd::Address(text.parse().unwrap())
}

fn peers(rules: &[AdvisedRule]) -> Vec<String> {
    let peer = |peer: &AdvisedPeer| match peer {
        AdvisedPeer::Workload(namespace, selector) => {
            let present = selector.labels.iter().map(|(key, value)| format!("{key}={value}"));
            let absent = selector.absent.iter().map(|key| format!("!{key}"));
            format!("{namespace}:{}", present.chain(absent).collect::<Vec<_>>().join(","))
        }
        AdvisedPeer::Block(AddressBlock { cidr, except }) => format!("{cidr} but {} blocks", except.len()),
    };
    let rule = |rule: &AdvisedRule| {
        let ports: Vec<String> = rule.ports.iter().map(|(at, number)| format!("{at}/{number}")).collect();
        format!("{} at {}", rule.peers.iter().map(peer).collect::<Vec<_>>().join(" "), ports.join(","))
    };
    rules.iter().map(rule).collect()
}

#[test]
fn a_selector_has_as_few_labels_as_tell_the_workload_from_others() {
    let sets = |sets: &[&[(&str, &str)]]| sets.iter().map(|set| labels(set)).collect::<Vec<_>>();
    let few = |own: &[(&str, &str)], others: &[&[(&str, &str)]]| {
        let selector = WorkloadSelector::among(&labels(own), sets(others).iter());
        let present = selector.labels.iter().map(|(key, value)| format!("{key}={value}"));
        present.chain(selector.absent.iter().map(|key| format!("!{key}"))).collect::<Vec<_>>().join(",")
    };
    let web: &[(&str, &str)] = &[("app", "web"), ("team", "a"), ("zone", "1")];
    assert_eq!(few(web, &[]), "app=web", "also without others");
    assert_eq!(few(web, &[&[("app", "db"), ("team", "a")]]), "app=web");
    assert_eq!(few(web, &[&[("app", "web"), ("team", "b"), ("zone", "1")]]), "team=a");
    let two: &[&[(&str, &str)]] = &[&[("app", "web"), ("team", "b")], &[("app", "db"), ("team", "a")]];
    assert_eq!(few(web, &[two[0], two[1], &[("zone", "1")]]), "app=web,team=a");
    assert_eq!(few(&[("app", "web")], &[&[("app", "web"), ("canary", "1")]]), "app=web,!canary");
    assert_eq!(few(&[], &[&[("app", "web")], &[("job", "x")]]), "!app,!job");
    assert_eq!(few(&[], &[]), "");
}

proptest! {
    /// Whatever labels the workloads of a namespace have, each selector matches its own alone.
    #[test]
    fn a_selector_matches_its_workload_and_no_other(
        sets in prop::collection::btree_set(
            prop::collection::btree_map("[a-d]", "[0-2]", 0..4), 1..20
        )
    ) {
        let sets: Vec<Labels> = sets
            .into_iter()
            .map(|set| Arc::new(set.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
            .collect();
        for own in &sets {
            let selector = Selector::from(&WorkloadSelector::among(own, sets.iter()));
            for set in &sets {
                prop_assert_eq!(selector.matches(set), set == own, "{:?} for {:?}", selector, own);
            }
        }
    }
}

#[test]
fn replicas_and_releases_are_one_workload_and_a_pod_that_is_gone_counts() {
    let replica = |name: &str, at: &str, hash: &str| {
        pod(name, "n1", &[at], &[("app", "web"), ("pod-template-hash", hash), ("version", hash)])
    };
    let cluster = cluster(vec![
        replica("x/web-1", "10.0.0.1", "1"),
        replica("x/web-2", "10.0.0.2", "2"),
        pod("x/db", "n1", &["10.0.0.3"], &[("app", "db")]),
    ]);
    let gone = ObservedEnd::Pod(ObjectName::new("y", "old-7"), labels(&[("app", "old"), ("version", "7")]));
    let observations = [
        seen(end(&cluster, "x/web-1"), end(&cluster, "x/db"), 5432),
        seen(gone, end(&cluster, "x/web-2"), 80),
    ];
    let advice = advise(&cluster, &observations, &AdviceScope::default());
    let [db, web] = &advice.policies[..] else { panic!("{advice:?}") };
    assert_eq!((db.name.to_string(), web.name.to_string()), ("x/advised-db".into(), "x/advised-web".into()));
    assert_eq!(
        (web.pods, peers(&web.egress), peers(&web.ingress)),
        (2, vec!["x:app=db at TCP/5432".to_owned()], vec!["y:app=old at TCP/80".to_owned()])
    );
    assert_eq!((peers(&db.egress), peers(&db.ingress)), (vec![], vec!["x:app=web at TCP/5432".to_owned()]));
    let replay = replay(&with_advice(&cluster, &advice), &observations);
    assert_eq!((replay.allowed, replay.denied.len(), replay.gone), (1, 0, 1));
}

#[test]
fn services_become_their_backends_and_dns_is_always_allowed() {
    let mut cluster = cluster(vec![
        pod("x/a", "n1", &["10.0.0.1"], &[("app", "a")]),
        pod("x/b", "n1", &["10.0.0.2"], &[("app", "b")]),
        pod("kube-system/dns", "n2", &["10.0.0.3"], &[("k8s-app", "kube-dns")]),
    ]);
    let add = |cluster: &mut Cluster, name: ObjectName, port: (Protocol, u16), to: (&[&str], u16)| {
        let service_port =
            ServicePort { name: "p".into(), protocol: port.0, number: port.1, node_port: None };
        let service = Service {
            name: name.clone(),
            proxy: Proxy::KubeProxy,
            cluster_addresses: vec![],
            external_addresses: vec![],
            internal_local: false,
            external_local: false,
            ports: vec![service_port],
            is_over_limit: false,
        };
        let slice = EndpointSlice {
            name: name.clone(),
            service: name.clone(),
            proxy: Proxy::KubeProxy,
            ports: vec![SlicePort { name: "p".into(), protocol: port.0, number: Some(to.1) }],
            endpoints: to.0.iter().map(|at| ready(at.parse().unwrap())).collect(),
        };
        cluster.services.insert(name.clone(), Arc::new(service));
        cluster.slices.insert(name, Arc::new(slice));
    };
    add(&mut cluster, ObjectName::new("x", "b"), (Protocol::Tcp, 80), (&["10.0.0.2", "192.0.2.7"], 8080));
    add(&mut cluster, ObjectName::new("kube-system", "kube-dns"), (Protocol::Udp, 53), (&["10.0.0.3"], 5353));
    let observations = [seen(end(&cluster, "x/a"), ObservedEnd::Service(ObjectName::new("x", "b")), 80)];
    let scope = AdviceScope { namespace: Some("x".into()), ..AdviceScope::default() };
    let advice = advise(&cluster, &observations, &scope);
    let [a, b] = &advice.policies[..] else { panic!("{advice:?}") };
    let dns = "kube-system:k8s-app=kube-dns at UDP/5353";
    assert_eq!(peers(&a.egress), ["x:app=b 192.0.2.7/32 but 0 blocks at TCP/8080", dns]);
    assert_eq!((peers(&b.ingress), peers(&b.egress)), (vec!["x:app=a at TCP/8080".into()], vec![dns.into()]));
}

#[test]
fn few_addresses_are_listed_and_many_become_networks() {
    let cluster = cluster(vec![pod("x/a", "n1", &["10.0.0.1", "fd00::1"], &[("app", "a")])]);
    let to = |addresses: Vec<String>| {
        let observations: Vec<_> =
            addresses.iter().map(|at| seen(end(&cluster, "x/a"), address(at), 443)).collect();
        let advice = advise(&cluster, &observations, &AdviceScope::default());
        assert_eq!(replay(&with_advice(&cluster, &advice), &observations).denied, []);
        peers(&advice.policies[0].egress).join("; ")
    };
    assert_eq!(to(vec!["192.0.2.1".into()]), "192.0.2.1/32 but 0 blocks at TCP/443");
    assert_eq!(
        to(vec!["192.0.2.2".into(), "192.0.2.3".into(), "2001:db8::1".into()]),
        "192.0.2.2/31 but 0 blocks 2001:db8::1/128 but 0 blocks at TCP/443"
    );
    let many = (0..17).map(|at| format!("198.51.{at}.1")).collect();
    assert_eq!(to(many), "0.0.0.0/0 but 5 blocks at TCP/443");
    let inner = (0..17).map(|at| format!("10.1.2.{at}")).collect();
    assert_eq!(to(inner), "10.1.2.0/24 but 0 blocks at TCP/443");
}

#[test]
fn a_workload_on_a_node_that_was_not_seen_gets_no_policy() {
    let cluster = cluster(vec![
        pod("x/a", "n1", &["10.0.0.1"], &[("app", "a")]),
        pod("x/a2", "n2", &["10.0.0.2"], &[("app", "a")]),
        pod("x/b", "n1", &["10.0.0.3"], &[("app", "b")]),
    ]);
    let scope = AdviceScope { unseen_nodes: ["n2".into()].into(), ..AdviceScope::default() };
    let advice = advise(&cluster, &[], &scope);
    assert_eq!(advice.left_out, [ObjectName::new("x", "advised-a")]);
    assert_eq!(advice.policies.iter().map(|it| it.name.to_string()).collect::<Vec<_>>(), ["x/advised-b"]);
}

/// Fifty workloads, of which each talks to some others at some ports: all that is allowed, and of the rest at
/// least 95 % is closed.
#[test]
fn what_was_meant_is_found_again_from_what_was_seen() {
    const WORKLOADS: usize = 50;
    const REPLICAS: usize = 3;
    const PORTS: [u16; 3] = [80, 443, 9090];
    let name = |workload: usize, replica: usize| format!("ns-{}/w{workload}-{replica}", workload % 5);
    let pods = (0..WORKLOADS).flat_map(|workload| {
        (0..REPLICAS).map(move |replica| {
            let at = format!("10.0.{workload}.{replica}");
            let app = format!("app-{}", workload / 10);
            let component = format!("part-{}", workload % 7);
            let hash = format!("{replica}");
            let own = [
                ("app", app.as_str()),
                ("component", component.as_str()),
                ("team", if workload % 2 == 0 { "blue" } else { "red" }),
                ("pod-template-hash", hash.as_str()),
            ];
            let own = &own[..if workload % 3 == 0 { 4 } else { 2 }];
            pod(&name(workload, replica), &format!("n{replica}"), &[&at], own)
        })
    });
    let cluster = cluster(pods.collect());
    let is_meant = |from: usize, to: usize| (from * 7 + to * 3).is_multiple_of(11) && from != to;
    let mut observations = Vec::new();
    for from in 0..WORKLOADS {
        for to in (0..WORKLOADS).filter(|to| is_meant(from, *to)) {
            // Not every replica was seen with every other one.
            let ends = [name(from, to % REPLICAS), name(to, from % REPLICAS)];
            let ends = ends.map(|name| end(&cluster, &name));
            let [from_end, to_end] = ends;
            observations.push(seen(from_end, to_end, PORTS[to % PORTS.len()]));
        }
    }
    let advice = advise(&cluster, &observations, &AdviceScope::default());
    let mut workloads: BTreeSet<Workload> = BTreeSet::new();
    workloads.extend(cluster.pods.values().map(|pod| (pod.name.namespace.clone(), lasting(&pod.labels))));
    assert_eq!(advice.policies.len(), workloads.len(), "one policy for each workload");
    let advised = with_advice(&cluster, &advice);
    let replay = replay(&advised, &observations);
    assert_eq!((replay.denied, replay.gone), (vec![], 0));
    assert!(replay.allowed > 200, "{}", replay.allowed);

    let ports: BTreeSet<PortSpec> = PORTS.map(|port| PortSpec::number(Protocol::Tcp, port)).into();
    let after = matrix(&advised, &ports);
    let observed: BTreeSet<(Workload, Workload, u16)> = observations
        .iter()
        .map(|Observation { from, to, port, .. }| {
            let workload = |end: &ObservedEnd| match end {
                ObservedEnd::Pod(name, labels) => (name.namespace.clone(), lasting(labels)),
                ObservedEnd::Service(_) | ObservedEnd::Address(_) => panic!("all ends are pods"),
            };
            (workload(from), workload(to), port.1)
        })
        .collect();
    let (mut unseen, mut closed) = (0, 0);
    for (spec, rows) in &after.ports {
        let crate::port_spec::Port::Number(number) = spec.port else { panic!("by number") };
        for (from, row) in rows {
            for (at, to) in after.pods.iter().enumerate() {
                let [from, to] = [from, to].map(|name| {
                    let (namespace, name) = name.split_once('/').unwrap();
                    let pod = &cluster.pods[&ObjectName::new(namespace, name)];
                    (pod.name.namespace.clone(), lasting(&pod.labels))
                });
                if from != to && !observed.contains(&(from, to, number)) {
                    unseen += 1;
                    closed += usize::from(row.0[at] == crate::matrix::PairVerdict::Denied);
                }
            }
        }
    }
    assert!(closed * 100 >= unseen * 95, "{closed} of {unseen} pairs that were not seen are closed");
}
