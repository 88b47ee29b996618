//! Traces of pods' packets, between who asks for one and the thread that puts programs at hooks.
//!
//! In: the veth of a pod. Out: what programs report that trace its packets, for as long as the claim is kept.
//! A claim that is dropped, however that comes, ends its trace.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use podgate_datapath::{DatapathOptions, KernelReads, TraceReader};
use tokio::sync::{mpsc, oneshot};

/// Traces that run at once. Each has a ring of 256 KiB and programs of its own in the kernel.
const MOST: usize = 4;

/// What the thread that owns the hooks is asked for.
#[expect(missing_debug_implementations, reason = "aya's ring buffers have none")]
pub enum TraceRequest {
    /// Takes the programs that were handed over for a veth, and puts them in the place of the agent's own.
    Start { ifindex: u32, answer: oneshot::Sender<Result<TraceReader>> },
    /// Puts the agent's own back, and forgets what was handed over.
    End { ifindex: u32, answer: Option<oneshot::Sender<()>> },
}

/// What programs must be loaded with to take the place of the agent's.
#[derive(Clone, Debug)]
pub struct TraceSite {
    pub bpffs: PathBuf,
    pub options: DatapathOptions,
    /// What the agent's programs can read of the kernel.
    pub reads: KernelReads,
    /// Of which the flow table's clock counts every sixteenth.
    pub jiffies_per_second: u32,
}

/// Hands out claims. Copies share them.
#[derive(Clone, Debug)]
pub struct TraceControl {
    pub site: Arc<TraceSite>,
    requests: mpsc::UnboundedSender<TraceRequest>,
    claimed: Arc<Mutex<BTreeSet<u32>>>,
}

/// The right to trace the pod behind a veth.
#[derive(Debug)]
pub struct TraceClaim {
    ifindex: u32,
    control: TraceControl,
    ends: bool,
}

impl TraceControl {
    /// With what is asked for.
    pub fn new(site: TraceSite) -> (Self, mpsc::UnboundedReceiver<TraceRequest>) {
        // Not more than two for each claim.
        let (requests, asked) = mpsc::unbounded_channel();
        (Self { site: Arc::new(site), requests, claimed: Arc::default() }, asked)
    }

    /// Claims a veth.
    ///
    /// # Errors
    ///
    /// When it is traced already, or too many are.
    pub fn claim(&self, ifindex: u32) -> Result<TraceClaim> {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!claimed.contains(&ifindex), "the pod is traced already: one trace at a time");
        ensure!(claimed.len() < MOST, "{MOST} pods of this node are traced already");
        claimed.insert(ifindex);
        Ok(TraceClaim { ifindex, control: self.clone(), ends: false })
    }
}

impl TraceClaim {
    /// Starts the trace, with the programs that were handed over.
    ///
    /// # Errors
    ///
    /// When there are none that may take the place of the agent's, or they cannot be attached.
    pub async fn start(&self) -> Result<TraceReader> {
        let (answer, answered) = oneshot::channel();
        let request = TraceRequest::Start { ifindex: self.ifindex, answer };
        self.control.requests.send(request).ok().context(ENDS)?;
        answered.await.context(ENDS)?
    }

    /// Ends the trace; when this returns, the agent's own programs are back.
    pub async fn end(mut self) {
        let (answer, answered) = oneshot::channel();
        let request = TraceRequest::End { ifindex: self.ifindex, answer: Some(answer) };
        self.ends = self.control.requests.send(request).is_ok();
        let _ = answered.await;
    }
}

const ENDS: &str = "the agent ends";

impl Drop for TraceClaim {
    fn drop(&mut self) {
        let Self { ifindex, control, ends } = self;
        if !*ends {
            // An agent that ends puts its programs back, too.
            let _ = control.requests.send(TraceRequest::End { ifindex: *ifindex, answer: None });
        }
        control.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(ifindex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> (TraceControl, mpsc::UnboundedReceiver<TraceRequest>) {
        let (bpffs, options) = (PathBuf::from("/sys/fs/bpf"), DatapathOptions::with_room(8));
        TraceControl::new(TraceSite {
            bpffs,
            options,
            reads: KernelReads::default(),
            jiffies_per_second: 250,
        })
    }

    #[test]
    fn a_veth_is_claimed_once_and_only_some_at_a_time() {
        let (control, _asked) = control();
        let claims: Vec<_> = (1..=4).map(|ifindex| control.claim(ifindex).unwrap()).collect();
        let refused = |ifindex| control.claim(ifindex).unwrap_err().to_string();
        assert!(refused(3).contains("already: one"), "{}", refused(3));
        assert!(refused(9).contains("4 pods"), "{}", refused(9));
        drop(claims);
        control.claim(9).unwrap();
    }

    #[test]
    fn a_claim_that_is_dropped_ends_its_trace() {
        let (control, mut asked) = control();
        drop(control.claim(7).unwrap());
        assert!(matches!(asked.try_recv(), Ok(TraceRequest::End { ifindex: 7, answer: None })));
        assert!(asked.try_recv().is_err());
    }
}
