//! What is reported about the state that a pass left behind: hits, what evaluates packets, and what the
//! kernel's tables say.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use anyhow::Result;
use podgate_common::{KernelVerdict, VerdictQuery};
use podgate_core::{
    compiler::WorkLimit,
    explain::ExpectedVerdict,
    model::{Cluster, Pod},
};

use super::Reconciler;
use crate::{
    api::{Drops, PolicyReport},
    endpoints::{InterfaceState, PodInterface},
    flows::Context,
    hits::CounterClock,
};

/// What finding out about connections may take each time that they are counted: some 10 ms.
const WORK: usize = 200_000;

impl Reconciler {
    /// Credits what the kernel has counted to policies and pods, and reports it.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn count(&mut self, cluster: &Cluster) -> Result<(PolicyReport, Drops)> {
        let now = SystemTime::now();
        let pods = self.pods_by_veth();
        if let Some(flow_counters) = &mut self.flow_counters {
            let jiffies_per_second = self.datapath.jiffies_per_second;
            let clock = CounterClock { now, ticks: self.datapath.ticks()?, jiffies_per_second };
            let policy_snapshot = self.compiler.policy_snapshot();
            let mut work = WorkLimit::of(WORK);
            self.hits.collect(flow_counters, &pods, cluster, clock, |query| {
                policy_snapshot.matches(query, &mut work)
            })?;
            flow_counters.correct_shares()?;
        }
        Ok((self.hits.report(cluster, pods.values(), now), self.hits.drops()))
    }

    /// Removes connections whose time is up from a part of the flow table; the next call goes on behind it.
    /// They take up room, and one that no one removes for years would look young again.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn sweep(&mut self) -> Result<usize> {
        let now = self.datapath.ticks()?;
        let (next, removed) = self.datapath.maps.flows.open()?.sweep(self.swept, now);
        self.swept = next;
        Ok(removed)
    }

    /// What the tables in the kernel say of an expected verdict; `None`: its pod is not known behind a veth
    /// of this node.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn verdict(&mut self, expected_verdict: &ExpectedVerdict) -> Result<Option<bool>> {
        let ExpectedVerdict { pod, direction, peer, protocol, port, allowed: _ } = expected_verdict;
        let is_its = |veth: &&PodInterface| matches!(&veth.state, InterfaceState::Identified { pod: known, .. } if known == pod);
        let Some(veth) = self.endpoints.veths.values().find(is_its) else { return Ok(None) };
        let query = VerdictQuery::new(veth.ifindex, *direction, (*peer).into(), *protocol, *port);
        Ok(match self.datapath.verdict(&query)? {
            KernelVerdict::Unknown => None,
            KernelVerdict::Denied => Some(false),
            KernelVerdict::Allowed => Some(true),
        })
    }

    /// What evaluates packets since the last pass.
    pub fn context(&self, revision: u32) -> Context {
        Context {
            revision,
            policy_snapshot: self.compiler.policy_snapshot(),
            pods: Arc::new(self.pods_by_veth()),
        }
    }

    fn pods_by_veth(&self) -> BTreeMap<u32, Arc<Pod>> {
        let known = self.endpoints.veths.values().filter_map(|veth| match &veth.state {
            InterfaceState::Identified { pod, .. } => Some((veth.ifindex, self.pods.get(pod)?.clone())),
            InterfaceState::Pending | InterfaceState::Unmanaged => None,
        });
        known.collect()
    }
}
