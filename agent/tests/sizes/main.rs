//! What objects of every size that the API takes, and of ten times that, cost: memory and time of the one who
//! reads and compiles them, and of a neighbour.
//!
//! Memory is what the allocator has given out at most. Time is the processor's of one thread: that the
//! machine is busy with other tests does not count.

mod calico;
mod clock;
mod crowd;
mod listing;
mod memory;
mod services;
mod shapes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podgate::source::{ClusterSnapshot, kube, manifests};
use podgate_common::{Direction, Protocol};
use podgate_core::{
    compiler::{
        CompileInput, CompiledTables, ConnectionQuery, Incremental, MatchCache, RuleSet, Site, WorkLimit,
    },
    memory::Memory,
    model::{Cluster, Name, ObjectName, Pod},
};
use serde_json::Value;

use self::{
    clock::cpu_time,
    crowd::crowd,
    memory::Peak,
    shapes::{HONEST, HOSTILE, Shape, cluster, honest_policy},
};

const MOST_MEMORY: usize = 150 << 20;
/// Of one pass.
const MOST_TIME: Duration = Duration::from_secs(1);
/// Of a change of someone else's policy.
const MOST_TIME_OF_NEIGHBOUR: Duration = Duration::from_millis(100);

/// Memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn an_object_of_any_size_and_of_ten_times_that_takes_less_than_150_mib_and_a_second() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for shape in Shape::ALL {
        for factor in [1, 10] {
            let objects = cluster(vec![shape.policy("large", factor)]);
            let peak = Peak::begin();
            let picture = read(&objects);
            let mut node = Node::default();
            let first = node.pass(&picture);
            // Once more from before, as after a change to it.
            let without = read(&cluster(Vec::new()));
            let (second, third) = (node.pass(&without), node.pass(&picture));
            let used = peak.end();
            println!("{shape:?} x{factor}: {} MiB, {first:?} {second:?} {third:?}", used >> 20);
            assert!(used < MOST_MEMORY, "{shape:?} x{factor}: {used} bytes");
            assert!(
                first.max(second).max(third) < MOST_TIME,
                "{shape:?} x{factor}: {first:?} {second:?} {third:?}"
            );
            assert!(node.isolates(HOSTILE), "{shape:?} x{factor} isolates its pod");
            assert!(node.allows(HONEST, 80), "{shape:?} x{factor}");
            assert!(!node.allows(HONEST, 81), "{shape:?} x{factor}");
        }
    }
}

#[test]
fn what_does_not_fit_is_a_problem_that_names_policy_limit_and_consequence() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (shape, limit) in [
        (Shape::Product, "16384 networks in ipBlocks"),
        (Shape::Excepts, "16384 networks in ipBlocks"),
        (Shape::RuleForEachPort, "512 groups of"),
        (Shape::RuleForEachBlock, "512 groups of addresses"),
        (Shape::Selectors, "1024 selectors of peers"),
    ] {
        let picture = read(&cluster(vec![shape.policy("large", 10)]));
        let problems: Vec<String> = picture.problems.iter().map(ToString::to_string).collect();
        let named = |problem: &String| {
            problem.contains("NetworkPolicy hostile/large: spec.ingress[")
                && problem.contains(limit)
                && problem.contains("allows nothing, and the policy isolates all the same")
        };
        assert!(problems.len() == 1 && problems.iter().all(named), "{shape:?}: {problems:?}");
    }
}

#[test]
fn twenty_large_objects_of_one_tenant_leave_the_changes_of_another_quick() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let large = (0..20).map(|at| Shape::ALL[at % Shape::ALL.len()].policy(&format!("large-{at}"), 1));
    let large: Vec<Value> = large.collect();
    let peak = Peak::begin();
    let pictures = changing(&read(&cluster(large)));
    let mut node = Node::default();
    let mut took: Vec<Duration> =
        (0..200).map(|round| node.pass(&pictures[round % pictures.len()])).collect();
    let first = took.remove(0);
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    println!("{} MiB, first pass {first:?}, then p99 {p99:?}", peak.end() >> 20);
    assert!(first < MOST_TIME, "{first:?}");
    assert!(p99 < MOST_TIME_OF_NEIGHBOUR, "{p99:?}");
}

#[test]
fn namespaces_that_together_tell_too_much_apart_are_closed_and_no_other_is() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for namespaces in [2, 20, 40] {
        let picture = read(&cluster(crowd(namespaces)));
        assert_eq!(picture.problems, [], "each fits by itself");
        let pictures = changing(&picture);
        let peak = Peak::begin();
        let mut node = Node::default();
        let mut took: Vec<Duration> =
            (0..40).map(|round| node.pass(&pictures[round % pictures.len()])).collect();
        let first = took.remove(0);
        took.sort();
        let (median, last, used) = (took[took.len() / 2], took[took.len() - 1], peak.end());
        let closed = node.tables().closed.len();
        println!(
            "{namespaces}: {} MiB, {closed} closed, first pass {first:?}, then {median:?}, {last:?}",
            used >> 20
        );
        assert_eq!(closed == 0, namespaces == 2, "{closed} of {namespaces}");
        assert!(used < MOST_MEMORY, "{used} bytes");
        assert!(first.max(last) < MOST_TIME, "{first:?}, {last:?}");
        assert!(node.isolates("hostile-0") && node.allows(HONEST, 80) && !node.allows(HONEST, 81));
        let rule_sets = |namespace| node.tables().subjects[&ObjectName::new(namespace, "a")].rule_sets();
        assert!(rule_sets(HONEST).iter().all(|rule_set| !node.tables().closed.contains(rule_set)));
    }
}

#[test]
fn a_scan_is_attributed_by_looking_at_each_identity_and_class_once() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let picture = read(&cluster(vec![Shape::RulesOfBlocksAndPorts.policy("large", 1)]));
    let mut node = Node::default();
    node.pass(&picture);
    let policy_snapshot = node.compiler.policy_snapshot();
    let pod = picture.cluster.pods[&ObjectName::new("hostile", "a")].clone();
    let all: Vec<(IpAddr, u16)> = (0..80_u8)
        .flat_map(|block| (0..80_u16).map(move |port| ([172, 16, block, 9].into(), 1_000 + 2 * port)))
        .collect();
    let mut cache = MatchCache::default();
    let mut is_left = |&(peer, port): &(IpAddr, u16), work: &mut WorkLimit| {
        let met = ConnectionQuery {
            pod: &pod,
            direction: Direction::Ingress,
            peer,
            protocol: Protocol::Tcp.into(),
            port,
            is_service: false,
            names: &[],
        };
        let matches = policy_snapshot.matches(&met, &mut cache, work);
        matches.iter().for_each(|matches| assert!(matches.iter().any(|matches| !matches.matched.is_empty())));
        matches.is_none()
    };
    let peak = Peak::begin();
    let cpu = cpu_time();
    // What a tick may spend.
    let mut work = WorkLimit::of(200_000);
    let left = all.iter().filter(|end| is_left(end, &mut work)).count();
    assert_eq!(left, 0, "of {} are left", all.len());
    println!("{:?}, {} kB", cpu_time() - cpu, peak.end() >> 10);
    assert!(cpu_time() - cpu < MOST_TIME);
}

#[test]
fn listing_pods_of_a_megabyte_each_takes_the_memory_of_a_page() {
    const PODS: usize = 300;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = listing::serve(PODS, 1_000_000);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kubeconfig");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&file, config.to_string()).expect("a file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let peak = Peak::begin();
    let pods = runtime.block_on(async {
        let kube::ApiConnection { client, .. } = kube::connect(Some(&file)).await.expect("a configuration");
        let (mut updates, _health) = kube::watch(&client, "n1".into(), true);
        updates.recv().await.expect("the watches go on").picture.cluster.pods.len()
    });
    let used = peak.end();
    println!("{} MiB for a list of {PODS} MB", used >> 20);
    assert_eq!(pods, PODS);
    assert!(used < MOST_MEMORY, "{used} bytes");
}

/// The same, each time with another policy of the honest tenant: limits are those of each namespace.
fn changing(picture: &ClusterSnapshot) -> Vec<ClusterSnapshot> {
    let with = |port| {
        let small = read(&[honest_policy("changing", port)]).cluster;
        let mut changed = Cluster::clone(&picture.cluster);
        changed.policies.extend(small.policies.iter().map(|(name, policy)| (name.clone(), policy.clone())));
        ClusterSnapshot { cluster: Arc::new(changed), ..picture.clone() }
    };
    (2_000..2_008).map(with).collect()
}

/// One node's compiler.
#[derive(Default)]
struct Node {
    compiler: Incremental,
    tables: Option<CompiledTables>,
}

impl Node {
    /// A change, and the step after it that makes the tables as coarse as they can be.
    fn pass(&mut self, picture: &ClusterSnapshot) -> Duration {
        let cluster: &Cluster = &picture.cluster;
        let (node, own_addresses): (Name, BTreeSet<IpAddr>) = ("n1".into(), BTreeSet::new());
        let subjects: BTreeMap<ObjectName, Arc<Pod>> =
            cluster.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
        let cpu = cpu_time();
        let before = self.tables.take();
        let in_force = before.iter().flat_map(|tables| tables.rule_sets.values());
        let retained: Vec<Arc<RuleSet>> =
            in_force.filter(|it| ***it != RuleSet::default()).cloned().collect();
        for retained in [&retained[..], &[]] {
            let site = Some(Site { node: &node, own_addresses: &own_addresses });
            let step = CompileInput { cluster, site, subjects: &subjects, retained };
            self.tables = Some(self.compiler.compile(&step).clone());
        }
        cpu_time() - cpu
    }

    fn tables(&self) -> &CompiledTables {
        self.tables.as_ref().expect("a pass was made")
    }

    fn isolates(&self, namespace: &str) -> bool {
        self.tables().subjects[&ObjectName::new(namespace, "a")].ingress != 0
    }

    /// Whether the pod of a namespace may be reached from outside.
    fn allows(&self, namespace: &str, port: u16) -> bool {
        let rule_set = self.tables().subjects[&ObjectName::new(namespace, "a")].ingress;
        Memory::new(self.tables()).allowed(rule_set, IpAddr::from([192, 0, 2, 1]), Protocol::Tcp, port)
    }
}

fn read(objects: &[Value]) -> ClusterSnapshot {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("objects.json");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    fs::write(&file, list.to_string()).expect("a file");
    drop(list);
    manifests::read(&[file])
}
