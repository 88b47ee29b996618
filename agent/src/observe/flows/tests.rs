//! Crafted events, from the kernel's bytes to lines.

mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use podgate_common::{Address, Direction, Outcome, PolicyId};
use podgate_core::{
    compiler::{CompileInput, Incremental, Site},
    fixtures::{cluster, policy},
    model::{Cluster, NetworkPolicy, ObjectName, Peers, Pod, PortRule, Ports, Rule},
};
use tokio::sync::broadcast;

use super::*;
use crate::{
    api::{FlowEnd, FlowFilter, FlowRecord},
    snapshot::Context,
};

const REVISION: u32 = 7;
const OWN: u32 = 11;
/// Kinds of flows that a history keeps.
const ROOM: usize = 4_096;

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
        name_tables: Arc::default(),
    }
}

fn no_names() -> NamesOfAddress {
    NamesOfAddress::new(|_, _| panic!("no pod has a table"))
}

/// An observer, and what evaluates packets.
struct Observing {
    observer: Observer,
    contexts: Contexts,
}

impl Observing {
    fn by(contexts: impl IntoIterator<Item = Context>) -> Self {
        let contexts = contexts.into_iter().fold(Contexts::default(), |known, new| known.with(new));
        let history = FlowHistory::new("n1".into(), ROOM);
        Self { observer: Observer::new("n1".into(), Denials::default(), history, no_names()), contexts }
    }

    /// In a second of its own.
    fn observe(&mut self, events: &[FlowEvent]) {
        self.observer.second.1 = 0;
        self.observer.observe(events, &self.contexts);
    }

    /// The decision that is made of an event.
    fn seen(&mut self, event: FlowEvent) -> Option<Arc<DecisionEvent>> {
        let mut live = self.observer.history.live();
        self.observe(&[event]);
        live.try_recv().ok()
    }

    fn past(&self, since: Option<Duration>) -> Vec<FlowRecord> {
        let (past, _) = self.observer.history.follow(FlowWindow { since, until: None });
        past.iter().map(FlowRecord::from).collect()
    }
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

fn summary(event: &DecisionEvent) -> String {
    let flow = FlowRecord::from(event);
    let name = |end: &FlowEnd| {
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
        let flow = Observing::by([context.clone()]).seen(event(direction, outcome, from, to)).unwrap();
        assert_eq!(summary(&flow), expected);
        assert_eq!((flow.source.port, flow.destination.port), (Some(40_000), Some(80)));
    }
}

#[test]
fn what_would_be_denied_names_the_policies_in_audit_mode() {
    let audited = NetworkPolicy { audit: true, ..policy("strict", Some(vec![]), None) };
    let context = context(REVISION, vec![audited, policy("web", Some(allows_80()), None)]);
    let (a, b) = (address(&context, "a"), address(&context, "b"));
    let mut observing = Observing::by([context]);
    let flow = observing.seen(event(Direction::Ingress, Outcome::WouldDeny, b, a)).unwrap();
    assert_eq!(summary(&flow), "would-deny would-deny x/b -> x/a [x/strict[]]");
    let flow = observing.seen(event(Direction::Ingress, Outcome::Allowed, b, a)).unwrap();
    assert_eq!(summary(&flow), "allowed allowed x/b -> x/a [x/web[1]]");
}

#[test]
fn a_packet_is_explained_by_what_evaluated_it() {
    let before = context(REVISION, vec![policy("old", Some(allows_80()), None)]);
    let after = context(REVISION + 1, vec![policy("new", Some(vec![]), None)]);
    let (a, b) = (address(&before, "a"), address(&before, "b"));
    let mut observing = Observing::by([before, after]);
    let mut ask = |revision, outcome| {
        let event = FlowEvent { revision, ..event(Direction::Ingress, outcome, b, a) };
        summary(&observing.seen(event).unwrap())
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
    let mut observing = Observing::by([context]);
    let good = event(Direction::Ingress, Outcome::Denied, b, a);
    for bad in [FlowEvent { outcome: 99, ..good }, FlowEvent { direction: 2, ..good }] {
        assert_eq!(observing.seen(bad), None);
    }
    // A veth that no one knows, addresses that could not be read, and a protocol without ports are flows.
    let nothing = Address::UNSPECIFIED;
    let unread = FlowEvent { ifindex: 99, source: nothing, destination: nothing, protocol: 47, ..good };
    let flow = observing.seen(unread).unwrap();
    assert_eq!(summary(&flow), "denied denied - -> - [] ?");
    assert_eq!((FlowRecord::from(&*flow).protocol.as_str(), flow.source.port), ("47", None));
    // Of ICMP the message is one: this is an echo request.
    let ping = FlowEvent { protocol: 1, source_port: 7, destination_port: 0, ..good };
    let flow = observing.seen(ping).unwrap();
    let record = FlowRecord::from(&*flow);
    assert_eq!((record.message.as_deref(), record.destination.port), (Some("8"), None));
    let filter = |message: &str| FlowFilter { message: Some(message.into()), ..FlowFilter::default() };
    assert_eq!(["8", "8/1"].map(|message| filter(message).matches(&record)), [true, false]);
    // Without any context there is nothing to say.
    assert_eq!(Observing::by([]).seen(good), None);
}

#[test]
fn what_is_alike_is_one_flow_and_who_is_slow_learns_so() {
    let context = context(REVISION, vec![]);
    let (a, b) = (address(&context, "a"), address(&context, "b"));
    let mut observing = Observing::by([context]);
    let (past, mut live) = observing.observer.history.follow(FlowWindow::default());
    assert_eq!(past.len(), 0);
    let event = event(Direction::Ingress, Outcome::NotIsolated, b, a);
    observing.observe(&vec![event; PER_SECOND as usize + 100]);
    let [alike] = &observing.past(None)[..] else { panic!("they are alike") };
    assert_eq!(alike.packets, u64::from(PER_SECOND));
    let counts = observing.observer.history.counts();
    assert_eq!((counts.allowed, counts.skipped), (u64::from(PER_SECOND), 100));
    let lagged = live.try_recv();
    assert!(matches!(lagged, Err(broadcast::error::TryRecvError::Lagged(lost)) if lost > 0), "{lagged:?}");
    let now = FlowClock::now().monotonic;
    observing.observe(&[FlowEvent { time: now, outcome: Outcome::Denied as u8, ..event }]);
    // All others are as old as the machine.
    let recent = observing.past(Some(Duration::from_secs(60)));
    let [recent] = &recent[..] else { panic!("{} are recent", recent.len()) };
    let denied = FlowFilter { denied: true, ..FlowFilter::default() };
    for (filter, matches) in [
        (FlowFilter { pod: Some("x/b".into()), ..denied.clone() }, true),
        (FlowFilter { pod: Some("x/c".into()), ..denied.clone() }, false),
        (FlowFilter { namespace: Some("x".into()), ..denied.clone() }, true),
        (FlowFilter { namespace: Some("y".into()), ..denied.clone() }, false),
        (FlowFilter { port: Some(80), protocol: Some("TCP".into()), ..denied.clone() }, true),
        (FlowFilter { port: Some(80), protocol: Some("UDP".into()), ..denied.clone() }, false),
        (FlowFilter { port: Some(81), ..denied.clone() }, false),
    ] {
        assert_eq!(filter.matches(recent), matches, "{filter:?}");
    }
    assert!(!denied.matches(&observing.past(None)[0]));
}

#[test]
fn a_scan_fills_neither_memory_nor_disk() {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &Path, limit| {
        let lost = LostLines::default();
        let (log, writer) = DenyLog::open(&LogTarget::File(path.to_owned()), limit, lost.clone()).unwrap();
        (Denials::new(Some(log), None), std::thread::spawn(|| writer.run()), lost)
    };
    let path = directory.path().join("denied.log");
    let (mut log, writing, lost) = open(&path, 100_000);
    let context = context(REVISION, vec![policy("deny", Some(vec![]), None)]);
    let a = address(&context, "a");
    let mut observing = Observing::by([context]);
    let start = Instant::now();
    let mut last = None;
    for port in 0..60_000_u32 {
        let source = IpAddr::from([198, 51, 100, u8::try_from(port % 200).unwrap()]);
        let event = FlowEvent {
            destination_port: u16::try_from(port).unwrap(),
            packets: 3,
            ..event(Direction::Ingress, Outcome::Denied, source, a)
        };
        last = observing.seen(event);
        log.add(last.as_ref().unwrap(), start);
    }
    drop(log);
    writing.join().unwrap();
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let rotated = directory.path().join("denied.log.1");
    assert!(size(&path) <= 100_000 && size(&rotated) <= 100_000 && size(&rotated) > 0);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    assert_eq!(lost.count(), 0);
    // What the first lines did not tell, the summaries do.
    let path = directory.path().join("all.log");
    let (mut log, writing, _) = open(&path, 1 << 30);
    let last = last.unwrap();
    for _ in 0..1_000 {
        log.add(&last, start);
    }
    for seconds in [30, 61, 200] {
        log.summarise(start + Duration::from_secs(seconds));
    }
    drop(log);
    writing.join().unwrap();
    let lines = fs::read_to_string(path).unwrap();
    let reported: Vec<FlowRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reported.iter().map(|flow| flow.packets).collect::<Vec<_>>(), [3, 2_997]);
}

#[test]
fn a_log_that_cannot_be_written_stops_no_thread() {
    let lost = LostLines::default();
    let (log, writer) = DenyLog::open(&LogTarget::File("/dev/full".into()), 1 << 20, lost.clone()).unwrap();
    log.write(&DecisionEvent::example());
    drop(log);
    writer.run();
    assert_eq!(lost.count(), 1, "a lost line is counted");
    let directory = tempfile::tempdir().unwrap();
    assert!(DenyLog::open(&LogTarget::File(directory.path().into()), 1, lost).is_err());
}

/// An output that takes nothing for as long as the receiver is not dropped.
struct Stuck(std::sync::mpsc::SyncSender<()>);

impl std::io::Write for Stuck {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_takes_no_line_keeps_no_reader_of_flows_waiting() {
    let context = context(REVISION, vec![policy("deny", Some(vec![]), None)]);
    let a = address(&context, "a");
    let (stuck, disk) = std::sync::mpsc::sync_channel(0);
    let lost = LostLines::default();
    let (log, writer) = DenyLog::to(Box::new(Stuck(stuck)), lost.clone());
    let writing = std::thread::spawn(|| writer.run());
    let history = FlowHistory::new("n1".into(), ROOM);
    let mut observing = Observing::by([context]);
    observing.observer =
        Observer::new("n1".into(), Denials::new(Some(log), None), history.clone(), no_names());
    // Each of its own kind, and more than the queue takes.
    let denied: Vec<FlowEvent> = (0..3 * PER_SECOND)
        .map(|number| FlowEvent {
            destination_port: u16::try_from(number).unwrap(),
            ..event(Direction::Ingress, Outcome::Denied, std::net::Ipv4Addr::from(number).into(), a)
        })
        .collect();
    let (done, seen) = std::sync::mpsc::channel();
    let observe = std::thread::spawn(move || {
        for denied in denied.chunks(PER_SECOND as usize) {
            observing.observe(denied);
        }
        done.send(()).unwrap();
        observing
    });
    let deadline = Duration::from_secs(60);
    seen.recv_timeout(deadline).expect("who reads the kernel's events does not wait for the disk");
    let (read, reads) = std::sync::mpsc::channel();
    std::thread::spawn(move || read.send((history.follow(FlowWindow::default()).0.len(), history.counts())));
    let (flows, counts) = reads.recv_timeout(deadline).expect("who reads flows does not wait for the disk");
    assert!(flows > ROOM / 2 && flows <= ROOM, "{flows}");
    assert_eq!(counts.denied, u64::from(3 * PER_SECOND));
    assert!(lost.count() > 0, "what does not fit is counted");
    drop(disk);
    drop(observe.join().unwrap());
    writing.join().unwrap();
}
