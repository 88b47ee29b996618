//! The agent: wires sources, reconciler and servers together. Nothing else spawns tasks.
//!
//! One loop owns the state. Each source gives full pictures; whenever one of them changes, the loop makes a pass over
//! the newest of each. No write before every source has given one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podgate_common::Eviction;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{interval, sleep},
};

use crate::{
    api::{Counted, Counter, Evictions, Latency},
    endpoints::{
        Network,
        cni::{CniResults, CniWatch},
        netlink::NetworkWatch,
    },
    flows::{DenyLog, Observer, SharedObserver, Target, lock},
    kernel::{
        Attacher, Counters, Events, Kernel, KernelOptions, Lock, Mode, Pins, Predecessors, ProgramTables,
    },
    options::{AgentOptions, AttachBy, Established, MasqueradedIngress, Metrics},
    reconciler::{Pass, Reconciler},
    report::{self, Progress},
    server::{
        CountTables, HitReport, HitView, Http, Inquiry, ReadCounters, Server, Snapshot, Socket, Testimony,
    },
    source::{Picture, Update, kube, manifests},
};

/// After a pass that failed: the kernel was out of memory, or a device was just going away.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked whether the flow table is too small.
const CROWDING: Duration = Duration::from_secs(10);

/// How often it is looked at what time alone changes.
const ATTENDING: Duration = Duration::from_secs(1);

/// Questions that wait for the loop.
const INQUIRIES: usize = 16;

/// So that a flood of events keeps nobody else waiting.
const EVENTS_AT_ONCE: usize = 256;

/// How often policies are credited with what was counted.
const COUNTING: Duration = Duration::from_secs(5);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot start, or a source cannot be read any more.
pub fn agent(options: &AgentOptions) -> Result<()> {
    runtime()?.block_on(run(options))
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
///
/// When the kernel gives no signals.
pub fn until_told() -> Result<()> {
    runtime()?.block_on(async {
        let mut told = Told::new()?;
        told.wait().await;
        Ok(())
    })
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// The signals that ask a program to end. The first process of a container gets none that it does not wait for.
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn new() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn run(options: &AgentOptions) -> Result<()> {
    let pins = Pins::create(&options.bpffs)?;
    let _lock = Lock::take(pins.directory()).context("another agent is running")?;
    let mut predecessors = Some(pins.predecessors()?);
    let kernel_options = KernelOptions {
        flows: options.flows,
        recheck: options.established == Established::Recheck,
        masqueraded: options.masqueraded_ingress == MasqueradedIngress::Allow,
        share: true,
    };
    let mut kernel = Kernel::load(Some(&pins), kernel_options)?;
    let deny_log = open_deny_log(options)?;
    let observer: SharedObserver = Arc::new(Mutex::new(Observer::new(options.node.clone(), deny_log)));
    if let Some(ring) = kernel.events.take() {
        tokio::spawn(observe(Events::new(ring)?, observer.clone()));
    }
    let mut crowding = Crowding::new(kernel.counters.clone());
    let mut look = interval(CROWDING);
    let mut count = interval(COUNTING);
    let mut attend = interval(ATTENDING);
    let read_counters = read_counters(kernel.counters.clone());
    let count_tables = count_tables(kernel.tables.clone());
    let mode = match options.hook {
        AttachBy::Auto => Mode::of_this_kernel()?,
        AttachBy::Tcx => Mode::Tcx,
        AttachBy::Clsact => Mode::Clsact,
    };
    let attacher = Attacher::new(mode, &pins)?;
    let reconciler = Reconciler::new(options.node.clone(), kernel, attacher, pins.made()?);

    let (mut updates, source, health) = if options.manifests.is_empty() {
        let client = kube::connect(options.kubeconfig.as_deref()).await?;
        let (updates, health) = kube::watch(&client, options.node.clone());
        (updates, "kubernetes", Some(health))
    } else {
        (manifests::watch(options.manifests.clone())?, "manifests", None)
    };
    let mut network = NetworkWatch::open()?;
    let mut cni = CniWatch::new(&options.cni_results)?;
    let mut agent = Agent::new(options, source, reconciler, observer.clone());

    let (snapshots, seen) = watch::channel(Arc::new(agent.snapshot()));
    let (hits, hits_seen, mut hits_asked) = hits();
    let (inquiries, mut inquired) = mpsc::channel(INQUIRIES);
    let server = Server::new(seen, read_counters, count_tables, health, hits_seen, observer, inquiries);
    let socket = Socket::bind(&options.socket)?;
    tokio::spawn(socket.serve(server.clone()));
    if let Metrics::At(address) = options.metrics {
        tokio::spawn(Http::bind(address).await?.serve(server));
    }

    let mut told = Told::new()?;
    loop {
        let retry = agent.progress.last_error.is_some();
        tokio::select! {
            update = updates.recv() => agent.take(update.context("the objects cannot be watched any more")?),
            network = network.next() => agent.network = Some(network?),
            cni = cni.next() => agent.cni = Some(cni?),
            () = sleep(RETRY), if retry => {}
            _ = look.tick() => {
                crowding.look();
                continue;
            }
            _ = attend.tick() => {
                if !agent.reconciler.attend() {
                    continue;
                }
            }
            _ = count.tick() => {
                hits.send_replace(agent.count());
                continue;
            }
            Some(()) = hits_asked.recv() => {
                hits.send_replace(agent.count());
                continue;
            }
            Some(inquiry) = inquired.recv() => {
                agent.testify(inquiry);
                continue;
            }
            () = told.wait() => break,
        }
        agent.pass();
        if agent.progress.ready
            && let Some(predecessors) = predecessors.take_if(|predecessors| !predecessors.is_empty())
        {
            retire(predecessors, &pins);
        }
        snapshots.send_replace(Arc::new(agent.snapshot()));
    }
    tracing::info!("agent ends, enforcement goes on");
    Ok(())
}

/// The newest of every source, and what was made of it.
struct Agent {
    reconciler: Reconciler,
    picture: Option<Picture>,
    network: Option<Arc<Network>>,
    cni: Option<Arc<CniResults>>,
    progress: Progress,
    observer: SharedObserver,
    /// When a source learned of the oldest change that is not enforced yet.
    learned: Option<Instant>,
    /// Problems that were logged, so that each is logged once.
    problems: BTreeSet<String>,
}

impl Agent {
    fn new(
        options: &AgentOptions,
        source: &'static str,
        reconciler: Reconciler,
        observer: SharedObserver,
    ) -> Self {
        let progress = Progress {
            node: options.node.clone(),
            source,
            started: Instant::now(),
            read: None,
            ready: false,
            epoch: 0,
            latency: Latency::default(),
            last_error: None,
        };
        let (picture, network, cni, learned) = (None, None, None, None);
        let problems = BTreeSet::new();
        Self { reconciler, picture, network, cni, progress, observer, learned, problems }
    }

    fn take(&mut self, Update { picture, learned }: Update) {
        let problems: BTreeSet<String> = picture.problems.iter().map(ToString::to_string).collect();
        for problem in problems.difference(&self.problems) {
            tracing::warn!("{problem}");
        }
        self.problems = problems;
        self.progress.read = Some(Instant::now());
        self.learned.get_or_insert(learned);
        self.picture = Some(picture);
    }

    /// Enforces what is known, once everything is.
    fn pass(&mut self) {
        let (Some(picture), Some(network), Some(cni)) = (&self.picture, &self.network, &self.cni) else {
            return;
        };
        let started = Instant::now();
        match self.reconciler.reconcile(&picture.cluster, network, cni) {
            Ok(Pass { epoch, enforced }) => {
                let latency = self.learned.map(|learned| enforced.saturating_duration_since(learned));
                if epoch != self.progress.epoch {
                    lock(&self.observer).judged_by(self.reconciler.context(epoch));
                    tracing::info!(epoch, took = ?started.elapsed(), ?latency, "enforced");
                }
                self.progress.epoch = epoch;
                if let Some(latency) = latency {
                    self.progress.latency.observe(latency);
                    self.learned = None;
                }
                self.progress.ready = true;
                self.progress.last_error = None;
            }
            Err(error) => {
                tracing::error!("{error:#}; what was in force stays");
                self.progress.last_error = Some(format!("{error:#}"));
            }
        }
    }

    /// Asks the kernel's tables.
    fn testify(&mut self, Inquiry { claims, reply }: Inquiry) {
        let mut ask = |claim| self.reconciler.verdict(claim).inspect_err(|error| tracing::warn!("{error:#}"));
        let allowed = claims.iter().map(|claim| ask(claim).ok().flatten()).collect();
        // Who asked may have gone.
        let _ = reply.send(Testimony { epoch: self.progress.epoch, allowed });
    }

    /// What policies have done.
    fn count(&mut self) -> Arc<HitReport> {
        lock(&self.observer).log_summaries();
        let Some(picture) = &self.picture else { return Arc::default() };
        let counted = self.reconciler.count(&picture.cluster);
        let (policies, drops) = counted.inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        Arc::new(HitReport { policies, drops })
    }

    fn snapshot(&self) -> Snapshot {
        report::snapshot(&self.progress, self.picture.as_ref(), &self.reconciler)
    }
}

/// Programs of an agent with other maps judge no longer. What cannot be removed is tried by the next agent.
fn retire(predecessors: Predecessors, pins: &Pins) {
    match predecessors.retire(pins) {
        Ok(links) => tracing::info!(links, "an agent with other maps has left these, they are gone"),
        Err(error) => tracing::error!("what an agent with other maps has left: {error:#}"),
    }
}

fn open_deny_log(options: &AgentOptions) -> Result<Option<DenyLog>> {
    let open = |target: &Target| {
        DenyLog::open(target, options.deny_log_size).with_context(|| format!("the deny log {target}"))
    };
    options.deny_log.as_ref().map(open).transpose()
}

/// Makes flows of events, for ever.
async fn observe(mut events: Events, observer: SharedObserver) {
    loop {
        match events.next(EVENTS_AT_ONCE).await {
            Ok(events) => lock(&observer).observe(&events),
            Err(error) => return tracing::error!("no flows any more: {error:#}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Hits: where the loop puts them, where servers find them and ask for the newest, and where the loop hears of that.
fn hits() -> (watch::Sender<Arc<HitReport>>, HitView, mpsc::Receiver<()>) {
    let (reports, seen) = watch::channel(Arc::default());
    let (ask, asked) = mpsc::channel(1);
    (reports, HitView::new(seen, ask), asked)
}

fn read_counters(counters: Arc<Counters>) -> ReadCounters {
    let read = move || {
        let packets = counters.read()?.into_iter();
        let evictions = counters.evictions()?.into_iter();
        Ok::<_, anyhow::Error>(Counted {
            packets: packets
                .map(|(direction, outcome, packets)| Counter { direction, outcome, packets })
                .collect(),
            evictions: evictions
                .map(|(eviction, connections)| Evictions { state: eviction.name().into(), connections })
                .collect(),
            untold: counters.untold()?.map(|(_, count)| count),
        })
    };
    Arc::new(move || read().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default())
}

fn count_tables(tables: Arc<ProgramTables>) -> CountTables {
    Arc::new(move || {
        let fill = tables.fill().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        fill.into_iter().map(report::fill).collect()
    })
}

/// Tells when the flow table is too small.
struct Crowding {
    counters: Arc<Counters>,
    /// Connections that had gone when it was told last.
    told: u64,
}

impl Crowding {
    fn new(counters: Arc<Counters>) -> Self {
        let mut crowding = Self { counters, told: 0 };
        crowding.told = crowding.evicted();
        crowding
    }

    fn look(&mut self) {
        let evicted = self.evicted();
        if evicted > self.told {
            let connections = evicted - self.told;
            tracing::warn!(connections, "live connections had to leave the flow table: see --flows");
            self.told = evicted;
        }
    }

    /// Those that were answered. Others come and go with every scan of ports.
    fn evicted(&self) -> u64 {
        let read = self.counters.evictions().inspect_err(|error| tracing::warn!("{error:#}"));
        read.map_or(self.told, |evictions| {
            evictions.iter().filter(|(of, _)| *of == Eviction::Established).map(|(_, count)| count).sum()
        })
    }
}
