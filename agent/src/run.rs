//! The agent: wires sources, reconciler and servers together. Nothing else starts threads and tasks.
//!
//! Each of these has a thread of its own, so that none keeps another waiting: this one watches signals,
//! sources, the network and CNI results; `enforcement` makes the passes, and but for `names` alone has
//! handles that write to the kernel; `servers` answers the socket and HTTP from snapshots; `events` makes
//! decisions of the kernel's events, `deny-log` writes them, and `otlp` sends them; `counters` counts hits;
//! `names` asks for names that are new in rules, and keeps addresses that connections are open to;
//! `cni-namespaces` leaves to the CNI plugin what it needs without an agent.

mod cni_installation;
mod export;
mod history;
mod shutdown;
mod supervise;
mod threads;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use podgate_datapath::{
    AgentLock, Attacher, Datapath, DatapathOptions, DatapathReaders, EventRing, EventStream, HookKind,
    ObstacleFinder, Pins,
    network::NetworkWatch,
    privileges::{self, Needs},
};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    time::interval,
};

pub(crate) use self::cni_installation::keep_cni_plugin;
use self::{
    export::Export,
    history::save_flows,
    shutdown::Shutdown,
    supervise::{PAUSES, supervise},
    threads::Threads,
};
use crate::{
    check::kernel_advice,
    cni_plugin,
    control::{Earlier, HostOptions, Inputs, Reconciler, enforcement::Enforcement},
    endpoints::cni::CniWatch,
    names::{NameHandles, NameKeeper, NameWork, UntrustedServers},
    observe::{
        Denials, DenyLog, DenyLogWriter, EvictionMonitor, FlowHistory, HitCounting, LogTarget, LostLines,
        NamesOfAddress, Observer,
    },
    options::{
        AgentOptions, AttachBy, Established, KubeletHealth, MasqueradedIngress, Metrics, ShortcutMode,
        run_directory,
    },
    reachability::ReachabilityProbe,
    server::{
        ControlSocket, Http, NameSource, Server, ServerInputs, TaskRestarts, count_tables, read_counters,
    },
    snapshot::Snapshot,
    source::{kube, manifests},
    traces::{TraceControl, TraceSite},
};

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
    ensure!(
        options.shortcut == ShortcutMode::Off || options.established == Established::Keep,
        "--shortcut local needs --established keep: who takes it is not evaluated again"
    );
    // A source that cannot be reached by its configuration leaves nothing in the kernel.
    let connection = match &options.manifests[..] {
        [] => Some(kube::connect(options.kubeconfig.as_deref()).await?),
        _ => None,
    };
    let (export, flow_export) = export::export(options)?.unzip();
    privileges::required()?;
    let pins = Pins::create(&options.bpffs)?;
    let _lock = AgentLock::take(pins.directory()).context("another agent is running")?;
    let previous_agents = pins.previous_agents()?;
    let kernel_options = DatapathOptions {
        flows: options.flows,
        recheck: options.established == Established::Recheck,
        masqueraded: options.masqueraded_ingress == MasqueradedIngress::Allow,
        encapsulation: options.allow_encapsulation,
        shortcut: options.shortcut == ShortcutMode::Local,
        names_keep: options.names_keep,
        share: true,
    };
    let earlier = Earlier::of(&pins)?;
    // A distribution may have backported features to an older kernel: only a failed load counts.
    let loaded = Datapath::load(Some(&pins), kernel_options);
    let (mut datapath, readers) = loaded.map_err(|error| match kernel_advice(Path::new("/")) {
        Some(advice) => error.context(advice),
        None => error,
    })?;
    let name_writer = datapath.names.clone();
    let DatapathReaders { counters, tables, flow_counters, verdicts, clock, events, names } = readers;
    let mode = match options.hook {
        AttachBy::Auto => HookKind::of_this_kernel()?,
        AttachBy::Tcx => HookKind::Tcx,
        AttachBy::Clsact => HookKind::Clsact,
    };
    datapath.pin_programs(&pins, mode)?;
    let attacher = Attacher::new(mode, &pins)?;
    let counting_since = pins.made()?;
    let site = TraceSite {
        bpffs: options.bpffs.clone(),
        options: kernel_options,
        reads: datapath.reads,
        jiffies_per_second: clock.jiffies_per_second,
    };
    let (trace_control, traces) = TraceControl::new(site);
    let mut reconciler = Reconciler::new(options.node.clone(), datapath, attacher);
    let reachability = ReachabilityProbe::default();
    reconciler = reconciler.with_hosts(HostOptions::of(options), Some(reachability.clone()));
    reconciler = reconciler.with_resolvers(options.resolvers.iter().map(|resolver| resolver.0).collect());
    if options.shortcut == ShortcutMode::Local {
        reconciler = reconciler.with_shortcut(ObstacleFinder::new(mode)?);
    }

    let mut network = NetworkWatch::open()?;
    let mut cni = CniWatch::new(&options.cni_results)?;
    let mut cni_pods = CniWatch::new(&cni_plugin::pods_directory(&options.socket))?;
    let needs = Needs {
        files_of_others: !options.manifests.is_empty() || options.kubeconfig.is_some(),
        programs: connection.as_ref().is_some_and(|connection| connection.runs_programs),
    };
    // The enforcing thread alone may still read sockets of pods, in its first pass.
    let mut threads = Threads::new();
    let (start, started) = oneshot::channel::<(Enforcement, Arc<Inputs>, watch::Sender<Arc<Snapshot>>)>();
    threads.spawn("enforcement", move || async {
        let (enforcement, inputs, snapshots) = started.await.context("the agent has not started")?;
        enforcement.run(inputs, snapshots).await
    })?;
    privileges::give_up(needs)?;
    // Its thread has what the agent keeps, and it must be able to rotate the file with that.
    let lost_lines = LostLines::default();
    let (deny_log, deny_log_writer) = open_deny_log(options, lost_lines.clone())?.unzip();
    let flows = FlowHistory::new(options.node.clone(), options.history as usize);
    let saved_flows = FlowHistory::path(run_directory(&options.socket));
    match flows.restore(&saved_flows) {
        Ok(restored) => tracing::debug!(restored, "flows of an earlier agent"),
        Err(error) => tracing::warn!("the history of flows begins with this agent: {error:#}"),
    }
    let untrusted = UntrustedServers::default();
    let names_of_address = NamesOfAddress::of(names.clone(), untrusted.clone());
    let denials = Denials::new(deny_log, flow_export);
    let observer = Observer::new(options.node.clone(), denials, flows.clone(), names_of_address.clone());

    let mut pod_warnings = None;
    let probe = connection.as_ref().map(|connection| connection.probe.clone());
    let (mut updates, source, health) = match connection {
        Some(kube::ApiConnection { client, .. }) => {
            pod_warnings = Some(kube::warn_pods(client.clone(), &options.node));
            let (updates, health) = kube::watch(&client, options.node.clone(), options.allow_empty);
            (updates, "kubernetes", Some(health))
        }
        None => (manifests::watch(options.manifests.clone(), options.allow_empty)?, "manifests", None),
    };

    let enforcement = Enforcement::new(options, source, reconciler, (pins, previous_agents, earlier))
        .with_pod_warnings(pod_warnings.clone())
        .with_traces(traces)
        .needs(needs);
    let (snapshots, snapshots_seen) = watch::channel(Arc::new(enforcement.snapshot()));
    let (counting, hits) =
        HitCounting::new(counting_since, flow_counters, clock, snapshots_seen.clone(), names_of_address);
    let inputs = Arc::new(Inputs::default());
    let restarts = TaskRestarts::default();
    let name_work = NameWork::default();
    let name_handles = NameHandles {
        reader: names.clone(),
        writer: name_writer,
        tables: tables.clone(),
        verdicts: verdicts.clone(),
        keep: options.names_keep,
    };
    let name_keeper = NameKeeper::new(
        name_handles,
        snapshots_seen.clone(),
        (name_work.clone(), untrusted.clone()),
        pod_warnings.clone(),
    );
    let server = Server::new(ServerInputs {
        snapshots: snapshots_seen.clone(),
        read_counters: read_counters(counters.clone(), name_work),
        names: NameSource::new(names, tables.clone(), untrusted),
        count_tables: count_tables(tables),
        watches: health,
        hits,
        flows: flows.clone(),
        lost_lines,
        ask_tables: Arc::new(move |query| verdicts.ask(query)),
        restarts: restarts.clone(),
        export: export.as_ref().map(Export::standing),
        traces: trace_control,
    });
    let export_server = server.clone();

    let (socket, metrics) = (options.socket.clone(), options.metrics);
    let (bound, binding) = oneshot::channel();
    threads.spawn("servers", move || serve(server, socket, metrics, bound))?;
    // An address that cannot be bound ends the agent.
    binding.await.context("the servers cannot start")??;
    if let Some(writer) = deny_log_writer {
        threads.spawn("deny-log", move || async {
            DenyLogWriter::run(writer);
            Ok(())
        })?;
    }
    let export = export.map(|export| export.start(&mut threads, export_server)).transpose()?;
    let (seen, restarts_of_events) = (snapshots_seen.clone(), restarts.clone());
    threads.spawn("events", move || observe(events, observer, seen, restarts_of_events))?;
    let (history, path, restarts_of_history) = (flows.clone(), saved_flows.clone(), restarts.clone());
    threads.spawn("flow-history", move || save_flows(history, path, restarts_of_history))?;
    threads.spawn("names", move || name_keeper.run())?;
    threads.spawn("counters", move || counting.run(EvictionMonitor::new(counters)))?;
    let (socket, restarts_of_plugin) = (options.socket.clone(), restarts.clone());
    threads.spawn("cni-namespaces", move || async move {
        let keep = async || cni_plugin::keep_namespaces(&socket, snapshots_seen.clone()).await;
        supervise("cni-namespaces", restarts_of_plugin, PAUSES, keep).await;
        Ok(())
    })?;
    if start.send((enforcement, inputs.clone(), snapshots)).is_err() {
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
    let cni_plugin = supervise("cni-plugin", restarts.clone(), PAUSES, async || {
        loop {
            match cni_pods.next().await {
                Ok(pods) => inputs.cni_pods(pods),
                Err(error) => return error,
            }
        }
    });
    let kubelet = match &options.kubelet_healthz {
        KubeletHealth::Off => None,
        KubeletHealth::At(url) => Some(url.clone()),
    };
    let reachability = supervise("reachability", restarts, PAUSES, async || {
        reachability.run(probe.clone(), kubelet.clone()).await
    });
    tokio::pin!(cni_results, cni_plugin, reachability);
    loop {
        tokio::select! {
            update = updates.recv() => inputs.update(update.context("the objects cannot be watched any more")?),
            // Which devices were deleted meanwhile, another watch could not tell: the agent ends and starts
            // again.
            network = network.next() => inputs.network(network?),
            () = &mut cni_results => {}
            () = &mut cni_plugin => {}
            () = &mut reachability => {}
            ended = threads.ended() => return Err(ended),
            () = shutdown.wait() => break,
        }
    }
    if let Some(export) = export {
        export.flush().await;
    }
    threads.stop();
    if let Err(error) = flows.save(&saved_flows) {
        tracing::warn!("the next agent will not know the last flows: {error:#}");
    }
    tracing::info!("the agent ends, enforcement continues");
    Ok(())
}

fn open_deny_log(options: &AgentOptions, lost: LostLines) -> Result<Option<(DenyLog, DenyLogWriter)>> {
    let open = |target: &LogTarget| {
        DenyLog::open(target, options.deny_log_size, lost)
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
            // The main thread waits for this error, and reports it.
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

/// How often denials are summed up when no events come.
const SUMMARIES: Duration = Duration::from_secs(5);

/// Makes decisions of events, for ever.
async fn observe(
    ring: EventRing,
    mut observer: Observer,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    restarts: TaskRestarts,
) -> Result<()> {
    let mut ring = Some(ring);
    let mut summaries = interval(SUMMARIES);
    let read = async || {
        let Some(waiting) = ring.take() else { return anyhow!("the ring buffer is gone") };
        let mut stream = match EventStream::new(waiting) {
            Ok(stream) => stream,
            Err(failed) => {
                let (taken, error) = *failed;
                ring = Some(taken);
                return error;
            }
        };
        loop {
            let events = tokio::select! {
                events = stream.next(EVENTS_AT_ONCE) => events,
                _ = summaries.tick() => {
                    observer.report_summaries();
                    continue;
                }
            };
            match events {
                Ok(events) => {
                    let contexts = snapshots.borrow().contexts.clone();
                    observer.observe(&events, &contexts);
                }
                Err(error) => {
                    ring = Some(stream.into_ring());
                    return error;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    supervise("events", restarts, PAUSES, read).await;
    Ok(())
}
