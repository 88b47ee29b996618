//! The agent: wires sources, reconciler and servers together. Nothing else starts threads and tasks.
//!
//! Each of these has a thread of its own, so that none keeps another waiting: this one watches signals,
//! sources, the network and CNI results; `enforcement` makes the passes; `servers` answers the socket and
//! HTTP from snapshots; `events` makes flows of the kernel's events; `cni-namespaces` leaves to the CNI
//! plugin what it needs without an agent.

mod cni_installation;
mod counters;
mod earlier;
mod enforcement;
mod flow_table_monitor;
mod inputs;
mod shutdown;
mod supervise;
mod threads;

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow};
use podgate_datapath::{
    AgentLock, Attacher, Datapath, DatapathOptions, EventRing, EventStream, HookKind, Pins,
    network::NetworkWatch,
    privileges::{self, Needs},
};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot, watch},
};

pub(crate) use self::cni_installation::keep_cni_plugin;
use self::{
    earlier::Earlier,
    enforcement::{Channels, Enforcement},
    flow_table_monitor::FlowTableMonitor,
    inputs::Inputs,
    shutdown::Shutdown,
    supervise::{PAUSES, supervise},
    threads::Threads,
};
use crate::{
    cni_plugin,
    endpoints::cni::CniWatch,
    flows::{DenyLog, LogTarget, Observer, SharedObserver, lock},
    options::{AgentOptions, AttachBy, Established, MasqueradedIngress, Metrics},
    reconciler::Reconciler,
    server::{ControlSocket, HitView, Http, Server, ServerInputs, TaskRestarts},
    source::{kube, manifests},
};

/// Questions that wait for the enforcing thread.
const KERNEL_CHECKS: usize = 16;

/// So that a flood of events keeps no one else waiting.
const EVENTS_AT_ONCE: usize = 256;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot start, a source cannot be read any more, or one of its threads has ended.
pub fn agent(options: &AgentOptions) -> Result<()> {
    runtime()?.block_on(run(options))
}

/// Waits for SIGTERM or SIGINT.
///
/// # Errors
///
/// When the kernel gives no signals.
pub fn until_signal() -> Result<()> {
    runtime()?.block_on(async {
        Shutdown::new()?.wait().await;
        Ok(())
    })
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

async fn run(options: &AgentOptions) -> Result<()> {
    let mut shutdown = Shutdown::new()?;
    // A source that cannot be reached by its configuration leaves nothing in the kernel.
    let connection = match &options.manifests[..] {
        [] => Some(kube::connect(options.kubeconfig.as_deref()).await?),
        _ => None,
    };
    privileges::required()?;
    let pins = Pins::create(&options.bpffs)?;
    let _lock = AgentLock::take(pins.directory()).context("another agent is running")?;
    let previous_agents = pins.previous_agents()?;
    let kernel_options = DatapathOptions {
        flows: options.flows,
        recheck: options.established == Established::Recheck,
        masqueraded: options.masqueraded_ingress == MasqueradedIngress::Allow,
        encapsulation: options.allow_encapsulation,
        share: true,
    };
    let earlier = Earlier::of(&pins)?;
    let mut datapath = Datapath::load(Some(&pins), kernel_options)?;
    let event_ring = datapath.events.take();
    let monitor = FlowTableMonitor::new(datapath.counters.clone());
    let read_counters = counters::read_counters(datapath.counters.clone());
    let count_tables = counters::count_tables(datapath.tables.clone());
    let mode = match options.hook {
        AttachBy::Auto => HookKind::of_this_kernel()?,
        AttachBy::Tcx => HookKind::Tcx,
        AttachBy::Clsact => HookKind::Clsact,
    };
    datapath.pin_programs(&pins, mode)?;
    let attacher = Attacher::new(mode, &pins)?;
    let reconciler = Reconciler::new(options.node.clone(), datapath, attacher, pins.made()?);

    let mut network = NetworkWatch::open()?;
    let mut cni = CniWatch::new(&options.cni_results)?;
    let mut cni_pods = CniWatch::new(&cni_plugin::pods_directory(&options.socket))?;
    let needs = Needs {
        files_of_others: !options.manifests.is_empty() || options.kubeconfig.is_some(),
        programs: connection.as_ref().is_some_and(|connection| connection.runs_programs),
    };
    // The enforcing thread alone may still read sockets of pods, in its first pass.
    let mut threads = Threads::new();
    let (start, started) = oneshot::channel::<(Enforcement, Channels)>();
    threads.spawn("enforcement", move || async {
        let (enforcement, channels) = started.await.context("the agent has not started")?;
        enforcement.run(channels).await
    })?;
    privileges::give_up(needs)?;
    // Its thread has what the agent keeps, and it must be able to rotate the file with that.
    let deny_log = open_deny_log(options)?;
    let observer: SharedObserver = Arc::new(Mutex::new(Observer::new(options.node.clone(), deny_log)));

    let mut pod_warnings = None;
    let (mut updates, source, health) = match connection {
        Some(kube::ApiConnection { client, .. }) => {
            pod_warnings = Some(kube::warn_pods(client.clone(), &options.node));
            let (updates, health) = kube::watch(&client, options.node.clone(), options.allow_empty);
            (updates, "kubernetes", Some(health))
        }
        None => (manifests::watch(options.manifests.clone(), options.allow_empty)?, "manifests", None),
    };

    let enforcement = Enforcement::new(
        options,
        source,
        reconciler,
        observer.clone(),
        (pins, previous_agents, earlier),
        monitor,
    )
    .with_pod_warnings(pod_warnings)
    .needs(needs);
    let (snapshots, snapshots_seen) = watch::channel(Arc::new(enforcement.snapshot()));
    let (hits, hits_seen) = watch::channel(Arc::default());
    let (ask_for_hits, hits_asked) = mpsc::channel(1);
    let (ask, kernel_checks) = mpsc::channel(KERNEL_CHECKS);
    let inputs = Arc::new(Inputs::default());
    let restarts = TaskRestarts::default();
    let for_plugin = snapshots_seen.clone();
    let server = Server::new(ServerInputs {
        snapshots: snapshots_seen,
        read_counters,
        count_tables,
        watches: health,
        hits: HitView::new(hits_seen, ask_for_hits),
        observer: observer.clone(),
        kernel_checks: ask,
        restarts: restarts.clone(),
    });

    let (socket, metrics) = (options.socket.clone(), options.metrics);
    let (bound, binding) = oneshot::channel();
    threads.spawn("servers", move || serve(server, socket, metrics, bound))?;
    // What is in the way of the servers is the agent's own error.
    binding.await.context("the servers cannot start")??;
    if let Some(ring) = event_ring {
        let restarts = restarts.clone();
        threads.spawn("events", move || observe(ring, observer, restarts))?;
    }
    let (socket, restarts_of_plugin) = (options.socket.clone(), restarts.clone());
    threads.spawn("cni-namespaces", move || async move {
        let keep = async || cni_plugin::keep_namespaces(&socket, for_plugin.clone()).await;
        supervise("cni-namespaces", restarts_of_plugin, PAUSES, keep).await;
        Ok(())
    })?;
    let channels = Channels { inputs: inputs.clone(), snapshots, hits, hits_asked, kernel_checks };
    if start.send((enforcement, channels)).is_err() {
        return Err(threads.ended().await);
    }

    let cni_results = supervise("cni-results", restarts.clone(), PAUSES, async || {
        loop {
            match cni.next().await {
                Ok(results) => inputs.cni(results),
                Err(error) => return error,
            }
        }
    });
    let cni_plugin = supervise("cni-plugin", restarts, PAUSES, async || {
        loop {
            match cni_pods.next().await {
                Ok(pods) => inputs.cni_pods(pods),
                Err(error) => return error,
            }
        }
    });
    tokio::pin!(cni_results, cni_plugin);
    loop {
        tokio::select! {
            update = updates.recv() => inputs.update(update.context("the objects cannot be watched any more")?),
            // Which devices were deleted meanwhile, another watch could not tell: the agent ends and starts
            // again.
            network = network.next() => inputs.network(network?),
            () = &mut cni_results => {}
            () = &mut cni_plugin => {}
            ended = threads.ended() => return Err(ended),
            () = shutdown.wait() => break,
        }
    }
    threads.stop();
    tracing::info!("the agent ends, enforcement continues");
    Ok(())
}

fn open_deny_log(options: &AgentOptions) -> Result<Option<DenyLog>> {
    let open = |target: &LogTarget| {
        DenyLog::open(target, options.deny_log_size)
            .with_context(|| format!("cannot open the deny log {target}"))
    };
    options.deny_log.as_ref().map(open).transpose()
}

/// Answers the socket and HTTP, for ever. `bound`: gets the error if one of them cannot be bound.
async fn serve(
    server: Server,
    socket: std::path::PathBuf,
    metrics: Metrics,
    bound: oneshot::Sender<Result<()>>,
) -> Result<()> {
    let bind = async {
        let socket = ControlSocket::bind(&socket)?;
        let http = match metrics {
            Metrics::At(address) => Some(Http::bind(address).await?),
            Metrics::Off => None,
        };
        Ok((socket, http))
    };
    let (socket, http) = match bind.await {
        Ok(servers) => servers,
        Err(error) => {
            // Whoever waits for it reports it.
            let _ = bound.send(Err(error));
            return Err(anyhow!("it could not be bound"));
        }
    };
    let _ = bound.send(Ok(()));
    let http_server = server.clone();
    let http = async {
        match http {
            Some(http) => http.serve(http_server).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = socket.serve(server) => ended,
        ended = http => ended,
    }
}

/// Makes flows of events, for ever.
async fn observe(ring: EventRing, observer: SharedObserver, restarts: TaskRestarts) -> Result<()> {
    let mut ring = Some(ring);
    let read = async || {
        let Some(waiting) = ring.take() else { return anyhow!("the ring buffer is gone") };
        let mut events = match EventStream::new(waiting) {
            Ok(events) => events,
            Err(failed) => {
                let (taken, error) = *failed;
                ring = Some(taken);
                return error;
            }
        };
        loop {
            match events.next(EVENTS_AT_ONCE).await {
                Ok(events) => lock(&observer).observe(&events),
                Err(error) => {
                    ring = Some(events.into_ring());
                    return error;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    supervise("events", restarts, PAUSES, read).await;
    Ok(())
}
