//! The agent: wires sources, reconciler and servers together. Nothing else spawns tasks.
//!
//! One loop owns the state. Each source gives full pictures; whenever one of them changes, the loop makes a pass over
//! the newest of each. No write before every source has given one.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use crate::{
    api::Counter,
    endpoints::{
        Network,
        cni::{CniResults, CniWatch},
        netlink::NetworkWatch,
    },
    kernel::{Attacher, Counters, Kernel, KernelOptions, Lock, Mode, Pins, ProgramTables},
    options::{AgentOptions, AttachBy, Established, MasqueradedIngress, Metrics},
    reconciler::Reconciler,
    report::{self, Progress},
    server::{CountTables, Http, ReadCounters, Server, Snapshot, Socket},
    source::manifests::{self, Picture},
};

/// After a pass that failed: the kernel was out of memory, or a device was just going away.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot start, or a source cannot be read any more.
pub fn agent(options: &AgentOptions) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(options))
}

async fn run(options: &AgentOptions) -> Result<()> {
    let pins = Pins::create(&options.bpffs)?;
    let _lock = Lock::take(pins.directory()).context("another agent is running")?;
    let kernel_options = KernelOptions {
        flows: options.flows,
        recheck: options.established == Established::Recheck,
        masqueraded: options.masqueraded_ingress == MasqueradedIngress::Allow,
    };
    let kernel = Kernel::load(Some(&pins), kernel_options)?;
    let read_counters = read_counters(kernel.counters.clone());
    let count_tables = count_tables(kernel.tables.clone());
    let mode = match options.hook {
        AttachBy::Auto => Mode::of_this_kernel()?,
        AttachBy::Tcx => Mode::Tcx,
        AttachBy::Clsact => Mode::Clsact,
    };
    let attacher = Attacher::new(mode, &pins)?;
    let reconciler = Reconciler::new(options.node.clone(), kernel, attacher);

    let mut pictures = manifests::watch(options.manifests.clone())?;
    let mut network = NetworkWatch::open()?;
    let mut cni = CniWatch::new(&options.cni_results)?;
    let mut agent = Agent::new(options, reconciler);

    let (snapshots, seen) = watch::channel(Arc::new(agent.snapshot()));
    let server = Server::new(seen, read_counters, count_tables);
    let socket = Socket::bind(&options.socket)?;
    tokio::spawn(socket.serve(server.clone()));
    if let Metrics::At(address) = options.metrics {
        tokio::spawn(Http::bind(address).await?.serve(server));
    }

    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    loop {
        let retry = agent.progress.last_error.is_some();
        tokio::select! {
            picture = pictures.recv() => agent.take_picture(picture.context("the manifests cannot be watched any more")?),
            network = network.next() => agent.network = Some(network?),
            cni = cni.next() => agent.cni = Some(cni?),
            () = sleep(RETRY), if retry => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        agent.pass();
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
    /// Problems that were logged, so that each is logged once.
    problems: BTreeSet<String>,
}

impl Agent {
    fn new(options: &AgentOptions, reconciler: Reconciler) -> Self {
        let progress = Progress {
            node: options.node.clone(),
            started: Instant::now(),
            read: None,
            ready: false,
            epoch: 0,
            last_error: None,
        };
        Self { reconciler, picture: None, network: None, cni: None, progress, problems: BTreeSet::new() }
    }

    fn take_picture(&mut self, picture: Picture) {
        let problems: BTreeSet<String> = picture.problems.iter().map(ToString::to_string).collect();
        for problem in problems.difference(&self.problems) {
            tracing::warn!("{problem}");
        }
        self.problems = problems;
        self.progress.read = Some(Instant::now());
        self.picture = Some(picture);
    }

    /// Enforces what is known, once everything is.
    fn pass(&mut self) {
        let (Some(picture), Some(network), Some(cni)) = (&self.picture, &self.network, &self.cni) else {
            return;
        };
        let started = Instant::now();
        match self.reconciler.reconcile(&picture.cluster, network, cni) {
            Ok(epoch) => {
                if epoch != self.progress.epoch {
                    tracing::info!(epoch, took = ?started.elapsed(), "enforced");
                }
                self.progress.epoch = epoch;
                self.progress.ready = true;
                self.progress.last_error = None;
            }
            Err(error) => {
                tracing::error!("{error:#}; what was in force stays");
                self.progress.last_error = Some(format!("{error:#}"));
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        report::snapshot(&self.progress, self.picture.as_ref(), &self.reconciler)
    }
}

fn read_counters(counters: Arc<Counters>) -> ReadCounters {
    Arc::new(move || {
        let read = counters.read().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        read.into_iter()
            .map(|(direction, outcome, packets)| Counter { direction, outcome, packets })
            .collect()
    })
}

fn count_tables(tables: Arc<ProgramTables>) -> CountTables {
    Arc::new(move || {
        let fill = tables.fill().inspect_err(|error| tracing::warn!("{error:#}")).unwrap_or_default();
        fill.into_iter().map(report::fill).collect()
    })
}
