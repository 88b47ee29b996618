//! Pods that should be isolated and are not.
//!
//! In: what is known after a pass. Out: each such pod with the reason, once that has lasted: a pod that is
//! just coming or going is none. They are found again every second, logged when they come and when they are
//! gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use podgate_core::{
    model::{Cluster, ObjectName, Pod},
    policy_walk::OrderedPolicies,
};
use podgate_datapath::{DeviceRole, ProgramOrder, network::device_kind};

use super::Reconciler;
use crate::{
    endpoints::{InterfaceState, cni::CniResults},
    snapshot::{Unenforced, UnenforcedReason},
};

/// How long a pod must be unenforced to be reported: less than that, it is starting or ending.
const LASTING: Duration = Duration::from_secs(2);

/// What is found now, and since when.
#[derive(Debug, Default)]
pub(super) struct UnenforcedPods {
    found: BTreeMap<ObjectName, Unenforced>,
    reported: BTreeSet<ObjectName>,
    /// Pods that had a veth since they came.
    placed: BTreeSet<ObjectName>,
}

/// What changed.
#[derive(Debug, Default)]
pub struct Attention {
    /// There must be a pass.
    pub pass: bool,
    /// Others are unenforced than before.
    pub changed: bool,
    /// Those that were not before.
    pub new: Vec<(ObjectName, Unenforced)>,
}

impl UnenforcedPods {
    pub(super) fn reported(&self) -> impl Iterator<Item = (&ObjectName, &Unenforced)> {
        self.found.iter().filter(|(pod, _)| self.reported.contains(*pod))
    }

    /// `now_found` are those of this moment.
    fn follow(
        &mut self,
        now_found: BTreeMap<ObjectName, (UnenforcedReason, String)>,
        now: Instant,
    ) -> (bool, Vec<(ObjectName, Unenforced)>) {
        let mut before = std::mem::take(&mut self.found);
        let (mut changed, mut new) = (false, Vec::new());
        for (pod, (reason, detail)) in now_found {
            let known = before.remove(&pod);
            let since = known.as_ref().map_or(now, |known| known.since);
            let unenforced = Unenforced { reason, detail, since };
            let lasts = now.saturating_duration_since(since) >= LASTING;
            let is_news = known.is_none_or(|known| known.reason != reason) || !self.reported.contains(&pod);
            if lasts && is_news {
                let detail = &unenforced.detail;
                tracing::warn!(%pod, %reason, "should be isolated and is not: {detail}");
                self.reported.insert(pod.clone());
                new.push((pod.clone(), unenforced.clone()));
                changed = true;
            }
            self.found.insert(pod, unenforced);
        }
        for pod in before.into_keys().filter(|pod| self.reported.remove(pod)) {
            tracing::info!(%pod, "no longer unenforced: isolated now, or gone");
            changed = true;
        }
        (changed, new)
    }
}

impl Reconciler {
    /// Looks at what can change without an event: time, and programs of others. Out: what is to be done and
    /// reported.
    pub fn attend(&mut self, cluster: &Cluster, cni: &CniResults) -> Attention {
        let now = Instant::now();
        self.holds.follow(&self.endpoints, now);
        let mut pass = self.endpoints.next_deadline().is_some_and(|deadline| deadline <= now);
        pass |= self.hosts.note_answers(now);
        let found = self.find_unenforced(cluster, cni, &mut pass);
        let (changed, new) = self.unenforced.follow(found, now);
        let (hosts_pass, hosts_changed) = self.attend_hosts();
        pass |= hosts_pass;
        let changed = self.look_for_obstacles() || changed || hosts_changed;
        Attention { pass, changed, new }
    }

    /// The pods that should be isolated and are not.
    pub fn unenforced(&self) -> impl Iterator<Item = (&ObjectName, &Unenforced)> {
        self.unenforced.reported()
    }

    fn find_unenforced(
        &mut self,
        cluster: &Cluster,
        cni: &CniResults,
        pass: &mut bool,
    ) -> BTreeMap<ObjectName, (UnenforcedReason, String)> {
        let veths = self.endpoints.veths.values().filter_map(|veth| match &veth.state {
            InterfaceState::Identified { pod, .. } => Some((pod.clone(), veth.clone())),
            InterfaceState::Pending | InterfaceState::Unmanaged => None,
        });
        let veths: BTreeMap<_, _> = veths.collect();
        self.unenforced.placed.retain(|pod| self.local.pods().contains_key(pod));
        self.unenforced.placed.extend(veths.keys().cloned());
        let mut found = BTreeMap::new();
        let policies = OrderedPolicies::of(cluster);
        let isolated: Vec<_> =
            self.local.pods().values().filter(|pod| policies.is_any_enforced(pod)).cloned().collect();
        for pod in isolated {
            let reason = match veths.get(&pod.name) {
                None => self.without_veth(&pod, cni),
                Some(veth) => {
                    let device = super::device(veth);
                    if let Some(error) = self.refused.get(&device) {
                        *pass = true;
                        Some((UnenforcedReason::AttachRefused, error.clone()))
                    } else {
                        match self.attacher.order(&mut self.datapath, &device, DeviceRole::Pod) {
                            Ok(ProgramOrder::First) => None,
                            Ok(ProgramOrder::Behind(other)) => Some((
                                UnenforcedReason::ForeignProgram,
                                format!(
                                    "{other} comes before podgate's program at {} and can end the chain",
                                    veth.name
                                ),
                            )),
                            Ok(ProgramOrder::Missing) => {
                                tracing::warn!(interface = %veth.name, "the program was detached by somebody else");
                                *pass = true;
                                None
                            }
                            Err(error) => {
                                tracing::debug!(interface = %veth.name, "{error:#}");
                                None
                            }
                        }
                    }
                }
            };
            found.extend(reason.map(|reason| (pod.name.clone(), reason)));
        }
        found
    }

    /// Why no veth is known to be this pod's, unless it is not running.
    fn without_veth(&self, pod: &Pod, cni: &CniResults) -> Option<(UnenforcedReason, String)> {
        let results = || cni.0.iter().filter(|result| result.primary && result.pod == pod.name);
        let addresses: BTreeSet<IpAddr> =
            results().flat_map(|result| &result.addresses).chain(&pod.addresses).copied().collect();
        // One that had a veth, and has neither that nor a CNI result now, has ended; its object goes soon.
        let has_ended = self.unenforced.placed.contains(&pod.name) && results().next().is_none();
        if addresses.is_empty() || has_ended {
            return None;
        }
        let claimed = |ifindex: &&u32| {
            let hold = self.endpoints.holds.get(*ifindex);
            hold.is_some_and(|hold| hold.until.is_none() && hold.pods.contains(&pod.name))
        };
        let held: Vec<&str> = self
            .endpoints
            .veths
            .iter()
            .filter(|(ifindex, _)| claimed(ifindex))
            .map(|(_, veth)| &*veth.name)
            .collect();
        if !held.is_empty() {
            let held = held.join(", ");
            let detail =
                format!("another pod or interface claims its address; what may be its is held: {held}");
            return Some((UnenforcedReason::DuplicateAddress, detail));
        }
        if let Some(known) = self.unenforced.found.get(&pod.name)
            && known.reason != UnenforcedReason::DuplicateAddress
            && known.reason != UnenforcedReason::AttachRefused
            && known.reason != UnenforcedReason::ForeignProgram
        {
            // Looked at already: its device does not change.
            return Some((known.reason, known.detail.clone()));
        }
        let mut namespaces = results().flat_map(|result| &result.namespaces);
        let kind = namespaces.find_map(|namespace| {
            let kind = device_kind(namespace, &addresses);
            kind.inspect_err(|error| tracing::debug!(pod = %pod.name, "{error:#}")).ok().flatten()
        });
        Some(match kind {
            Some(kind) => {
                let reason = UnenforcedReason::of_kind(&kind);
                let kind = if kind.is_empty() { "physical (SR-IOV)" } else { &kind };
                (reason, format!("its interface is a {kind} device, at which the node has no hook"))
            }
            None => {
                (UnenforcedReason::NoDevice, "no interface of this node is known to lead to it".to_owned())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_reported_once_when_it_lasts_and_again_for_another_reason() {
        let (start, pod) = (Instant::now(), ObjectName::new("x", "a"));
        let found = |reason| BTreeMap::from([(pod.clone(), (reason, "why".to_owned()))]);
        let mut pods = UnenforcedPods::default();
        for (now_found, seconds, changed, new, reported) in [
            (found(UnenforcedReason::NoDevice), 0, false, 0, 0),
            (BTreeMap::new(), 1, false, 0, 0),
            (found(UnenforcedReason::NoDevice), 2, false, 0, 0),
            (found(UnenforcedReason::NoDevice), 4, true, 1, 1),
            (found(UnenforcedReason::NoDevice), 5, false, 0, 1),
            (found(UnenforcedReason::Macvlan), 6, true, 1, 1),
            (BTreeMap::new(), 7, true, 0, 0),
            (BTreeMap::new(), 8, false, 0, 0),
        ] {
            let seen = pods.follow(now_found, start + Duration::from_secs(seconds));
            assert_eq!((seen.0, seen.1.len()), (changed, new), "after {seconds} s");
            assert_eq!(pods.reported().count(), reported, "after {seconds} s");
        }
    }
}
