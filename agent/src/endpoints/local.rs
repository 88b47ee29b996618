//! The pods of one node, found in what changes: a pass must not walk over all pods of the cluster, nor ask
//! again who is behind which veth when nothing has changed that could tell.

use std::{collections::BTreeMap, sync::Arc};

use imbl::ordmap::DiffItem;
use podgate_core::model::{Cluster, Name, ObjectName, Pod};

/// The pods that have, or will have, a veth on a node.
#[derive(Clone, Debug)]
pub struct LocalPods {
    node: Name,
    /// As it was looked at last.
    cluster: Cluster,
    pods: BTreeMap<ObjectName, Arc<Pod>>,
}

impl LocalPods {
    pub fn new(node: Name) -> Self {
        Self { node, cluster: Cluster::default(), pods: BTreeMap::new() }
    }

    /// Goes on to another snapshot. Out: whether anything in it may tell otherwise than before who is behind
    /// which veth, or who could be isolated: all but other nodes' pods, services and other nodes.
    pub fn follow(&mut self, cluster: &Cluster) -> bool {
        let before = &self.cluster;
        let mut changed = before.nodes.get(&self.node) != cluster.nodes.get(&self.node)
            || before.namespaces.diff(&cluster.namespaces).next().is_some()
            || before.policies.diff(&cluster.policies).next().is_some()
            || before.cluster_policies.diff(&cluster.cluster_policies).next().is_some()
            || before.calico != cluster.calico;
        for difference in self.cluster.pods.diff(&cluster.pods) {
            changed |= match &difference {
                DiffItem::Add(_, pod) | DiffItem::Remove(_, pod) => self.may_be_local(pod),
                DiffItem::Update { old: (_, before), new: (_, now) } => {
                    self.may_be_local(before) || self.may_be_local(now)
                }
            };
            match difference {
                DiffItem::Add(name, pod) | DiffItem::Update { new: (name, pod), .. }
                    if self.is_local(pod) =>
                {
                    self.pods.insert(name.clone(), pod.clone());
                }
                DiffItem::Add(name, _)
                | DiffItem::Update { new: (name, _), .. }
                | DiffItem::Remove(name, _) => {
                    self.pods.remove(name);
                }
            }
        }
        self.cluster = cluster.clone();
        changed
    }

    pub const fn pods(&self) -> &BTreeMap<ObjectName, Arc<Pod>> {
        &self.pods
    }

    /// A pod without a node is taken at the word of whoever speaks for it.
    fn may_be_local(&self, pod: &Pod) -> bool {
        pod.node.as_ref().is_none_or(|node| *node == self.node)
    }

    fn is_local(&self, pod: &Pod) -> bool {
        pod.node.as_ref() == Some(&self.node) && !pod.host_network
    }
}

#[cfg(test)]
mod tests {
    use podgate_core::model::PodAddresses;

    use super::*;

    fn pod(name: &str, node: Option<&str>, host_network: bool) -> (ObjectName, Arc<Pod>) {
        let name = ObjectName::new("x", name);
        let (labels, ports) = (Arc::default(), Arc::default());
        let (node, addresses) = (node.map(Into::into), PodAddresses::new());
        (
            name.clone(),
            Arc::new(Pod {
                name,
                uid: None,
                service_account: None,
                labels,
                node,
                addresses,
                host_network,
                ports,
                host_ports: Box::default(),
                host: None,
            }),
        )
    }

    #[test]
    fn pods_that_come_go_and_move_are_followed() {
        let mut local = LocalPods::new("n1".into());
        for (pods, expected) in [
            (vec![pod("a", Some("n1"), false), pod("b", Some("n2"), false), pod("c", None, false)], "a"),
            (vec![pod("a", Some("n1"), false), pod("b", Some("n1"), false), pod("c", None, false)], "a b"),
            (vec![pod("a", Some("n2"), false), pod("b", Some("n1"), true), pod("c", Some("n1"), false)], "c"),
            (vec![], ""),
        ] {
            local.follow(&Cluster { pods: pods.into_iter().collect(), ..Cluster::default() });
            let names: Vec<&str> = local.pods().keys().map(|name| &*name.name).collect();
            assert_eq!(names.join(" "), expected);
        }
    }
}
