//! Which Services are the cluster's own DNS: by names that distributions use, in namespaces that only a
//! cluster's administrators write to.

use super::{Cluster, ObjectName, Service};

/// Namespaces and names under which distributions have the cluster's DNS service: Kubernetes' own manifests,
/// kubeadm, kops and the managed clusters; its chart; RKE2.
const SERVICES: [(&str, &str); 3] =
    [("kube-system", "kube-dns"), ("kube-system", "coredns"), ("kube-system", "rke2-coredns-rke2-coredns")];

/// OpenShift's. In other clusters who may create namespaces may create this one.
pub const OPENSHIFT_DNS: (&str, &str) = ("openshift-dns", "dns-default");

/// The kubelet of each node of OpenShift's has this label set.
pub const OPENSHIFT_NODE: &str = "node.openshift.io/os_id";

impl Cluster {
    /// The Services of the cluster's DNS.
    pub fn dns_services(&self) -> impl Iterator<Item = &Service> {
        let is_openshift = || self.nodes.values().any(|node| node.labels.get(OPENSHIFT_NODE).is_some());
        let names = SERVICES.into_iter().chain(is_openshift().then_some(OPENSHIFT_DNS));
        names.filter_map(|(namespace, name)| Some(&**self.services.get(&ObjectName::new(namespace, name))?))
    }
}
