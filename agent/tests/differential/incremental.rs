//! The incremental compiler says what the pure one says, after every event of generated histories.
//!
//! A history goes from one generated cluster towards others, an object at a time: it appears, changes or is
//! gone, and now and then several at once, or everything. After each event the tables of both compilers are
//! compared by what they mean: indexes are replaced by what they stand for. Within a history no index may
//! change its meaning.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use podgate_common::{PrefixKey, Row, ServiceKey, ServiceVerdict};
use podgate_core::{
    address_filter::AddressFilter,
    compiler::{
        Backend, CompileInput, CompiledTables, Incremental, PortSignature, Rows, RuleSet, Signature, Site,
        TableLimits, compile_within,
    },
    model::{Cluster, Name, ObjectName, Objects, Pod, Service},
};
use podgate_testkit::{
    generate::{Entries, cluster, with_calico},
    manifest::{Form, write},
};
use proptest::{prelude::*, sample, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    answers::{Layout, read},
    runner::check,
};

const HISTORIES: u32 = 200;
const EVENTS: usize = 24;
const NODE: &str = "n1";

/// What happens: objects of a kind, or of all, become what they are in one of the clusters.
#[derive(Clone, Debug)]
struct Event {
    cluster: sample::Index,
    kind: Kind,
    /// Which object; `None`: all of the kind.
    object: Option<sample::Index>,
    /// Objects of more kinds follow before the next look.
    and_more: bool,
    /// Rule sets of the tables before are still in force.
    retains: bool,
    /// The node has one more address of its own.
    own_address: bool,
    /// Services that become what they are somewhere are over the limit.
    over_limit: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Namespaces,
    Pods,
    Policies,
    ClusterPolicies,
    Nodes,
    Services,
    Slices,
    CalicoPolicies,
    CalicoTiers,
    NetworkSets,
    ServiceAccounts,
}

type Sample = (Vec<Vec<Value>>, Vec<Event>, TableLimits);

fn samples() -> impl Strategy<Value = Sample> {
    let clusters = prop::collection::vec(cluster(Entries::Valid), 2..=3);
    (clusters, prop::collection::vec(events(&KINDS), 1..=EVENTS), limits())
}

/// With policies of Calico's.
fn samples_with_calico() -> impl Strategy<Value = Sample> {
    use Kind::{CalicoPolicies, CalicoTiers, NetworkSets, ServiceAccounts};
    let of_calico =
        [CalicoPolicies, CalicoPolicies, CalicoPolicies, CalicoTiers, NetworkSets, ServiceAccounts];
    let kinds: Vec<Kind> = KINDS.into_iter().chain(of_calico).collect();
    let clusters = prop::collection::vec(with_calico(cluster(Entries::Valid)), 2..=3);
    (clusters, prop::collection::vec(events(&kinds), 1..=EVENTS), limits())
}

/// Those of a node, and such that some rule sets are closed.
fn limits() -> impl Strategy<Value = TableLimits> {
    prop_oneof![
        Just(TableLimits::NODE),
        (1..8_usize).prop_map(|classes| TableLimits { classes, ..TableLimits::NODE }),
        (0..8_usize).prop_map(|memberships| TableLimits { memberships, ..TableLimits::NODE }),
        (1..8_usize).prop_map(|rows| TableLimits { rows, ..TableLimits::NODE }),
        (0..8_usize).prop_map(|labels| TableLimits { labels, ..TableLimits::NODE }),
    ]
}

const KINDS: [Kind; 10] = {
    use Kind::{ClusterPolicies, Namespaces, Nodes, Pods, Policies, Services, Slices};
    [Pods, Pods, Pods, Policies, Policies, Namespaces, ClusterPolicies, Nodes, Services, Slices]
};

fn events(kinds: &[Kind]) -> impl Strategy<Value = Event> + use<> {
    (
        any::<sample::Index>(),
        sample::select(kinds.to_vec()),
        prop::option::weighted(0.9, any::<sample::Index>()),
        prop::bool::weighted(0.2),
        any::<bool>(),
        prop::bool::weighted(0.1),
        any::<bool>(),
    )
        .prop_map(|(cluster, kind, object, and_more, retains, own_address, over_limit)| Event {
            cluster,
            kind,
            object,
            and_more,
            retains,
            own_address,
            over_limit,
        })
}

#[test]
fn each_step_of_the_incremental_compiler_gives_the_tables_of_the_pure_one() {
    check(HISTORIES, samples, agrees, describe);
}

#[test]
fn each_step_with_policies_of_calico_gives_the_tables_of_the_pure_one() {
    check(HISTORIES, samples_with_calico, agrees, describe);
}

fn describe((clusters, events, limits): &Sample) -> String {
    let clusters: Vec<String> = clusters.iter().map(|objects| write(objects, Form::YamlDocuments)).collect();
    format!("{limits:?}\n{events:#?}\n{}", clusters.join("\n=====\n"))
}

fn agrees((objects, events, limits): &Sample) -> Result<(), TestCaseError> {
    let clusters: Vec<Cluster> = objects
        .iter()
        .map(|objects| (*read(objects, Layout::File(Form::JsonList)).cluster).clone())
        .collect();
    let node: Name = NODE.into();
    let mut now = clusters[0].clone();
    let mut incremental = Incremental::within(*limits);
    let mut before: Option<CompiledTables> = None;
    for (number, event) in events.iter().enumerate() {
        if number > 0 {
            event.happen(&mut now, &clusters);
            if event.and_more {
                continue;
            }
        }
        let subjects: BTreeMap<ObjectName, Arc<Pod>> = now
            .pods
            .iter()
            .filter(|(_, pod)| pod.node.as_ref() == Some(&node))
            .map(|(name, pod)| (name.clone(), pod.clone()))
            .collect();
        let in_force = before.iter().filter(|_| event.retains).flat_map(|tables| tables.rule_sets.values());
        let retained: Vec<Arc<RuleSet>> =
            in_force.filter(|it| ***it != RuleSet::default()).cloned().collect();
        let mut own_addresses = BTreeSet::from([IpAddr::from([10, 10, 0, 1])]);
        if event.own_address {
            own_addresses.extend(now.pods.values().flat_map(|pod| &pod.addresses).take(1));
        }
        let site = Some(Site { node: &node, own_addresses: &own_addresses });
        let pods = subjects.values().map(Arc::as_ref);
        let expected = compile_within(limits, &now, site, pods, retained.iter().cloned());
        let step = CompileInput { cluster: &now, site, subjects: &subjects, retained: &retained };
        let tables = incremental.compile(&step).clone();
        let differing = Meaning::of(&tables).differing(&Meaning::of(&expected));
        prop_assert!(differing.is_none(), "after event {}: {}", number, differing.unwrap_or_default());
        is_tidy(&tables)?;
        if let Some(before) = &before {
            keeps_its_indexes(before, &tables)?;
        }
        before = Some(tables);
    }
    Ok(())
}

impl Event {
    fn happen(&self, now: &mut Cluster, clusters: &[Cluster]) {
        let goal = self.cluster.get(clusters);
        match self.kind {
            Kind::Namespaces => self.put(&mut now.namespaces, &goal.namespaces),
            Kind::Pods => self.put(&mut now.pods, &goal.pods),
            Kind::Policies => self.put(&mut now.policies, &goal.policies),
            Kind::ClusterPolicies => self.put(&mut now.cluster_policies, &goal.cluster_policies),
            Kind::Nodes => self.put(&mut now.nodes, &goal.nodes),
            Kind::Services if self.over_limit => self.put(&mut now.services, &over_limit(&goal.services)),
            Kind::Services => self.put(&mut now.services, &goal.services),
            Kind::Slices => self.put(&mut now.slices, &goal.slices),
            Kind::CalicoPolicies => self.put(&mut now.calico.v3.policies, &goal.calico.v3.policies),
            Kind::CalicoTiers => self.put(&mut now.calico.v1.tiers, &goal.calico.v1.tiers),
            Kind::NetworkSets => self.put(&mut now.calico.v3.network_sets, &goal.calico.v3.network_sets),
            Kind::ServiceAccounts => {
                self.put(&mut now.calico.service_accounts, &goal.calico.service_accounts);
            }
        }
    }

    fn put<K: Ord + Clone, V>(&self, now: &mut Objects<K, V>, goal: &Objects<K, V>) {
        let Some(object) = self.object else {
            *now = goal.clone();
            return;
        };
        let names: BTreeSet<&K> = now.keys().chain(goal.keys()).collect();
        if names.is_empty() {
            return;
        }
        let names: Vec<K> = names.into_iter().cloned().collect();
        let name = object.get(&names);
        match goal.get(name) {
            Some(object) => now.insert(name.clone(), object.clone()),
            None => now.remove(name),
        };
    }
}

fn over_limit(services: &Objects<ObjectName, Service>) -> Objects<ObjectName, Service> {
    let over_limit = |service: &Service| Service { is_over_limit: true, ..service.clone() };
    services.iter().map(|(name, service)| (name.clone(), Arc::new(over_limit(service)))).collect()
}

/// Tables with contents in the place of indexes.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    subjects: BTreeMap<ObjectName, [Arc<RuleSet>; 4]>,
    rule_sets: BTreeSet<Arc<RuleSet>>,
    closed: BTreeSet<Arc<RuleSet>>,
    addresses: BTreeMap<IpAddr, Arc<Signature>>,
    prefixes: BTreeMap<PrefixKey, Arc<Signature>>,
    ports: Vec<Vec<(u16, PortSignature)>>,
    allowed: Verdicts,
    denied_on_own_node: Verdicts,
    covering_own_node: BTreeSet<Arc<RuleSet>>,
    frontends: BTreeMap<ServiceKey, BTreeSet<Behind>>,
    services: BTreeMap<(Arc<RuleSet>, BTreeSet<Behind>), ServiceVerdict>,
    leave_node: bool,
    filter: AddressFilter,
}

/// The classes of ports by rule set and identity.
type Verdicts = BTreeMap<(Arc<RuleSet>, Arc<Signature>), BTreeSet<PortSignature>>;

/// A backend: its kind, identity and class, and the egress rule set of a local one.
type Behind = (&'static str, Arc<Signature>, PortSignature, Option<[Arc<RuleSet>; 2]>);

impl Meaning {
    fn of(tables: &CompiledTables) -> Self {
        let rule_set = |index: &usize| tables.rule_sets[index].clone();
        let signature = |index: &usize| tables.identities.signatures[index].clone();
        let class = |index: usize| tables.classes.signatures[index].clone();
        let used = used(tables);
        let verdicts = |rows: &imbl::OrdMap<(usize, usize), Arc<[Row]>>| -> Verdicts {
            let used = rows.iter().filter(|((_, identity), _)| used.contains(identity));
            let verdicts = used.map(|((of, identity), blocks)| {
                let has = |class: &usize| blocks[class / 256].0[class % 256 / 64] >> (class % 64) & 1 != 0;
                let classes = (0..tables.classes.signatures.len()).filter(has).map(class);
                ((rule_set(of), signature(identity)), classes.collect::<BTreeSet<_>>())
            });
            verdicts.filter(|(_, classes)| !classes.is_empty()).collect()
        };
        let backends = |place: &usize| backends(tables, place);
        let Rows { allowed, denied_on_own_node, covering_own_node } = &tables.rows;
        Self {
            subjects: tables
                .subjects
                .iter()
                .map(|(name, subject)| (name.clone(), subject.rule_sets().map(|index| rule_set(&index))))
                .collect(),
            rule_sets: tables.rule_sets.values().cloned().collect(),
            closed: tables.closed.iter().map(rule_set).collect(),
            addresses: tables.identities.addresses.iter().map(|(at, id)| (*at, signature(id))).collect(),
            prefixes: tables.identities.prefixes.iter().map(|(at, id)| (*at, signature(id))).collect(),
            ports: tables
                .classes
                .runs
                .iter()
                .map(|runs| runs.iter().map(|(first, at)| (*first, class(*at))).collect())
                .collect(),
            allowed: verdicts(allowed),
            denied_on_own_node: verdicts(denied_on_own_node),
            covering_own_node: covering_own_node.iter().map(rule_set).collect(),
            frontends: tables.services.frontends.iter().map(|(key, place)| (*key, backends(place))).collect(),
            services: tables
                .services
                .verdicts
                .iter()
                .map(|((of, place), verdict)| ((rule_set(of), backends(place)), *verdict))
                .collect(),
            leave_node: tables.services.leave_node,
            filter: tables.services.filter.clone(),
        }
    }
}

impl Meaning {
    /// What differs first.
    fn differing(&self, expected: &Self) -> Option<String> {
        let parts = |it: &Self| {
            let Self { subjects, rule_sets, closed, addresses, prefixes, ports, .. } = it;
            let Self { allowed, denied_on_own_node, covering_own_node, .. } = it;
            let Self { frontends, services, leave_node, filter, .. } = it;
            [
                format!("subjects {subjects:#?}"),
                format!("rule sets {rule_sets:#?}"),
                format!("closed {closed:#?}"),
                format!("addresses {addresses:#?}"),
                format!("prefixes {prefixes:#?}"),
                format!("ports {ports:#?}"),
                format!("allowed {allowed:#?}"),
                format!("denied on its own node {denied_on_own_node:#?}"),
                format!("covering their own node {covering_own_node:#?}"),
                format!("fronts {frontends:#?}"),
                format!("services {services:#?}"),
                format!("may leave the node: {leave_node}"),
                format!("filter: {filter:?}"),
            ]
        };
        if self == expected {
            return None;
        }
        let both = parts(self).into_iter().zip(parts(expected));
        both.filter(|(seen, expected)| seen != expected)
            .map(|(seen, expected)| format!("seen {seen}\nexpected {expected}"))
            .next()
    }
}

fn backends(tables: &CompiledTables, place: &usize) -> BTreeSet<Behind> {
    let signature = |index: usize| tables.identities.signatures[&index].clone();
    let class = |index: usize| tables.classes.signatures[index].clone();
    let backends = tables.services.backends[place].iter().map(|backend| match *backend {
        Backend::Node { identity, class: at } => ("node", signature(identity), class(at), None),
        Backend::Local { identity, class: at, egress } => (
            "local",
            signature(identity),
            class(at),
            Some(egress.map(|index| tables.rule_sets[&index].clone())),
        ),
        Backend::Elsewhere { identity, class: at } => ("elsewhere", signature(identity), class(at), None),
        Backend::Untranslated => ("untranslated", Arc::default(), class(0), None),
        Backend::Unlisted => ("unlisted", Arc::default(), class(0), None),
    });
    backends.collect()
}

/// The identities that some address has.
fn used(tables: &CompiledTables) -> BTreeSet<usize> {
    let identities = &tables.identities;
    identities.addresses.values().chain(identities.prefixes.values()).copied().chain([0]).collect()
}

/// Nothing is kept that no packet can meet.
fn is_tidy(tables: &CompiledTables) -> Result<(), TestCaseError> {
    let identities: BTreeSet<usize> = tables.identities.signatures.keys().copied().collect();
    prop_assert_eq!(&identities, &used(tables));
    for (rule_set, identity) in tables.rows.allowed.keys().chain(tables.rows.denied_on_own_node.keys()) {
        prop_assert!(tables.rule_sets.contains_key(rule_set), "a row of no rule set");
        prop_assert!(identities.contains(identity), "a row of no identity");
    }
    for rule_set in &tables.rows.covering_own_node {
        prop_assert!(tables.rule_sets.contains_key(rule_set), "a rule set that is gone");
    }
    let places: BTreeSet<usize> = tables.services.backends.keys().copied().collect();
    let led_to: BTreeSet<usize> = tables.services.frontends.values().copied().chain([0]).collect();
    prop_assert_eq!(&places, &led_to);
    for (rule_set, place) in tables.services.verdicts.keys() {
        prop_assert!(tables.rule_sets.contains_key(rule_set), "a verdict of no rule set");
        prop_assert!(places.contains(place), "a verdict on nothing");
    }
    Ok(())
}

fn keeps_its_indexes(before: &CompiledTables, after: &CompiledTables) -> Result<(), TestCaseError> {
    prop_assert!(before.series.is(&after.series));
    for (index, content) in &before.rule_sets {
        prop_assert!(after.rule_sets.get(index).is_none_or(|now| now == content), "rule set {}", index);
    }
    for (index, content) in &before.identities.signatures {
        let now = after.identities.signatures.get(index);
        prop_assert!(now.is_none_or(|now| now == content), "identity {}", index);
    }
    for index in before.services.backends.keys().filter(|index| after.services.backends.contains_key(*index))
    {
        prop_assert_eq!(backends(before, index), backends(after, index), "services {}", index);
    }
    Ok(())
}
