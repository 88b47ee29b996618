//! The guard of host endpoints: a change of their rule sets is enforced at once, and is undone unless it is
//! confirmed in time.
//!
//! In: what is written of the host endpoints (`written`), the rule sets of each device by the tables, and
//! whether the node can still be reached ([`ReachabilityProbe`]). Out: the rule sets to enforce now and those
//! before the change. When the deadline passes the programs return to the latter by themselves, also when no
//! agent runs any more. A change that was undone is tried again when the policies change, when the node turns
//! out to be cut off without it as well, and after a while: the API server may just have been away.
//!
//! Pods, Services and network sets that rules refer to are no part of it: a change of these is enforced at
//! once, and for good. Else whoever may create a pod could have the guard open the node.

use std::time::{Duration, Instant};

use anyhow::Result;
use podgate_core::{compiler::CompiledTables, model::Cluster};
use podgate_datapath::LeftGuard;

use super::{HostRuleSets, Hosts};
use crate::{control::Reconciler, reachability::ReachabilityProbe, snapshot::HostState};

/// After which time a change that was undone is tried again. It doubles each time, up to the other one: the
/// node is cut off for a tenth of the time at most.
const RETRY: Duration = Duration::from_secs(600);
const MOST_RETRY: Duration = Duration::from_secs(3_600);

/// A change of what is enforced.
#[derive(Debug, Default)]
pub(super) enum HostChange {
    #[default]
    None,
    /// It is enforced, but not confirmed. `until`: when it is undone, once the kernel knows that. The
    /// question is asked when all of it is enforced: an answer from before that proves nothing.
    Pending { from: HostRuleSets, to: HostRuleSets, written: u64, until: Option<Instant>, asked: Option<u64> },
    /// It was not confirmed in time. Whether the node can be reached without it is asked, until that is
    /// answered.
    Undone { written: u64, at: Instant, asked: Option<u64>, again: Instant },
}

/// The guard's step in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GuardStep {
    Keep,
    /// A change begins, with this time limit.
    Begin(Duration),
    Undo,
    /// What the tables say is enforced for good.
    Confirm,
}

impl Hosts {
    /// Whether there are no host endpoints, now or before.
    fn is_idle(&self) -> bool {
        self.devices.is_empty() && self.confirmed.is_empty() && matches!(self.change, HostChange::None)
    }

    /// Decides between the rule sets of these tables and those before the change.
    fn settle(&mut self, tables: &CompiledTables, written: u64, now: Instant) -> GuardStep {
        let to = self.evaluated(tables);
        // A device that is gone needs no entry to go back to.
        self.confirmed.retain(|ifindex, _| self.devices.contains_key(ifindex));
        match &mut self.change {
            HostChange::None if to == self.confirmed && written == self.confirmed_written => {
                return GuardStep::Keep;
            }
            HostChange::Pending { to: known, written: pending, until, asked, .. }
                if until.is_none_or(|until| now < until) =>
            {
                if *pending != written {
                    *asked = None;
                }
                // Its deadline stays: else a series of changes would put it off for ever.
                (*known, *pending) = (to, written);
                return match (*until, self.options.guard) {
                    (None, Some(window)) => GuardStep::Begin(window),
                    _ => GuardStep::Keep,
                };
            }
            HostChange::Pending { from, written: pending, .. } => {
                self.confirmed = std::mem::take(from);
                let pending = *pending;
                self.undo(pending, now);
                return GuardStep::Undo;
            }
            HostChange::Undone { written: undone, again, .. } if *undone == written && now < *again => {
                return GuardStep::Keep;
            }
            HostChange::None | HostChange::Undone { .. } => {}
        }
        match self.options.guard {
            Some(window) if !to.is_empty() && written != self.confirmed_written => {
                let from = self.confirmed.clone();
                self.change = HostChange::Pending { from, to, written, until: None, asked: None };
                GuardStep::Begin(window)
            }
            _ => GuardStep::Confirm,
        }
    }

    /// Notes that a change was not confirmed in time.
    fn undo(&mut self, written: u64, now: Instant) {
        let wait = RETRY.saturating_mul(1 << self.undone.min(8)).min(MOST_RETRY);
        self.undone += 1;
        let asked = Some(self.request());
        self.change = HostChange::Undone { written, at: now, asked, again: now + wait };
    }

    /// Asks whether the node can be reached under the rule sets that are enforced now.
    pub(in crate::control) fn ask(&mut self) {
        if matches!(self.change, HostChange::Pending { asked: None, .. }) {
            let question = self.request();
            if let HostChange::Pending { asked, .. } = &mut self.change {
                *asked = Some(question);
            }
        }
    }

    /// The number of a new question. Without a probe every question is answered.
    fn request(&self) -> u64 {
        self.reachability.as_ref().map_or(0, ReachabilityProbe::request)
    }

    fn is_reached_since(&self, question: u64) -> bool {
        self.reachability.as_ref().is_none_or(|probe| probe.answered_since(question))
    }

    /// The state of the host endpoints.
    pub(in crate::control) fn state(&self) -> HostState {
        match self.change {
            HostChange::None => HostState::Enforced,
            HostChange::Pending { .. } => HostState::Unconfirmed,
            HostChange::Undone { .. } => HostState::Undone,
        }
    }

    /// Notes the answers. Out: whether a pass is due at this time, though nothing else changes.
    pub(in crate::control) fn note_answers(&mut self, now: Instant) -> bool {
        let window = self.options.guard.unwrap_or_default();
        let (at, question) = match &self.change {
            HostChange::None => return false,
            HostChange::Pending { until, asked, .. } => {
                return until.is_none_or(|until| now >= until)
                    || asked.is_some_and(|question| self.is_reached_since(question));
            }
            HostChange::Undone { again, .. } if now >= *again => return true,
            HostChange::Undone { asked: None, .. } => return false,
            HostChange::Undone { at, asked: Some(question), .. } => (*at, *question),
        };
        if !self.is_reached_since(question) {
            return false;
        }
        // A node that is reached soon after was cut off by the change; another one was so without it, too.
        let was_not_to_blame = now.duration_since(at) > window;
        if let HostChange::Undone { asked, again, .. } = &mut self.change {
            *asked = None;
            if was_not_to_blame {
                *again = now;
            }
        }
        was_not_to_blame
    }

    /// Goes on with what an earlier agent has left. What it enforced before a change is not known any more:
    /// nothing is enforced if that is not confirmed.
    fn take_over(&mut self, left: LeftGuard, tables: &CompiledTables, written: u64, now: Instant) {
        let is_guarded = self.options.guard.is_some();
        match left {
            LeftGuard::Confirmed { content } if content == written => {
                (self.confirmed, self.confirmed_written) = (self.evaluated(tables), written);
            }
            LeftGuard::Armed { left, .. } if !left.is_zero() && is_guarded => {
                let (from, to, until) = (HostRuleSets::new(), self.evaluated(tables), Some(now + left));
                self.change = HostChange::Pending { from, to, written, until, asked: None };
            }
            LeftGuard::Armed { content, .. } if content == written && is_guarded => {
                tracing::error!(
                    "a change of host endpoints stays undone: an earlier agent did not confirm it"
                );
                self.undo(written, now);
            }
            LeftGuard::Nothing | LeftGuard::Confirmed { .. } | LeftGuard::Armed { .. } => {}
        }
    }

    /// Notes that rule sets are enforced for good.
    fn confirm(&mut self, to: HostRuleSets, written: u64) {
        (self.confirmed, self.confirmed_written) = (to, written);
        (self.change, self.undone) = (HostChange::None, 0);
    }
}

impl Reconciler {
    /// Decides which rule sets to enforce, before the tables are published. Out: the time limit if a change
    /// begins; the rule sets of before must then be published first.
    pub(in crate::control) fn settle_hosts(
        &mut self,
        tables: &CompiledTables,
        cluster: &Cluster,
    ) -> Result<Option<Duration>> {
        if self.hosts.is_idle() {
            return Ok(None);
        }
        let written = self.hosts.written(cluster);
        if self.older.is_none() && !self.hosts.has_begun {
            let left = self.datapath.maps.host_guard.left()?;
            self.hosts.take_over(left, tables, written, Instant::now());
            self.hosts.has_begun = true;
        }
        self.confirm_reached()?;
        match self.hosts.settle(tables, written, Instant::now()) {
            GuardStep::Keep => Ok(None),
            GuardStep::Begin(window) => {
                tracing::info!(devices = self.hosts.devices.len(), ?window, "host endpoints change");
                Ok(Some(window))
            }
            GuardStep::Undo => {
                tracing::error!(
                    "a change of host endpoints is undone: since it was made the node has not been reached \
                     (--host-endpoints-guard)"
                );
                Ok(None)
            }
            GuardStep::Confirm => {
                self.datapath.maps.host_guard.confirm(written)?;
                self.hosts.confirm(self.hosts.evaluated(tables), written);
                Ok(None)
            }
        }
    }

    /// Confirms a change under which the node was reached.
    fn confirm_reached(&mut self) -> Result<()> {
        let hosts = &mut self.hosts;
        let HostChange::Pending { to, written, until, asked, .. } = &hosts.change else { return Ok(()) };
        let is_reached = asked.is_some_and(|asked| hosts.is_reached_since(asked));
        if until.is_none_or(|until| Instant::now() >= until) || !is_reached {
            return Ok(());
        }
        self.datapath.maps.host_guard.confirm(*written)?;
        hosts.confirm(to.clone(), *written);
        tracing::info!("host endpoints are confirmed: the node is reached");
        Ok(())
    }

    /// Begins a change. When this returns the kernel has the entries to go back to, and the deadline. Until
    /// then every pass begins it.
    pub(in crate::control) fn begin_change(
        &mut self,
        window: Duration,
        publish: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        // If nothing of before is known, the entries of an earlier agent stay until they are replaced.
        if !self.hosts.confirmed.is_empty() {
            publish(self)?;
        }
        if let HostChange::Pending { written, until, .. } = &mut self.hosts.change {
            self.datapath.maps.host_guard.arm(*written, window)?;
            *until = Some(Instant::now() + window);
        }
        Ok(())
    }
}
