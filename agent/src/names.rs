//! What the agent itself does for pods that have rules with names: it asks for names that are new in rules,
//! and keeps the addresses that connections are open to.
//!
//! In: snapshots, the tables of pods' names and of connections. Out: entries in the tables of pods' names.
//! Pods learn names themselves, by the programs; what is done here is for clients that keep an answer for
//! longer than the resolver said, or from before there was a rule. When it fails or is late, such a client is
//! denied until it asks again.

mod exchange;
mod leases;
mod message;
mod pods;
mod questions;
mod untrusted;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use podgate_common::{NameAnswer, Resolver, ServiceKey};
use podgate_core::compiler::{NamePlace, name_text};
use podgate_datapath::{
    OpenedServer, ProgramTables, VerdictReader,
    names::{NameReader, NameWriter},
};
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    exchange::{Servers, ask},
    leases::Leases,
    message::{AddressKind, TimedAddress},
    pods::{NamedPods, NewName},
    questions::{Asker, NameQuestion, Questions},
};
pub use self::{
    untrusted::UntrustedServers,
    work::{NameWork, NameWorkCounts},
};
use crate::{snapshot::Snapshot, source::kube::PodWarning};

/// The least time between two questions: a policy with 25 names for all pods of a large cluster must not
/// drown its resolvers.
const PACE: Duration = Duration::from_millis(10);

/// Entering addresses takes a part of this thread's time, one of so many: a name may have many addresses, and
/// many pods may have it.
const SHARE_OF_ENTERING: u32 = 4;

/// For how long an answer is taken for the same question of other pods, and how many are kept.
const RECENT: Duration = Duration::from_secs(5);
const MOST_RECENT: usize = 256;

/// What is read and written.
#[derive(Clone, Debug)]
pub struct NameHandles {
    pub reader: NameReader,
    pub writer: NameWriter,
    pub tables: Arc<ProgramTables>,
    pub verdicts: VerdictReader,
    /// Least time in seconds for which an address counts.
    pub keep: u32,
}

/// Asks and renews.
pub struct NameKeeper {
    handles: NameHandles,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    work: NameWork,
    untrusted: UntrustedServers,
    /// Where warnings about pods go, to become Events.
    pod_warnings: Option<mpsc::Sender<PodWarning>>,
    pods: NamedPods,
    questions: Questions,
    /// Those that are asked now.
    asked: BTreeMap<task::Id, NameQuestion>,
    servers: Servers,
    resolvers: Arc<BTreeMap<ServiceKey, Resolver>>,
    leases: Leases,
    /// Questions so far.
    number: usize,
    recent: BTreeMap<(NamePlace, AddressKind), (Instant, Vec<TimedAddress>)>,
    /// Before it nothing is asked.
    not_before: Instant,
}

type NameAddresses = Result<Vec<TimedAddress>>;

impl fmt::Debug for NameKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameKeeper").field("pods", &self.pods).finish_non_exhaustive()
    }
}

impl NameKeeper {
    pub fn new(
        handles: NameHandles,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        (work, untrusted): (NameWork, UntrustedServers),
        pod_warnings: Option<mpsc::Sender<PodWarning>>,
    ) -> Self {
        Self {
            leases: Leases::new(handles.keep),
            handles,
            snapshots,
            work,
            untrusted,
            pod_warnings,
            pods: NamedPods::default(),
            questions: Questions::default(),
            asked: BTreeMap::new(),
            servers: Servers::default(),
            resolvers: Arc::default(),
            number: 0,
            recent: BTreeMap::new(),
            not_before: Instant::now(),
        }
    }

    /// Works for ever.
    ///
    /// # Errors
    ///
    /// When no one makes snapshots any more.
    pub async fn run(mut self) -> Result<()> {
        let mut asked: JoinSet<NameAddresses> = JoinSet::new();
        let mut renew = interval(self.leases.period());
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => {
                    changed.context("no one makes snapshots any more")?;
                    let snapshot = self.snapshots.borrow_and_update().clone();
                    self.follow(&snapshot);
                }
                Some(ended) = asked.join_next_with_id() => {
                    // A tenant may own the server that answers: what its bytes do must not end the agent.
                    let (id, answer) =
                        ended.unwrap_or_else(|panic| (panic.id(), Err(panic).context("a question has panicked")));
                    if let Some(question) = self.asked.remove(&id) {
                        self.take(question, answer);
                    }
                }
                () = sleep_until(self.not_before), if self.questions.has_next() => {
                    self.ask_next(&mut asked);
                }
                _ = renew.tick() => self.look_at_connections(),
            }
        }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        if snapshot.is_changing {
            return;
        }
        self.servers = Servers::of(&snapshot.resolvers);
        self.resolvers = snapshot.resolvers.clone();
        let reader = &self.handles.reader;
        let live = |table| {
            let read = reader.read(table).inspect_err(|error| tracing::warn!("{error:#}"));
            let read = read.ok().flatten().unwrap_or_default().into_iter();
            read.filter(|learnt| learnt.left.is_some()).map(|learnt| learnt.name).collect()
        };
        let mut left_out = BTreeMap::new();
        for NewName { namespace, asker, name } in self.pods.follow(snapshot, live) {
            if !self.questions.add(&namespace, &name, asker) {
                *left_out.entry(namespace).or_insert(0) += 1;
            }
        }
        for (namespace, names) in left_out {
            self.work.leave_out(names);
            tracing::warn!(
                %namespace,
                names,
                "policies have more new names than are asked for: pods learn these when they look them up"
            );
        }
    }

    fn ask_next(&mut self, asked: &mut JoinSet<NameAddresses>) {
        let Some(question) = self.questions.next() else { return };
        let now = Instant::now();
        self.not_before = now + PACE;
        self.recent.retain(|_, (at, _)| now.duration_since(*at) < RECENT);
        if let Some((_, addresses)) = self.recent.get(&(question.name.clone(), question.kind)) {
            let addresses = addresses.clone();
            self.enter(&question, &addresses);
        } else if self.servers.is_empty() {
            let askers = self.questions.end(&question);
            tracing::debug!(name = name_text(&question.name), pods = askers.len(), "no resolver to ask");
        } else {
            self.number = self.number.wrapping_add(1);
            let asking = ask(self.servers.clone(), self.number, question.name.clone(), question.kind);
            self.asked.insert(asked.spawn(asking).id(), question);
        }
    }

    fn take(&mut self, question: NameQuestion, answer: NameAddresses) {
        match answer {
            Ok(addresses) => {
                self.work.answer();
                self.enter(&question, &addresses);
                if self.recent.len() < MOST_RECENT {
                    self.recent.insert((question.name, question.kind), (Instant::now(), addresses));
                }
            }
            Err(error) => {
                self.work.fail();
                self.questions.end(&question);
                let name = name_text(&question.name);
                tracing::debug!(name, "a new name of rules is not known: {error:#}");
            }
        }
    }

    /// Enters addresses for the pods that still have a rule with the name.
    fn enter(&mut self, question: &NameQuestion, addresses: &[TimedAddress]) {
        let began = Instant::now();
        let mut entered = 0;
        for asker in self.questions.end(question) {
            if !self.pods.has(asker, &question.name) {
                continue;
            }
            match self.enter_for(asker, question, addresses) {
                Ok(count) => entered += count,
                Err(error) => tracing::warn!("{error:#}"),
            }
        }
        self.work.enter(entered);
        if entered != 0 {
            tracing::debug!(name = name_text(&question.name), entered, "asked for a new name of rules");
        }
        self.not_before = self.not_before.max(Instant::now() + SHARE_OF_ENTERING * began.elapsed());
    }

    fn enter_for(&self, asker: Asker, question: &NameQuestion, addresses: &[TimedAddress]) -> Result<usize> {
        let mut entered = 0;
        for TimedAddress { address, seconds } in addresses {
            let answer = self.handles.writer.enter(asker, &question.name, *address, *seconds)?;
            match answer {
                Some(NameAnswer::Entered) => entered += 1,
                Some(NameAnswer::Refused | NameAnswer::Busy) => {}
                Some(NameAnswer::Gone) | None => break,
            }
        }
        Ok(entered)
    }

    fn look_at_connections(&self) {
        let veths: BTreeSet<u32> = self.pods.iter().map(|(ifindex, _)| ifindex).collect();
        let looked = match veths.is_empty() {
            true => Ok(BTreeSet::new()),
            false => self.handles.tables.servers_of(&veths),
        };
        let renewed = looked.and_then(|servers| {
            self.warn_of_servers(&servers);
            self.leases.renew(&self.pods, &self.handles, &servers)
        });
        match renewed {
            Ok(renewed) => self.work.renew(renewed),
            Err(error) => tracing::warn!("cannot look at the connections of pods for names: {error:#}"),
        }
    }

    fn warn_of_servers(&self, servers: &BTreeSet<OpenedServer>) {
        for (pod, server) in self.untrusted.note(&self.pods, &self.resolvers, servers) {
            let note = format!(
                "it asks {server} for names, which is no resolver that this node believes: its rules with \
                 names learn nothing from that server"
            );
            tracing::warn!(%pod, "{note}");
            if let Some(warnings) = &self.pod_warnings {
                // Nothing waits for it; the log has it.
                let _ = warnings.try_send(PodWarning { pod, reason: "ResolverUntrusted", note });
            }
        }
    }
}
