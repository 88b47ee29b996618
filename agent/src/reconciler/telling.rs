//! What is told of the state that a pass left behind: hits, what judges packets, and what the kernel's tables say.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use anyhow::Result;
use podgate_common::{Query, Said};

use super::Reconciler;
use crate::{
    api::{Drops, PolicyReport},
    endpoints::{State, Veth},
    explain::Claim,
    flows::Context,
    hits::Clock,
    model::{Cluster, Pod},
};

impl Reconciler {
    /// Credits what the kernel has counted to policies and pods, and tells of it.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn count(&mut self, cluster: &Cluster) -> Result<(PolicyReport, Drops)> {
        let now = SystemTime::now();
        let pods = self.pods_by_veth();
        if let Some(tallies) = &mut self.tallies {
            let jiffies_per_second = self.kernel.jiffies_per_second;
            let clock = Clock { now, ticks: self.kernel.ticks()?, jiffies_per_second };
            let judgement = self.compiler.judgement();
            self.hits.collect(tallies, &pods, cluster, clock, |met| judgement.asked(met))?;
            tallies.correct_shares()?;
        }
        Ok((self.hits.report(cluster, pods.values(), now), self.hits.drops()))
    }

    /// Removes connections whose time is up from a part of the flow table; the next call goes on behind it. They take up
    /// room, and one that nobody removes for years would look young again.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn sweep(&mut self) -> Result<usize> {
        let now = self.kernel.ticks()?;
        let (next, removed) = self.kernel.maps.flows.open()?.sweep(self.swept, now);
        self.swept = next;
        Ok(removed)
    }

    /// What the tables in the kernel say to a claim; `None`: its pod is not known behind a veth of this node.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn verdict(&mut self, claim: &Claim) -> Result<Option<bool>> {
        let Claim { pod, direction, peer, protocol, port, allowed: _ } = claim;
        let is_its = |veth: &&Veth| matches!(&veth.state, State::Known { pod: known, .. } if known == pod);
        let Some(veth) = self.endpoints.veths.values().find(is_its) else { return Ok(None) };
        let query = Query::new(veth.ifindex, *direction, (*peer).into(), *protocol, *port);
        Ok(match self.kernel.verdict(&query)? {
            Said::Unknown => None,
            Said::Denied => Some(false),
            Said::Allowed => Some(true),
        })
    }

    /// What judges packets since the last pass.
    pub fn context(&self, epoch: u32) -> Context {
        Context { epoch, judgement: self.compiler.judgement(), pods: Arc::new(self.pods_by_veth()) }
    }

    fn pods_by_veth(&self) -> BTreeMap<u32, Arc<Pod>> {
        let known = self.endpoints.veths.values().filter_map(|veth| match &veth.state {
            State::Known { pod, .. } => Some((veth.ifindex, self.pods.get(pod)?.clone())),
            State::Held | State::Open => None,
        });
        known.collect()
    }
}
