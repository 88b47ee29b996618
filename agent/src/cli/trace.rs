//! `podgate trace`: each step of the decisions about a pod's packets.

use std::{
    io::{self, Write},
    net::Shutdown,
    ops::ControlFlow,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{self, ExitCode},
    thread,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use podgate_core::{explain::EndpointRef, model::ObjectName};
use podgate_datapath::{Pins, hand_over_tracing};

use super::{
    endpoints::pod_name,
    flows::{PortFilter, port},
    output::{Format, say},
    policies::seconds,
};
use crate::{
    api::{self, RELEASE, TraceLine, TraceSetup, TraceSummary, TracedPacket, protocol_number},
    options::SOCKET,
    run,
    server::Ask,
};

/// Show each step of the decision about packets of a pod: headers, flow, endpoints, identity, class, row
#[derive(Debug, Args)]
#[command(after_help = "\
While it runs, programs that trace are at the two hooks of the pod's interface, in place of the agent's own: the same \
source, with a report of each look-up. They use the same tables and give the same verdicts, but are slower, and the pod \
takes no short cut. This command loads them, which takes CAP_BPF and CAP_PERFMON: run it as root, or by kubectl exec in \
the agent's pod. The agent puts its own programs back when the command ends, however it ends.

Packets in both directions match. At most 128 packets a second are shown of each CPU; the last line says how many were \
not. One trace at a time for each pod, and four on a node.

What goes to a service with a forbidden backend is deferred, and its backend evaluated where it is known: at the pod that \
gets the packet, or where it leaves the node. Trace the receiver to see that.

Example:
  podgate trace --pod production/api --port 5432 --count 10
  podgate trace --pod production/api --from production/web --for 30s -o json")]
pub(super) struct TraceOptions {
    /// The pod whose packets are traced; it runs on this node
    #[arg(long, value_name = "NAMESPACE/POD", value_parser = pod_name)]
    pod: ObjectName,
    /// Only packets of connections from here: NAMESPACE/POD, node/NODE or an address
    #[arg(long, value_name = "END")]
    from: Option<EndpointRef>,
    /// Only packets of connections to here: the same, or NAMESPACE/svc:SERVICE
    #[arg(long, value_name = "END")]
    to: Option<EndpointRef>,
    /// Only to this port, for example 80 or TCP/80, or of this protocol, for example ICMP or IP/47
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Option<PortFilter>,
    /// End after N packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after TIME, at most 24h, for example 30s or 5m
    #[arg(long = "for", value_name = "TIME", value_parser = seconds, default_value = "10m")]
    time: u64,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl TraceOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { pod, from, to, port, count, time, socket } = self;
        let (protocol, port) = match port {
            None => (None, None),
            Some(filter) if filter.message.is_some() => {
                bail!("--port {filter}: a trace tells messages of ICMP by protocol alone, as in --port ICMP")
            }
            Some(PortFilter { protocol, number, .. }) => {
                let protocol = protocol.map(|name| {
                    protocol_number(&name).with_context(|| format!("--port: no protocol {name}"))
                });
                (protocol.transpose()?, number)
            }
        };
        let ask = Ask::Trace { pod, from, to, protocol, port, count, seconds: time };
        let mut stdout = io::stdout();
        let mut is_ended = false;
        api::follow_after(&socket, &ask, load, |line: TraceLine| {
            let text = match (line, format) {
                (TraceLine::Packet(packet), Format::Table) => text(&packet),
                (TraceLine::Packet(packet), Format::Json) => {
                    serde_json::to_string(&packet).context("cannot print")? + "\n"
                }
                (TraceLine::Ended(summary), _) => {
                    is_ended = true;
                    say(ended(&summary));
                    return Ok(ControlFlow::Break(()));
                }
            };
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                // As `head` does when it has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    is_ended = true;
                    Ok(ControlFlow::Break(()))
                }
                written => written.map(ControlFlow::Continue).context("cannot print"),
            }
        })?;
        ensure!(is_ended, "the agent has ended; the next one puts its own programs back when it starts");
        Ok(ExitCode::SUCCESS)
    }
}

/// Loads what the agent asks for, and leaves it to the agent.
fn load(setup: TraceSetup, connection: &UnixStream) -> anyhow::Result<()> {
    let TraceSetup { release, bpffs, ifindex, programs, filter } = setup;
    ensure!(
        release == RELEASE,
        "the agent is podgate {release}, this is {RELEASE}: trace with the agent's own binary, as in `kubectl exec` into \
         its pod"
    );
    let filter = filter.filter().context("the agent asks for too many addresses")?;
    hand_over_tracing(&Pins::at(&bpffs), ifindex, programs.into(), &filter)
        .context("cannot load the programs that trace")?;
    end_by_signal(connection.try_clone().context("the connection")?);
    Ok(())
}

/// The first Ctrl-C ends the trace, so that its end can be shown; the second one does not wait for that.
fn end_by_signal(connection: UnixStream) {
    thread::spawn(move || {
        if run::until_signal().is_ok() {
            let _ = connection.shutdown(Shutdown::Write);
            let _ = run::until_signal();
            process::exit(INTERRUPTED);
        }
    });
}

/// As shells count a process that SIGINT has ended.
const INTERRUPTED: i32 = 130;

/// One packet: a line for both ends, one for each step, and what became of it.
fn text(packet: &TracedPacket) -> String {
    let TracedPacket {
        time,
        direction,
        interface,
        protocol,
        source,
        destination,
        steps,
        outcome,
        passes,
        revision,
    } = packet;
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time).trim_end_matches('Z');
    let mut text = format!("{time}  {direction} of {interface}  {protocol}  {source} -> {destination}\n");
    for step in steps {
        text += &format!("  {:12}  {}\n", step.step, step.detail);
    }
    let verdict = if *passes { "passes" } else { "dropped" };
    text + &format!("  {:12}  {outcome}, {verdict} (revision {revision}): {}\n", "outcome", outcome.meaning())
}

/// What was lost is never left out.
fn ended(summary: &TraceSummary) -> String {
    let TraceSummary { reason, packets, shown, limited, unread } = summary;
    let mut text = format!("ended: {reason}; {shown} of {packets} packets shown");
    if *limited > 0 {
        text += &format!(", {limited} beyond the rate");
    }
    if *unread > 0 {
        text += &format!(", {unread} came faster than they were read");
    }
    text + "\n"
}
