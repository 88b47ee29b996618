//! The history: what it merges, whom it forgets when it is full, and what the next agent knows.

use std::{collections::BTreeMap, fs, net::Ipv4Addr};

use podgate_core::model::{ObjectName, Pod, PolicyName};

use super::*;

const NODE: &str = "n1";

fn history(limit: usize) -> FlowHistory {
    FlowHistory::new(NODE.into(), limit)
}

fn at(second: usize) -> Timestamp {
    Timestamp::from_second(i64::try_from(second).unwrap()).unwrap()
}

/// A denied packet between two pods, to a port.
fn event(from: &str, to: &str, port: u16, second: usize) -> DecisionEvent {
    let mut event = DecisionEvent { time: at(second), ..DecisionEvent::example() };
    for (end, name) in [(&mut event.source, from), (&mut event.destination, to)] {
        let Some(EndOwner::Pod(pod)) = &mut end.owner else { panic!("the example is between pods") };
        *pod = Arc::new(Pod { name: ObjectName::new("x", name), ..(**pod).clone() });
    }
    event.destination.port = Some(port);
    event
}

fn records(history: &FlowHistory) -> Vec<FlowRecord> {
    history.follow(FlowWindow::default()).0.iter().map(FlowRecord::from).collect()
}

/// How many kinds each pod has as the one whose side was evaluated.
fn by_receiver(history: &FlowHistory) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records(history) {
        *counts.entry(record.destination.pod.unwrap()).or_default() += 1;
    }
    counts
}

#[test]
fn what_differs_in_time_and_client_port_alone_is_one_flow() {
    let history = history(100);
    for (second, port) in [(5, 40_000), (9, 40_001), (7, 40_002)] {
        let mut event = event("a", "b", 80, second);
        event.source.port = Some(port);
        event.packets = 2;
        history.add(event);
    }
    history.add(event("a", "b", 81, 6));
    let [other, flow] = &records(&history)[..] else { panic!("two kinds") };
    assert_eq!((&*other.time, &other.first), ("1970-01-01T00:00:06.000Z", &None));
    assert_eq!(
        (&*flow.time, flow.first.as_deref(), flow.packets, flow.source.port),
        ("1970-01-01T00:00:09.000Z", Some("1970-01-01T00:00:05.000Z"), 6, Some(40_001)),
        "the last packet's port is shown"
    );
}

#[test]
fn a_window_has_the_flows_that_reach_into_it() {
    let history = history(100);
    let ago = |seconds| Timestamp::now() - SignedDuration::from_secs(seconds);
    for (port, first, last) in [(1, 100, 90), (2, 100, 10), (3, 20, 10)] {
        for seconds in [first, last] {
            history.add(DecisionEvent { time: ago(seconds), ..event("a", "b", port, 0) });
        }
    }
    let ports = |since: Option<u64>, until: Option<u64>| {
        let [since, until] = [since, until].map(|age| age.map(Duration::from_secs));
        let (past, _) = history.follow(FlowWindow { since, until });
        let mut ports: Vec<u16> = past.iter().filter_map(|flow| flow.kind.port).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(ports(None, None), [1, 2, 3]);
    assert_eq!(ports(Some(50), None), [2, 3]);
    assert_eq!(ports(None, Some(50)), [1, 2]);
    assert_eq!(ports(Some(50), Some(50)), [2]);
}

/// Neither a scan from a pod, nor to a pod, nor from many addresses, takes another pod's past; and a pod that
/// is scanned keeps what others did with it.
#[test]
fn a_scan_drives_out_its_own_past_alone() {
    let history = history(1_000);
    for port in 0..50 {
        history.add(event("good", "victim", port, 1));
        history.add(event("other", "good", port, 1));
    }
    for port in 0..20_000 {
        history.add(event("bad", "victim", port, 100 + usize::from(port)));
        let mut from_outside = event("bad", "target", 80, 100 + usize::from(port));
        from_outside.source =
            EventEnd { address: Some(Ipv4Addr::from(u32::from(port)).into()), ..EventEnd::default() };
        history.add(from_outside);
    }
    let counts = by_receiver(&history);
    assert_eq!(counts["x/good"], 50);
    assert!(counts.values().sum::<usize>() <= 1_000, "{counts:?}");
    assert!(counts["x/victim"] > 300 && counts["x/target"] > 300, "{counts:?}");
    let kept = records(&history);
    let of_good = kept.iter().filter(|flow| flow.source.pod.as_deref() == Some("x/good")).count();
    assert_eq!(of_good, 50, "the victim's past with others");
    let newest = kept.iter().filter(|flow| flow.destination.port == Some(19_999)).count();
    assert_eq!(newest, 1, "of the scan the newest is kept");
}

#[test]
fn long_labels_and_many_policies_count_for_what_they_take() {
    let history = history(1_000);
    history.add(event("a", "b", 1, 1));
    for port in 0..100 {
        let mut large = event("large", "c", port, 2);
        let Some(EndOwner::Pod(pod)) = &mut large.source.owner else { panic!("a pod") };
        let labels =
            (0..1_000).map(|label| (Name::from(format!("label-{label}")), Name::from("x".repeat(63))));
        *pod = Arc::new(Pod { labels: Arc::new(labels.collect()), ..(**pod).clone() });
        history.add(large);
        let mut many = event("many", "d", port, 2);
        many.policies = (0..1_000)
            .map(|policy| DecidingPolicy {
                policy: PolicyName::Namespaced(ObjectName::new("x", format!("policy-{policy}"))),
                rules: vec![],
            })
            .collect();
        history.add(many);
    }
    let counts = by_receiver(&history);
    assert_eq!(counts["x/b"], 1);
    assert!(counts["x/c"] < 20 && counts["x/d"] < 20, "{counts:?}");
    assert!(history.lock().policies.len() < 20, "words of policies that no flow has are forgotten");
}

#[test]
fn the_next_agent_of_the_node_knows_the_past() {
    let directory = tempfile::tempdir().unwrap();
    let path = FlowHistory::path(directory.path());
    assert_eq!(history(100).restore(&path).unwrap(), 0, "without a file there is no past");
    let first = history(100);
    first.save(&path).unwrap();
    assert!(!path.exists(), "nothing has happened");
    for second in 1..=3 {
        first.add(event("a", "b", 80, second));
        first.add(event("b", "a", 53, second + 10));
    }
    let mut ping = event("a", "b", 1, 4);
    (ping.protocol, ping.message) = (1, Some(0x0301));
    ping.destination.port = None;
    first.add(ping);
    for (role, second) in [(NameRole::Allowed as fn(_) -> _, 5), (NameRole::Expired, 6)] {
        let names = Some(role(["*.example.com".to_owned()].into()));
        first.add(DecisionEvent { names, ..event("a", "b", 443, second) });
    }
    let names = Some(NameRole::Missing(crate::observe::MissingName::ResolverUntrusted));
    first.add(DecisionEvent { names, ..event("a", "b", 444, 8) });
    let mut odd = event("a", "b", 1, 7);
    odd.protocol = 47;
    odd.source = EventEnd { owner: Some(EndOwner::Node("n2".into())), ..EventEnd::default() };
    odd.destination.owner = Some(EndOwner::Service(ObjectName::new("x", "dns")));
    odd.destination.port = None;
    first.add(odd);
    first.save(&path).unwrap();
    let next = history(100);
    assert_eq!(next.restore(&path).unwrap(), 7);
    assert_eq!(records(&next), records(&first));
    next.add(event("a", "b", 80, 9));
    let merged = records(&next).into_iter().find(|flow| flow.destination.port == Some(80)).unwrap();
    assert_eq!((merged.packets, merged.first.as_deref()), (4, Some("1970-01-01T00:00:01.000Z")));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing unfinished is left");
}

#[test]
fn a_file_that_is_broken_or_of_another_node_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = FlowHistory::path(directory.path());
    let written = history(100);
    (0..50).for_each(|port| written.add(event("a", "b", port, 1)));
    written.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let other = FlowHistory::new("n2".into(), 100);
    assert!(format!("{:#}", other.restore(&path).unwrap_err()).contains("it is of node n1"));
    for broken in [&b""[..], b"{}", &whole[..whole.len() / 2], &[&whole[..whole.len() - 8], &[0; 8]].concat()]
    {
        fs::write(&path, broken).unwrap();
        let next = history(100);
        assert!(next.restore(&path).is_err(), "{} bytes", broken.len());
        assert_eq!(records(&next).len(), 0);
    }
}
