//! `podgate advise`: NetworkPolicies that allow what was seen, and nothing else.
//!
//! In: a cluster, and flows of its past. Out: policies as YAML, after each connection that was seen has been
//! asked about again with these policies in force.

mod object;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use podgate_common::{Direction, Outcome, PolicyRole, Protocol};
use podgate_core::{
    advise::{
        AdviceScope, Observation, ObservedEnd, ObservedPort, Replay, SideVerdicts, advise, replay, standing,
        with_advice,
    },
    matrix::matrix,
    model::{Cluster, Name, ObjectName},
    port_spec::PortSpec,
};

use self::object::yaml;
use super::{
    offline::{self, ReadingOptions},
    output::{Format, print, say},
    policies::seconds,
};
use crate::{
    api::{self, FlowEnd, FlowFilter, FlowLine, FlowRecord, protocol_number},
    options::SOCKET,
    server::Ask,
};

/// Why another format is refused.
pub(super) const ONLY_YAML: &str = "policies are a stream of YAML; there is no other format";

/// Of a larger cluster it is not counted how many pairs of pods are closed.
const COUNTED_PODS: usize = 2_000;

/// Denied connections that are named.
const NAMED: usize = 20;

/// Write NetworkPolicies that allow the connections that were seen, and nothing else
#[derive(Debug, Args)]
#[command(after_help = "\
For each workload (pods with the same labels, but for those that differ between replicas and releases) one policy that \
isolates it in both directions. It allows what flows show, and the cluster's DNS. Selectors have as few labels as \
distinguish the workload from the others of its namespace.

The flows are lines of `podgate flows -o json` or `kubectl podgate flows -A -o json`; without --flows those of the \
agent on this node. Each connection is then asked about again with the policies in force: if one would be denied, \
nothing is written and the exit code is 1.

What one end let pass and the other denied was not allowed, and a connection that was denied last does not count. \
What was never seen is denied: jobs that did not run meanwhile, connections older than the agent, nodes whose flows \
are missing. So the policies are in audit mode, in which they only report (`podgate flows --denied`), unless --enforce \
is given.

Example:
  podgate advise cluster.yaml --flows flows.json -n shop > advised.yaml
  podgate matrix cluster.yaml --ports 80,443 --diff advised.yaml
  kubectl podgate advise -n shop > advised.yaml")]
pub(super) struct AdviseOptions {
    /// Files or directories of objects, `-` for standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Flows as lines of JSON, `-` for standard input [default: those of the running agent]
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    /// Only flows of the last TIME, for example 90s or 30m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    since: Option<u64>,
    /// Write policies that deny at once, not only report
    #[arg(long)]
    enforce: bool,
    #[command(flatten)]
    reading: ReadingOptions,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl AdviseOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        ensure!(format == Format::Table, ONLY_YAML);
        let Self { paths, flows, since, enforce, reading, socket } = self;
        let stdin = |path: &PathBuf| path == Path::new("-");
        if paths.iter().any(stdin) && flows.as_ref().is_some_and(stdin) {
            bail!("standard input can be read only once");
        }
        let read = offline::read(&paths, &reading)?;
        let mut seen = SeenFlows::since(since);
        match &flows {
            Some(file) if stdin(file) => seen.read(io::stdin().lock(), file)?,
            Some(file) => {
                let lines = File::open(file).with_context(|| file.display().to_string())?;
                seen.read(BufReader::new(lines), file)?;
            }
            None => seen.ask(&socket)?,
        }
        let scope =
            AdviceScope { namespace: reading.namespace.as_deref().map(Name::from), ..AdviceScope::default() };
        let text = seen.advise(&read.cluster, &scope, enforce)?;
        print(|out| out.write_all(text.as_bytes()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Connections that flows show, of those that policies are asked about.
#[derive(Debug, Default)]
pub(super) struct SeenFlows {
    oldest: Option<Timestamp>,
    /// Each kind once: two nodes see both ends of many.
    observations: BTreeMap<(ObservedEnd, ObservedEnd, ObservedPort), Observation>,
    /// Lines that are no flows.
    pub(super) unreadable: usize,
    /// Without ports: no rule with ports allows them.
    without_ports: usize,
}

impl SeenFlows {
    pub(super) fn since(age: Option<u64>) -> Self {
        let age = age.and_then(|age| SignedDuration::try_from(Duration::from_secs(age)).ok());
        Self { oldest: age.and_then(|age| Timestamp::now().checked_sub(age).ok()), ..Self::default() }
    }

    fn read(&mut self, lines: impl BufRead, file: &Path) -> anyhow::Result<()> {
        for (number, line) in (1..).zip(lines.lines()) {
            let place = || format!("{}:{number}", file.display());
            let line = line.with_context(place)?;
            if !line.trim().is_empty() {
                self.take(&serde_json::from_str(&line).with_context(place)?).with_context(place)?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, socket: &Path) -> anyhow::Result<()> {
        let filter = FlowFilter::default();
        let ask = Ask::Flows {
            filter,
            since_seconds: None,
            until_seconds: None,
            last: None,
            follow: false,
            pod_must_exist: false,
        };
        api::follow(socket, &ask, |line: FlowLine| {
            if let FlowLine::FlowRecord(flow) = line {
                self.take(&flow)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    pub(super) fn take(&mut self, flow: &FlowRecord) -> anyhow::Result<()> {
        let last: Timestamp = flow.time.parse().context("`time` is no time of RFC 3339")?;
        if self.oldest.is_some_and(|oldest| last < oldest) {
            return Ok(());
        }
        let passed = match flow.reason.policies() {
            PolicyRole::Allow | PolicyRole::NotIsolating | PolicyRole::WouldDeny => true,
            // Policies are asked where a service leads.
            PolicyRole::NotAsked if flow.reason == Outcome::Deferred => true,
            PolicyRole::NotAsked => return Ok(()),
            PolicyRole::Deny => false,
        };
        let ends = [&flow.source, &flow.destination].map(observed_end);
        let [Some(from), Some(to)] = ends else { return Ok(()) };
        let number = protocol_number(&flow.protocol).map(u32::from);
        let protocol = number.and_then(|number| Protocol::try_from(number).ok());
        let (Some(protocol), Some(port)) = (protocol, flow.destination.port) else {
            self.without_ports += usize::from(passed);
            return Ok(());
        };
        let [first, last] = [flow.first.as_ref().unwrap_or(&flow.time), &flow.time].map(String::clone);
        let port = (protocol, port);
        let seen = self.observations.entry((from.clone(), to.clone(), port)).or_insert_with(|| Observation {
            from,
            to,
            port,
            seen: [first.clone(), last.clone()],
            egress: SideVerdicts::default(),
            ingress: SideVerdicts::default(),
        });
        let side = match flow.direction {
            Direction::Egress => &mut seen.egress,
            Direction::Ingress => &mut seen.ingress,
        };
        let said = if passed { &mut side.passed } else { &mut side.denied };
        *said = said.take().max(Some(last.clone()));
        let [earliest, latest] = &mut seen.seen;
        if first < *earliest {
            *earliest = first;
        }
        if last > *latest {
            *latest = last;
        }
        Ok(())
    }

    /// The policies as a stream of YAML. What they are worth is said on stderr.
    pub(super) fn advise(
        &self,
        cluster: &Cluster,
        scope: &AdviceScope,
        enforce: bool,
    ) -> anyhow::Result<String> {
        let seen = standing(cluster, self.observations.values().cloned().collect());
        let advice = advise(cluster, &seen, scope);
        let advised = with_advice(cluster, &advice);
        let Replay { allowed, denied, gone } = replay(&advised, &seen);
        if !denied.is_empty() {
            for question in denied.iter().take(NAMED) {
                say(format_args!("denied: {} -> {} {}\n", question.from, question.to, question.port));
            }
            bail!("{} connections that were seen would be denied; no policy is written", denied.len());
        }
        let mode = if enforce { "enforced" } else { "in audit mode" };
        say(format_args!(
            "{} policies, {mode}; {allowed} kinds of connections that were seen are allowed, 0 denied\n",
            advice.policies.len()
        ));
        if gone > 0 {
            say(format_args!("{gone} kinds have an end that is gone: allowed, and not asked about again\n"));
        }
        if self.without_ports > 0 {
            say(format_args!(
                "{} kinds of flows have no ports (ICMP for example): no policy allows them\n",
                self.without_ports
            ));
        }
        if self.unreadable > 0 {
            say(format_args!("{} lines could not be read\n", self.unreadable));
        }
        for name in &advice.left_out {
            say(format_args!("no policy {name}: it has pods on nodes whose flows are missing\n"));
        }
        say_closed(cluster, &advised, &seen);
        yaml(&advice, enforce)
    }
}

/// Says how many pairs of pods can no longer connect.
fn say_closed(cluster: &Cluster, advised: &Cluster, seen: &[Observation]) {
    if cluster.pods.len() > COUNTED_PODS {
        return;
    }
    let ports = seen.iter().map(|Observation { port: (protocol, number), .. }| (*protocol, *number));
    let ports = ports.map(|(protocol, number)| PortSpec::number(protocol, number)).collect();
    let open = |cluster: &Cluster| -> usize {
        let matrix = matrix(cluster, &ports);
        let rows = matrix.ports.values().flat_map(|rows| rows.values());
        rows.map(podgate_core::matrix::VerdictRow::allowed).sum()
    };
    let (before, after) = (open(cluster), open(advised));
    say(format_args!("pairs of pods that can connect at the ports that were seen: {before} -> {after}\n"));
}

/// `None`: nothing is known of it.
fn observed_end(end: &FlowEnd) -> Option<ObservedEnd> {
    let name = |text: &String| {
        let (namespace, name) = text.split_once('/')?;
        Some(ObjectName::new(namespace, name))
    };
    match (&end.pod, &end.service, end.address) {
        (Some(pod), ..) => {
            let labels = end.labels.iter().map(|(key, value)| (Name::from(key), Name::from(value)));
            Some(ObservedEnd::Pod(name(pod)?, std::sync::Arc::new(labels.collect())))
        }
        (None, Some(service), _) => Some(ObservedEnd::Service(name(service)?)),
        (None, None, address) => address.map(ObservedEnd::Address),
    }
}
