//! Policies and Services of which not everything fits the limits of their namespace, or the cluster's: what
//! becomes of them in a picture.
//!
//! In: a cluster. Out: the same, but for rules that do not fit, and with Services marked that do not
//! (`model/limits`), with a problem for each of these objects. Only namespaces in which one changed are
//! looked at.

mod calico;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use podgate_common::Direction;
use podgate_core::model::{
    Cluster, ClusterNetworkPolicy, ClusterPolicyName, Limit, Limited, MAX_FRONTENDS, MAX_FRONTENDS_OF_SMALL,
    Name, NetworkPolicy, ObjectName, Objects, SMALL_SERVICE, Service, limited, limited_of_cluster,
    services_over_limit,
};

use calico::CalicoLimits;

use super::{
    ValidationError,
    decode::{Kind, ObjectId},
};

#[derive(Debug, Default)]
pub(super) struct Limits {
    /// The policies as they are written, when they were looked at last.
    seen: Objects<ObjectName, NetworkPolicy>,
    seen_of_cluster: Objects<ClusterPolicyName, ClusterNetworkPolicy>,
    limited: BTreeMap<ObjectName, (Arc<NetworkPolicy>, ValidationError)>,
    limited_of_cluster: BTreeMap<ClusterPolicyName, (Arc<ClusterNetworkPolicy>, ValidationError)>,
    seen_services: Objects<ObjectName, Service>,
    services: BTreeMap<ObjectName, (Arc<Service>, ValidationError)>,
    calico: CalicoLimits,
}

impl Limits {
    /// Puts what fits in the place of what is written.
    pub(super) fn apply(&mut self, cluster: &mut Arc<Cluster>) {
        for namespace in changed(&self.seen, &cluster.policies) {
            self.limited.retain(|name, _| name.namespace != namespace);
            for limited in limited(cluster.policies_in(&namespace)) {
                let name = &limited.policy.name;
                let whose = format!("the policies of namespace {}", name.namespace);
                let problem = problem(&limited, format!("NetworkPolicy {name}"), &whose, OF_NAMESPACE);
                self.limited.insert(name.clone(), (limited.policy, problem));
            }
        }
        self.seen.clone_from(&cluster.policies);
        if self.seen_of_cluster.diff(&cluster.cluster_policies).next().is_some() {
            let limited = limited_of_cluster(cluster.cluster_policies.values()).into_iter().map(|limited| {
                let name = limited.policy.name.clone();
                let problem = problem(&limited, name.to_string(), "the cluster's policies", OF_CLUSTER);
                (name, (limited.policy, problem))
            });
            self.limited_of_cluster = limited.collect();
            self.seen_of_cluster.clone_from(&cluster.cluster_policies);
        }
        for namespace in changed(&self.seen_services, &cluster.services) {
            self.services.retain(|name, _| name.namespace != namespace);
            for service in services_over_limit(cluster.services_in(&namespace)) {
                let problem = problem_of_service(&service);
                self.services.insert(service.name.clone(), (service, problem));
            }
        }
        self.seen_services.clone_from(&cluster.services);
        let has_calico = self.calico.look(cluster);
        if !has_calico
            && self.limited.is_empty()
            && self.limited_of_cluster.is_empty()
            && self.services.is_empty()
        {
            return;
        }
        let cluster = Arc::make_mut(cluster);
        self.calico.apply(cluster);
        for (name, (policy, _)) in &self.limited {
            cluster.policies.insert(name.clone(), policy.clone());
        }
        for (name, (policy, _)) in &self.limited_of_cluster {
            cluster.cluster_policies.insert(name.clone(), policy.clone());
        }
        for (name, (service, _)) in &self.services {
            cluster.services.insert(name.clone(), service.clone());
        }
    }

    /// The objects of which not everything fitted when they were applied last.
    pub(super) fn problems(&self) -> impl Iterator<Item = (ObjectId, &ValidationError)> {
        let policies = self
            .limited
            .iter()
            .map(|(name, (_, problem))| (ObjectId::of_namespace(Kind::NetworkPolicy, name.clone()), problem));
        let services = self.services.iter();
        let services = services
            .map(|(name, (_, problem))| (ObjectId::of_namespace(Kind::Service, name.clone()), problem));
        policies.chain(services).chain(self.calico.problems()).chain(self.limited_of_cluster.iter().map(
            |(name, (_, problem))| {
                (ObjectId::of_cluster(Kind::ClusterPolicy(name.kind), name.name.clone()), problem)
            },
        ))
    }
}

/// The namespaces in which an object changed.
fn changed<T: PartialEq>(seen: &Objects<ObjectName, T>, now: &Objects<ObjectName, T>) -> BTreeSet<Name> {
    let differences = seen.diff(now).map(|difference| match difference {
        DiffItem::Add(name, _) | DiffItem::Update { new: (name, _), .. } | DiffItem::Remove(name, _) => {
            name.namespace.clone()
        }
    });
    differences.collect()
}

const OF_NAMESPACE: &str = "what does not fit allows nothing, and the policy isolates all the same";
const OF_CLUSTER: &str =
    "a rule that does not fit accepts nothing, or, if it does not accept, denies everything";

/// `whose`: who has the limit; `consequence`: what becomes of the rules.
fn problem<P>(
    Limited { policy: _, first: (direction, index), limit, rules }: &Limited<P>,
    object: String,
    whose: &str,
    consequence: &str,
) -> ValidationError {
    let list = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let (also, do_not) = match rules - 1 {
        0 => (String::new(), "does not"),
        more => (format!(", and {more} more rules,"), "do not"),
    };
    let limit: &Limit = limit;
    ValidationError {
        file: String::new(),
        object,
        field: format!("spec.{list}[{index}]"),
        message: format!("this rule{also} {do_not} fit: {whose} have more than {limit}; {consequence}"),
    }
}

fn problem_of_service(service: &Service) -> ValidationError {
    let Service { name, cluster_addresses, external_addresses, ports, .. } = service;
    let (own, external, ports) = (cluster_addresses.len(), external_addresses.len(), ports.len());
    let field = if external >= ports { "spec.externalIPs" } else { "spec.ports" };
    let is_small = (own + external) * ports <= SMALL_SERVICE;
    let (whose, limit) = match is_small {
        true => (" small", MAX_FRONTENDS_OF_SMALL),
        false => ("", MAX_FRONTENDS),
    };
    ValidationError {
        file: String::new(),
        object: format!("Service {name}"),
        field: field.to_owned(),
        message: format!(
            "{own} cluster addresses and {external} external ones with {ports} ports do not fit: the{whose} \
             Services of namespace {} have more than {limit} such pairs; what pods send to these addresses is \
             evaluated where it ends, not where it is sent",
            name.namespace
        ),
    }
}
