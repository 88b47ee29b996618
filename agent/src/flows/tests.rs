//! Crafted events, from the kernel's bytes to lines.

use std::{collections::BTreeSet, fs, net::IpAddr};

use podgate_common::{Address, Direction, Outcome, PolicyId};
use podgate_core::{
    compiler::{CompileInput, Incremental, Site},
    fixtures::{cluster, policy},
    model::{Cluster, NetworkPolicy, ObjectName, Peers, PortRule, Ports, Rule},
};

use super::*;

const REVISION: u32 = 7;
const OWN: u32 = 11;

/// What evaluates pod `x/a`, behind veth 11, by these policies.
fn context(revision: u32, policies: Vec<NetworkPolicy>) -> Context {
    context_of(revision, &cluster(policies))
}

fn context_of(revision: u32, cluster: &Cluster) -> Context {
    let subjects: BTreeMap<ObjectName, Arc<Pod>> =
        cluster.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
    let mut compiler = Incremental::default();
    let node: Name = "n1".into();
    let own_addresses = BTreeSet::new();
    let site = Some(Site { node: &node, own_addresses: &own_addresses });
    let step = CompileInput { cluster, site, subjects: &subjects, retained: &[] };
    compiler.compile(&step);
    let own = subjects[&ObjectName::new("x", "a")].clone();
    Context {
        revision,
        policy_snapshot: compiler.policy_snapshot(),
        pods: Arc::new(BTreeMap::from([(OWN, own)])),
    }
}

fn observer(contexts: impl IntoIterator<Item = Context>) -> Observer {
    let mut observer = Observer::new("n1".into(), None);
    contexts.into_iter().for_each(|context| observer.evaluated_by(context));
    observer
}

fn address(of: &Context, pod: &str) -> IpAddr {
    of.policy_snapshot.cluster().pods[&ObjectName::new("x", pod)].addresses[0]
}

/// TCP from `source` to port 80 of `destination`, as pod `x/a` saw it.
fn event(direction: Direction, outcome: Outcome, source: IpAddr, destination: IpAddr) -> FlowEvent {
    FlowEvent {
        time: 0,
        packets: 1,
        ifindex: OWN,
        policy: PolicyId(1),
        revision: REVISION,
        source: source.into(),
        destination: destination.into(),
        source_port: 40_000,
        destination_port: 80,
        protocol: 6,
        direction: direction as u8,
        outcome: outcome as u8,
    }
}

/// Rule 0 is for another port, rule 1 allows TCP 80 from everywhere.
fn allows_80() -> Vec<Rule> {
    let port = |number| Rule {
        peers: Peers::Any,
        ports: Ports::Listed(vec![PortRule::Range {
            protocol: podgate_common::Protocol::Tcp,
            first: number,
            last: number,
        }]),
    };
    vec![port(81), port(80)]
}

fn seen(observer: &mut Observer, event: FlowEvent) -> Option<Arc<FlowRecord>> {
    let flows = |observer: &Observer| {
        let ObserverCounts { allowed, denied, would_deny, .. } = observer.counts();
        allowed + denied + would_deny
    };
    let before = flows(observer);
    observer.observe(&[event]);
    observer.history.back().filter(|_| flows(observer) > before).cloned()
}

fn summary(flow: &FlowRecord) -> String {
    let name = |end: &crate::api::FlowEnd| {
        end.pod.clone().or(end.address.map(|at| at.to_string())).unwrap_or_else(|| "-".into())
    };
    let policies = flow.policies.iter().map(|it| format!("{}{:?}", it.policy, it.rules)).collect::<Vec<_>>();
    format!(
        "{} {} {} -> {} [{}]{}",
        flow.verdict,
        flow.reason,
        name(&flow.source),
        name(&flow.destination),
        policies.join(" "),
        if flow.certain { "" } else { " ?" }
    )
}

#[test]
fn a_flow_names_both_pods_and_who_decided() {
    let isolated = context(REVISION, vec![policy("deny", Some(vec![]), None)]);
    let opened = context(
        REVISION,
        vec![policy("deny", Some(vec![]), None), policy("web", Some(allows_80()), Some(vec![]))],
    );
    let free = context(REVISION, vec![]);
    let (a, b) = (address(&free, "a"), address(&free, "b"));
    let stranger = "192.0.2.9".parse().unwrap();
    let (into, out) = (Direction::Ingress, Direction::Egress);
    for (context, direction, outcome, [from, to], expected) in [
        (&isolated, into, Outcome::Denied, [b, a], "denied denied x/b -> x/a [x/deny[]]"),
        (&opened, into, Outcome::Allowed, [b, a], "allowed allowed x/b -> x/a [x/web[1]]"),
        (&opened, out, Outcome::Denied, [a, b], "denied denied x/a -> x/b [x/web[]]"),
        (&opened, into, Outcome::Allowed, [stranger, a], "allowed allowed 192.0.2.9 -> x/a [x/web[1]]"),
        (&free, into, Outcome::NotIsolated, [b, a], "allowed not-isolated x/b -> x/a []"),
        // The veth tells who sent it, not the address.
        (&free, out, Outcome::Spoofed, [stranger, b], "denied spoofed x/a -> x/b []"),
        (&free, into, Outcome::Pending, [b, a], "denied pending x/b -> x/a []"),
        (&isolated, into, Outcome::Fragment, [b, a], "denied fragment x/b -> x/a []"),
    ] {
        let mut observer = observer([context.clone()]);
        let flow = seen(&mut observer, event(direction, outcome, from, to)).unwrap();
        assert_eq!(summary(&flow), expected);
        assert_eq!((flow.source.port, flow.destination.port), (Some(40_000), Some(80)));
    }
}

#[test]
fn what_would_be_denied_names_the_policies_in_audit_mode() {
    let audited = NetworkPolicy { audit: true, ..policy("strict", Some(vec![]), None) };
    let context = context(REVISION, vec![audited, policy("web", Some(allows_80()), None)]);
    let (a, b) = (address(&context, "a"), address(&context, "b"));
    let mut observer = observer([context]);
    let flow = seen(&mut observer, event(Direction::Ingress, Outcome::WouldDeny, b, a)).unwrap();
    assert_eq!(summary(&flow), "would-deny would-deny x/b -> x/a [x/strict[]]");
    let flow = seen(&mut observer, event(Direction::Ingress, Outcome::Allowed, b, a)).unwrap();
    assert_eq!(summary(&flow), "allowed allowed x/b -> x/a [x/web[1]]");
}

#[test]
fn a_packet_is_explained_by_what_evaluated_it() {
    let before = context(REVISION, vec![policy("old", Some(allows_80()), None)]);
    let after = context(REVISION + 1, vec![policy("new", Some(vec![]), None)]);
    let (a, b) = (address(&before, "a"), address(&before, "b"));
    let mut observer = observer([before, after]);
    let mut ask = |revision, outcome| {
        let event = FlowEvent { revision, ..event(Direction::Ingress, outcome, b, a) };
        summary(&seen(&mut observer, event).unwrap())
    };
    assert_eq!(ask(REVISION, Outcome::Allowed), "allowed allowed x/b -> x/a [x/old[1]]");
    assert_eq!(ask(REVISION + 1, Outcome::Denied), "denied denied x/b -> x/a [x/new[]]");
    // The pod was switched a moment before the revision was raised.
    assert_eq!(ask(REVISION, Outcome::Denied), "denied denied x/b -> x/a [x/new[]]");
    assert_eq!(ask(REVISION + 1, Outcome::Allowed), "allowed allowed x/b -> x/a [x/old[1]]");
    // Nothing that is known accounts for it, and it says so.
    assert_eq!(ask(REVISION, Outcome::NotIsolated), "allowed not-isolated x/b -> x/a [x/old[1]] ?");
}

#[test]
fn what_the_programs_never_write_is_no_flow() {
    let context = context(REVISION, vec![]);
    let (a, b) = (address(&context, "a"), address(&context, "b"));
    let mut observer = observer([context]);
    let good = event(Direction::Ingress, Outcome::Denied, b, a);
    for bad in [FlowEvent { outcome: 99, ..good }, FlowEvent { direction: 2, ..good }] {
        assert_eq!(seen(&mut observer, bad), None);
    }
    // A veth that no one knows, addresses that could not be read, and a protocol without ports are flows.
    let nothing = Address::UNSPECIFIED;
    let unread = FlowEvent { ifindex: 99, source: nothing, destination: nothing, protocol: 47, ..good };
    let flow = seen(&mut observer, unread).unwrap();
    assert_eq!(summary(&flow), "denied denied - -> - [] ?");
    assert_eq!((flow.protocol.as_str(), flow.source.port), ("47", None));
    // Without any context there is nothing to say.
    assert_eq!(seen(&mut Observer::new("n".into(), None), good), None);
}

#[test]
fn the_past_is_short_and_who_is_slow_is_told_so() {
    let context = context(REVISION, vec![]);
    let (a, b) = (address(&context, "a"), address(&context, "b"));
    let mut observer = observer([context]);
    let (past, mut live) = observer.follow(&FlowFilter::default(), None, None);
    assert_eq!(past.len(), 0);
    let event = event(Direction::Ingress, Outcome::NotIsolated, b, a);
    observer.observe(&vec![event; PER_SECOND as usize + 100]);
    assert_eq!(observer.history.len(), PER_SECOND as usize);
    let counts = observer.counts();
    assert_eq!((counts.allowed, counts.skipped), (u64::from(PER_SECOND), 100));
    let lagged = live.try_recv();
    assert!(matches!(lagged, Err(broadcast::error::TryRecvError::Lagged(lost)) if lost > 0), "{lagged:?}");
    observer.second.1 = 0;
    for _ in 0..3 {
        observer.second.1 = 0;
        observer.observe(&vec![event; PER_SECOND as usize]);
    }
    assert_eq!(observer.history.len(), HISTORY);
    assert_eq!(observer.follow(&FlowFilter::default(), None, Some(5)).0.len(), 5);
    let denied = FlowFilter { denied: true, ..FlowFilter::default() };
    assert_eq!(observer.follow(&denied, None, None).0.len(), 0);
    observer.second.1 = 0;
    let now = FlowClock::now().monotonic;
    seen(&mut observer, FlowEvent { time: now, outcome: Outcome::Denied as u8, ..event });
    // All others are as old as the machine.
    assert_eq!(observer.follow(&FlowFilter::default(), Some(Duration::from_secs(60)), None).0.len(), 1);
    for (filter, expected) in [
        (FlowFilter { pod: Some("x/b".into()), ..denied.clone() }, 1),
        (FlowFilter { pod: Some("x/c".into()), ..denied.clone() }, 0),
        (FlowFilter { namespace: Some("x".into()), ..denied.clone() }, 1),
        (FlowFilter { namespace: Some("y".into()), ..denied.clone() }, 0),
        (FlowFilter { port: Some(80), protocol: Some("TCP".into()), ..denied.clone() }, 1),
        (FlowFilter { port: Some(80), protocol: Some("UDP".into()), ..denied.clone() }, 0),
        (FlowFilter { port: Some(81), ..denied.clone() }, 0),
    ] {
        assert_eq!(observer.follow(&filter, None, None).0.len(), expected, "{filter:?}");
    }
}

#[test]
fn a_scan_fills_neither_memory_nor_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("denied.log");
    let mut log = DenyLog::open(&LogTarget::File(path.clone()), 100_000).unwrap();
    let context = context(REVISION, vec![policy("deny", Some(vec![]), None)]);
    let a = address(&context, "a");
    let mut observer = observer([context]);
    let start = Instant::now();
    let mut packets = 0;
    for port in 0..60_000_u32 {
        observer.second.1 = 0;
        let source = IpAddr::from([198, 51, 100, u8::try_from(port % 200).unwrap()]);
        let event = FlowEvent {
            destination_port: u16::try_from(port).unwrap(),
            packets: 3,
            ..event(Direction::Ingress, Outcome::Denied, source, a)
        };
        log.add(&seen(&mut observer, event).unwrap(), start);
        packets += 3;
    }
    let size = |path: &std::path::Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let rotated = directory.path().join("denied.log.1");
    assert!(size(&path) <= 100_000 && size(&rotated) <= 100_000 && size(&rotated) > 0);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    // What the first lines did not tell, the summaries do.
    let mut log_to_end = DenyLog::open(&LogTarget::File(directory.path().join("all.log")), 1 << 30).unwrap();
    let last = observer.history.back().unwrap().clone();
    for _ in 0..1_000 {
        log_to_end.add(&last, start);
    }
    log_to_end.summarise(start + Duration::from_secs(30));
    log_to_end.summarise(start + Duration::from_secs(61));
    log_to_end.summarise(start + Duration::from_secs(200));
    let lines = fs::read_to_string(directory.path().join("all.log")).unwrap();
    let reported: Vec<FlowRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reported.iter().map(|flow| flow.packets).collect::<Vec<_>>(), [3, 2_997]);
    assert!(packets > 0 && log.unwritten() == 0);
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let mut log = DenyLog::open(&LogTarget::File("/dev/full".into()), 1 << 20).unwrap();
    let context = context(REVISION, vec![policy("deny", Some(vec![]), None)]);
    let (a, b) = (address(&context, "a"), address(&context, "b"));
    let flow = seen(&mut observer([context]), event(Direction::Ingress, Outcome::Denied, b, a)).unwrap();
    log.add(&flow, Instant::now());
    let deadline = Instant::now() + Duration::from_secs(30);
    while log.unwritten() != 1 {
        assert!(Instant::now() < deadline, "a lost line is counted");
        std::thread::yield_now();
    }
    let directory = tempfile::tempdir().unwrap();
    assert!(DenyLog::open(&LogTarget::File(directory.path().into()), 1).is_err());
}
