//! Rules of Calico's that name Services, as their slices change.

use std::net::Ipv4Addr;

use podgate_common::Direction;

use super::*;
use crate::model::{
    CalicoEnds, CalicoPolicy, CalicoPolicyKind, CalicoPolicyName, CalicoRule, DEFAULT_TIER, EndpointSlice,
    EntityMatch, LabelExpression, LabelTest, PolicyScope, Proxy, SlicePort, TierOrder,
};

/// Egress of what has this label, to the endpoints of a Service.
fn naming(app: &str, service: &str) -> (CalicoPolicyName, Arc<CalicoPolicy>) {
    let peer = EntityMatch { service: Some(ObjectName::new("x", service)), ..EntityMatch::default() };
    let peers = Peers::Calico(Box::new(CalicoEnds { peer, ..CalicoEnds::default() }));
    let matches = Rule { peers, ports: Ports::Any };
    let kind = CalicoPolicyKind::NetworkPolicy;
    let name = CalicoPolicyName { namespace: Some("x".into()), name: app.into(), kind };
    let policy = CalicoPolicy {
        name: name.clone(),
        tier: DEFAULT_TIER.0.into(),
        order: TierOrder::LAST,
        subject: LabelExpression::Label("app".into(), LabelTest::In([app.into()].into())),
        ingress: None,
        egress: Some(vec![CalicoRule { action: Action::Accept, matches }]),
        audit: false,
        removes: false,
        scope: PolicyScope::Local,
    };
    (name, Arc::new(policy))
}

fn slice(service: &str, addresses: &[u8], port: u16) -> (ObjectName, Arc<EndpointSlice>) {
    let name = ObjectName::new("x", format!("{service}-a"));
    let slice = EndpointSlice {
        name: name.clone(),
        service: ObjectName::new("x", service),
        proxy: Proxy::KubeProxy,
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, number: Some(port) }],
        endpoints: addresses.iter().map(|at| fixtures::ready(address(*at))).collect(),
    };
    (name, Arc::new(slice))
}

fn address(at: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, at).into()
}

#[test]
fn a_slice_that_changes_concerns_the_rules_that_name_its_service_and_no_others() {
    let apps = ["a", "b", "c"];
    let pods = apps.iter().zip(1_u8..).map(|(app, at)| pod(app, &format!("10.0.0.{at}"), &[("app", app)]));
    let mut cluster = cluster(pods.collect(), vec![ingress("p", has("app", "c"), vec![])]);
    cluster.calico.v3.policies.extend([naming("a", "web"), naming("b", "other")]);
    cluster.slices.extend([slice("web", &[10], 80), slice("other", &[20], 80)]);
    let subjects: BTreeMap<ObjectName, Arc<Pod>> =
        cluster.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
    let mut incremental = Incremental::default();
    let mut step = |cluster: &Cluster| -> (Vec<String>, CompiledTables) {
        let input = CompileInput { cluster, site: None, subjects: &subjects, retained: &[] };
        let tables = incremental.compile(&input).clone();
        let names = incremental.reconsidered().iter().map(|name| name.name.to_string()).collect();
        (names, tables)
    };
    let allows = |tables: &CompiledTables, pod: &str, at: u8, port: u16| {
        let rule_set = tables.subjects[&ObjectName::new("x", pod)].egress;
        let class = tables.classes.class(Protocol::Tcp, port);
        let row = tables.rows.row(rule_set, tables.identities.identity(address(at)), class / 256);
        row.is_some_and(|row| row.0[class % 256 / 64] >> (class % 64) & 1 != 0)
    };
    let (names, tables) = step(&cluster);
    assert_eq!(names, apps);
    assert!(allows(&tables, "a", 10, 80) && !allows(&tables, "a", 10, 81) && !allows(&tables, "a", 20, 80));
    assert!(allows(&tables, "b", 20, 80) && !allows(&tables, "b", 10, 80));
    // Another address, another port, no slice.
    for (changed, expected) in [
        (Some(slice("web", &[10, 11], 80)), [(10, 80, true), (11, 80, true), (11, 81, false)]),
        (Some(slice("web", &[11], 81)), [(10, 80, false), (11, 80, false), (11, 81, true)]),
        (None, [(10, 80, false), (11, 80, false), (11, 81, false)]),
    ] {
        match changed {
            Some((name, slice)) => cluster.slices.insert(name, slice),
            None => cluster.slices.remove(&ObjectName::new("x", "web-a")),
        };
        let (names, tables) = step(&cluster);
        assert_eq!(names, ["a"]);
        for (at, port, allowed) in expected {
            assert_eq!(allows(&tables, "a", at, port), allowed, "{at} {port}");
        }
        assert!(allows(&tables, "b", 20, 80));
        let expected = compiled(&cluster);
        for pod in ["a", "b"] {
            for (at, port) in [(10, 80), (11, 80), (11, 81), (20, 80)] {
                assert_eq!(
                    allows(&tables, pod, at, port),
                    allows(&expected, pod, at, port),
                    "{pod} {at} {port}"
                );
            }
        }
    }
    // Whether an endpoint is ready is of no concern.
    cluster.slices.extend([slice("web", &[10], 80)]);
    step(&cluster);
    let (name, mut unready) = slice("web", &[10], 80);
    Arc::make_mut(&mut unready).endpoints[0].ready = false;
    cluster.slices.insert(name, unready);
    let (names, tables) = step(&cluster);
    assert_eq!(names, [""; 0]);
    assert!(allows(&tables, "a", 10, 80));
}

#[test]
fn addresses_that_slices_with_other_ports_list_again_are_at_the_ports_of_both() {
    let mut cluster = cluster(vec![pod("a", "10.0.0.1", &[("app", "a")])], vec![]);
    cluster.calico.v3.policies.extend([naming("a", "web")]);
    let (_, mut again) = slice("web", &[10, 11], 81);
    Arc::make_mut(&mut again).name = ObjectName::new("x", "web-b");
    cluster.slices.extend([slice("web", &[10, 11], 80), (again.name.clone(), again)]);
    let named_ports = BTreeMap::new();
    let compiler = RuleCompiler::new(&cluster, &named_ports);
    let policy = cluster.calico.policies().next().unwrap();
    let rule = &policy.egress.as_ref().unwrap()[0].matches;
    let pod = &cluster.pods[&ObjectName::new("x", "a")];
    let clause = compiler.clause_for(rule, None, pod, Direction::Egress);
    let ports = clause.ports.unwrap();
    assert!(ports.numbers.is_empty() && ports.named.len() == 1, "{ports:?}");
    let set = ports.named.values().next().unwrap();
    assert!(set.contains(Protocol::Tcp, 80) && set.contains(Protocol::Tcp, 81) && set.len() == 1);
}
