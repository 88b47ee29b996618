//! The proof: with the advised policies in force, each connection that was observed is asked about again.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Advice, AdvisedPeer, AdvisedPolicy, AdvisedRule, Observation, ObservedEnd, WorkloadSelector, lasting,
};
use crate::{
    explain::{EndpointRef, Question, Verdict, explain},
    model::{
        Cluster, IpBlock, Labels, NAMESPACE_NAME_LABEL, Name, NetworkPolicy, ObjectName, Peer, Peers,
        PortRule, Ports, Requirement, Rule, Selector,
    },
    port_spec::PortSpec,
};

/// What became of the observed connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// So many questions were answered with yes.
    pub allowed: usize,
    /// Those that the policies would deny.
    pub denied: Vec<Question>,
    /// So many have an end of which nothing is left that could be asked about.
    pub gone: usize,
}

/// The cluster with the advised policies in force.
pub fn with_advice(cluster: &Cluster, advice: &Advice) -> Cluster {
    let mut advised = cluster.clone();
    for policy in &advice.policies {
        let policy = NetworkPolicy::from(policy);
        advised.policies.insert(policy.name.clone(), Arc::new(policy));
    }
    advised
}

/// Asks about each observed connection in a cluster with advised policies.
pub fn replay(cluster: &Cluster, observations: &[Observation]) -> Replay {
    let mut replay = Replay::default();
    let mut questions = BTreeSet::new();
    for Observation { from, to, port: (protocol, number), .. } in observations {
        let ends = [from, to].map(|end| end_ref(cluster, end));
        let [Some(from), Some(to)] = ends else {
            replay.gone += 1;
            continue;
        };
        questions.insert((from.to_string(), to.to_string(), PortSpec::number(*protocol, *number)));
    }
    for (from, to, port) in questions {
        let [Ok(from), Ok(to)] = [from.parse(), to.parse()] else { continue };
        let question = Question { from, to, port };
        match explain(cluster, &question) {
            Ok(explanation) if explanation.verdict == Verdict::Allow => replay.allowed += 1,
            Ok(_) => replay.denied.push(question),
            Err(_) => replay.gone += 1,
        }
    }
    replay
}

/// The end itself, or a pod of the same workload in the place of one that is gone.
fn end_ref(cluster: &Cluster, end: &ObservedEnd) -> Option<EndpointRef> {
    match end {
        ObservedEnd::Pod(name, _) if cluster.pods.contains_key(name) => Some(EndpointRef::Pod(name.clone())),
        ObservedEnd::Pod(name, labels) => another(cluster, name, labels).map(EndpointRef::Pod),
        ObservedEnd::Service(name) => Some(EndpointRef::Service(name.clone())),
        ObservedEnd::Address(address) => Some(EndpointRef::Address(*address)),
    }
}

fn another(cluster: &Cluster, name: &ObjectName, labels: &Labels) -> Option<ObjectName> {
    let labels = lasting(labels);
    let pods = cluster.pods.range(ObjectName::new(name.namespace.clone(), "")..);
    let mut pods = pods.take_while(|(pod, _)| pod.namespace == name.namespace);
    pods.find(|(_, pod)| !pod.host_network && lasting(&pod.labels) == labels).map(|(name, _)| name.clone())
}

impl From<&AdvisedPolicy> for NetworkPolicy {
    fn from(AdvisedPolicy { name, subject, ingress, egress, .. }: &AdvisedPolicy) -> Self {
        let rules = |rules: &[AdvisedRule]| Some(rules.iter().map(|rule| rule_of(name, rule)).collect());
        Self {
            name: name.clone(),
            subject: subject.into(),
            ingress: rules(ingress),
            egress: rules(egress),
            audit: false,
        }
    }
}

fn rule_of(policy: &ObjectName, AdvisedRule { peers, ports }: &AdvisedRule) -> Rule {
    let peer = |peer: &AdvisedPeer| match peer {
        AdvisedPeer::Workload(namespace, pods) => Peer::Pods {
            namespaces: (*namespace != policy.namespace)
                .then(|| Selector::All(vec![is(&NAMESPACE_NAME_LABEL.into(), namespace)])),
            pods: pods.into(),
        },
        AdvisedPeer::Block(block) => {
            Peer::Block(IpBlock { cidr: block.cidr, except: block.except.iter().copied().collect() })
        }
    };
    let port = |(protocol, number): &(_, u16)| PortRule::Range {
        protocol: *protocol,
        first: *number,
        last: *number,
    };
    Rule {
        peers: Peers::Listed(peers.iter().map(peer).collect()),
        ports: Ports::Listed(ports.iter().map(port).collect()),
    }
}

fn is(key: &Name, value: &Name) -> Requirement {
    Requirement::In(key.clone(), [value.clone()].into_iter().collect())
}

impl From<&WorkloadSelector> for Selector {
    fn from(WorkloadSelector { labels, absent }: &WorkloadSelector) -> Self {
        let present = labels.iter().map(|(key, value)| is(key, value));
        Self::All(present.chain(absent.iter().cloned().map(Requirement::DoesNotExist)).collect())
    }
}
