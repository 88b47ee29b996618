//! What administrators have written about the host endpoints of this node.
//!
//! In: the host endpoints, and the policies that select them. Out: a hash that is the same while they are.
//! What their rules refer to, such as pods, Services and network sets, is no part of it. Another build may
//! hash it otherwise: then it asks for a confirmation once more.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use podgate_core::model::{Cluster, HostTraffic, Labels};

use super::Hosts;

impl Hosts {
    /// Never 0.
    pub(super) fn written(&self, cluster: &Cluster) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut add = |text: String| text.hash(&mut hasher);
        add(format!("{:?}", self.options.failsafe));
        for (ifindex, device) in &self.devices {
            add(format!("{ifindex} {:?}", device.host));
        }
        cluster.calico.tiers().for_each(|tier| add(format!("{tier:?}")));
        let ends = || self.devices.values().flat_map(|it| HostTraffic::ALL.map(|of| it.host.end(of)));
        let none = Labels::default();
        let selecting = cluster
            .calico
            .policies_in(None)
            .filter(|policy| ends().any(|end| policy.subject.matches(&cluster.calico.labels_of(end, &none))));
        selecting.for_each(|policy| add(format!("{policy:?}")));
        hasher.finish() | 1
    }
}
