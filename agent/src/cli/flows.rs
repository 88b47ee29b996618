//! `podgate flows`: decisions as they happen.

use std::{
    fmt,
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use podgate_common::{Outcome, RuleProtocol};
use podgate_core::port_spec::{Port, PortSpec};

use super::{
    colour::ColourOptions,
    endpoints::pod_name,
    output::{Format, print, say},
    policies::seconds,
};
use crate::{
    api::{self, FlowEnd, FlowFilter, FlowLine, FlowRecord, FlowVerdict, icmp_message},
    options::SOCKET,
    server::Ask,
};

/// Show new connections and drops: source, destination, verdict, and the policies and rules behind it
#[derive(Debug, Args)]
#[command(after_help = "\
Reports cover new connections and dropped packets, not the packets of established connections. Identical events are \
limited to a few per second, each with the number of packets it represents.

The table has times in UTC, the source port of the newest packet, and columns as wide as its names. The reason `policy` \
stands for the rules of the policies that are named, or for none of them that matches.

The past has one line for each kind of flow: both ends, port, verdict and policies, with the times of its first and \
last packet. The agent keeps it in memory and, across restarts, in a file beside its socket (see agent --history).

A connection that a rule about a name has allowed ends with `for` and the names that the pod has learnt the address \
for. The reason name-expired: such a rule would have allowed it, but the pod looked the name up too long ago. The \
reason name-unlearnt: the pod has rules about names, and no reply of a resolver has had the address; \
resolver-untrusted: so it is, and the pod asks a server that is not believed (`podgate names`).

Example:
  podgate flows --follow --denied
  podgate flows --pod production/api --since 5m -o json")]
pub(super) struct FlowsOptions {
    #[command(flatten)]
    selection: FlowSelection,
    /// Only from or to this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only the newest N of those that match
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// End when standard input does: who asks through an API server may go without a word
    #[arg(long, hide = true)]
    end_with_stdin: bool,
    /// Socket of the running agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

/// Which flows are wanted, of one node or of many.
#[derive(Debug, Args)]
pub(super) struct FlowSelection {
    /// Keep printing new flows until interrupted
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only what was denied, or would be by a policy in audit mode
    #[arg(long)]
    pub(super) denied: bool,
    /// Only from or to this pod, which must exist unless there are flows of it
    #[arg(long, value_name = "NAMESPACE/POD", value_parser = pod)]
    pub(super) pod: Option<String>,
    /// Only to this port, for example 80 or TCP/80, or of this protocol, for example ICMP, ICMP/8 or IP/47
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub(super) port: Option<PortFilter>,
    /// Only flows of the last TIME, for example 90s or 30m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(super) since: Option<u64>,
    /// Only flows that began before the last TIME, for example 5m
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "follow")]
    pub(super) until: Option<u64>,
    #[command(flatten)]
    pub(super) colours: ColourOptions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortFilter {
    pub(super) protocol: Option<String>,
    pub(super) number: Option<u16>,
    /// Of ICMP, in place of a number.
    pub(super) message: Option<String>,
}

impl FlowsOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { selection, namespace, last, end_with_stdin, socket } = self;
        let FlowSelection { follow, denied, pod, port, since, until, colours } = selection;
        let PortFilter { protocol, number: port, message } = port.unwrap_or_default();
        let filter = FlowFilter { denied, pod, namespace, port, protocol, message };
        // Without a word about the past, who follows wants what comes.
        let last = match (last, since, follow) {
            (None, None, true) => Some(0),
            (last, ..) => last,
        };
        let (since_seconds, until_seconds) = (since, until);
        // Who asks many nodes asks the API server for the pod.
        let pod_must_exist = !end_with_stdin;
        let ask = Ask::Flows { filter, since_seconds, until_seconds, last, follow, pod_must_exist };
        if end_with_stdin {
            std::thread::spawn(|| {
                let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
                std::process::exit(0);
            });
        }
        let mut stdout = io::stdout();
        let mut printer = Printer::new(format, colours.on_stdout(), None);
        // The first ones, by which columns are laid out; none where the next one may be long in coming.
        let mut first: Vec<FlowRecord> = Vec::new();
        let is_laid_out = follow || format == Format::Json;
        let mut is_waiting = !is_laid_out;
        let mut has_enough = false;
        api::follow(&socket, &ask, |line: FlowLine| {
            let flow = match line {
                FlowLine::FlowRecord(flow) => *flow,
                FlowLine::Lost(flows) => {
                    say(format_args!("{flows} flows came faster than they were read\n"));
                    return Ok(ControlFlow::Continue(()));
                }
            };
            if is_waiting {
                first.push(flow);
                is_waiting = first.len() < LAID_OUT;
                return Ok(ControlFlow::Continue(()));
            }
            let text = printer.table(first.drain(..).chain([flow]))?;
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                // As `head` does when it has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    has_enough = true;
                    Ok(ControlFlow::Break(()))
                }
                written => written.map(ControlFlow::Continue).context("cannot print"),
            }
        })?;
        let text = printer.table(first.into_iter())?;
        print(|stdout| stdout.write_all(text.as_bytes()))?;
        ensure!(!follow || has_enough, "the agent has ended, and with it what was followed");
        Ok(ExitCode::SUCCESS)
    }
}

/// Flows of the past by which columns are laid out.
const LAID_OUT: usize = 1000;

/// As it is given on the command line.
impl fmt::Display for PortFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, number, message } = self;
        let is_number = |protocol: &String| protocol.starts_with(|first: char| first.is_ascii_digit());
        let place = number.map(|number| number.to_string()).or_else(|| message.clone());
        let parts = [
            protocol.as_ref().filter(|name| is_number(name)).map(|_| "IP".to_owned()),
            protocol.clone(),
            place,
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("/"))
    }
}

fn pod(text: &str) -> Result<String, &'static str> {
    pod_name(text).map(|pod| pod.to_string())
}

pub(super) fn port(text: &str) -> Result<PortFilter, &'static str> {
    let number = |text: &str| text.parse().map_err(|_| "a port is a number as in 80 or TCP/80, or ICMP");
    if let Ok(PortSpec { protocol, port: Port::Number(place) }) = text.parse() {
        match protocol {
            RuleProtocol::Tcp | RuleProtocol::Udp | RuleProtocol::Sctp => {}
            RuleProtocol::Icmp | RuleProtocol::IcmpV6 => {
                let (protocol, message) = (Some(protocol.to_string()), Some(icmp_message(place)));
                return Ok(PortFilter { protocol, number: None, message });
            }
            RuleProtocol::Other => {
                return Ok(PortFilter { protocol: Some(place.to_string()), ..PortFilter::default() });
            }
        }
    }
    let (protocol, port) = match text.split_once('/') {
        Some((protocol, port)) => (Some(protocol), Some(number(port)?)),
        None if text.starts_with(|first: char| first.is_ascii_digit()) => (None, Some(number(text)?)),
        None => (Some(text), None),
    };
    let known = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"];
    let protocol = match protocol {
        None => None,
        Some(name) => {
            let known = known.into_iter().find(|known| known.eq_ignore_ascii_case(name));
            Some(known.ok_or("a protocol is TCP, UDP, SCTP, ICMP or ICMPv6")?.to_owned())
        }
    };
    Ok(PortFilter { protocol, number: port, message: None })
}

/// Lines for a person or for a program.
pub(super) struct Printer {
    format: Format,
    colours: bool,
    has_header: bool,
    /// The width of the names of nodes, where flows of several are shown.
    nodes: Option<usize>,
    /// The widths of the columns FROM and TO: they grow with what is shown.
    ends: [usize; 2],
}

impl Printer {
    /// `nodes`: the width of the longest name of a node.
    pub(super) const fn new(format: Format, colours: bool, nodes: Option<usize>) -> Self {
        Self { format, colours, has_header: false, nodes, ends: [16, 24] }
    }

    /// The lines of flows that are known together.
    pub(super) fn table(&mut self, flows: impl Iterator<Item = FlowRecord>) -> anyhow::Result<String> {
        let flows: Vec<FlowRecord> = flows.collect();
        flows.iter().for_each(|flow| self.fit(flow));
        flows.iter().map(|flow| self.text(flow)).collect()
    }

    /// Makes columns as wide as this flow needs.
    pub(super) fn fit(&mut self, flow: &FlowRecord) {
        if self.format == Format::Table {
            for (width, cell) in self.ends.iter_mut().zip([source(flow), destination(flow)]) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }

    /// One line, the first time after the header.
    pub(super) fn text(&mut self, flow: &FlowRecord) -> anyhow::Result<String> {
        if self.format == Format::Json {
            return Ok(serde_json::to_string(flow).context("cannot print")? + "\n");
        }
        self.fit(flow);
        let mut text = String::new();
        if !self.has_header {
            self.has_header = true;
            text = self.of_node("NODE")
                + &self.line(
                    ["TIME (UTC)", "SIDE", "FROM", "TO", "VERDICT", "REASON", "POLICIES"].map(str::to_owned),
                );
        }
        let verdict = format!("{:10}", flow.verdict.to_string());
        let verdict = match (self.colours, flow.verdict) {
            (false, _) => verdict,
            (true, FlowVerdict::Allowed) => format!("\x1b[32m{verdict}\x1b[0m"),
            (true, FlowVerdict::Denied) => format!("\x1b[31m{verdict}\x1b[0m"),
            (true, FlowVerdict::WouldDeny) => format!("\x1b[33m{verdict}\x1b[0m"),
        };
        text += &self.of_node(&flow.node);
        text += &self.line([
            time(&flow.time),
            flow.direction.to_string(),
            source(flow),
            destination(flow),
            verdict,
            reason(flow),
            policies(flow),
        ]);
        Ok(text)
    }

    fn of_node(&self, node: &str) -> String {
        self.nodes.map_or_else(String::new, |width| format!("{node:width$}  "))
    }

    fn line(&self, [time, side, from, to, verdict, reason, policies]: [String; 7]) -> String {
        let [left, right] = self.ends;
        let line =
            format!("{time:23}  {side:7}  {from:left$}  {to:right$}  {verdict:10}  {reason:14}  {policies}");
        line.trim_end().to_owned() + "\n"
    }
}

/// `2026-11-23 06:08:12.910`
fn time(time: &str) -> String {
    time.trim_end_matches('Z').replacen('T', " ", 1)
}

/// With its port, where one is known.
fn source(flow: &FlowRecord) -> String {
    let of = end(&flow.source);
    match flow.source.port {
        Some(port) if of.contains(':') && !of.contains('/') => format!("[{of}]:{port}"),
        Some(port) => format!("{of}:{port}"),
        None => of,
    }
}

fn destination(flow: &FlowRecord) -> String {
    let port = flow.destination.port.map(|port| port.to_string()).or_else(|| flow.message.clone());
    let port = port.map_or_else(String::new, |port| format!("/{port}"));
    format!("{} {}{port}", end(&flow.destination), flow.protocol)
}

/// Not the verdict once more: where policies have decided, these stand beside it.
fn reason(flow: &FlowRecord) -> String {
    match (flow.name_missing, flow.reason) {
        (Some(missing), _) => missing.to_string(),
        (None, _) if flow.name_expired => NAME_EXPIRED.into(),
        (None, Outcome::Allowed | Outcome::Denied | Outcome::WouldDeny) => "policy".into(),
        (None, reason) => reason.to_string(),
    }
}

/// In place of the reason: a name had ended that would have allowed it.
const NAME_EXPIRED: &str = "name-expired";

/// A name, else an address.
fn end(end: &FlowEnd) -> String {
    let FlowEnd { address, pod, service, node, .. } = end;
    match (pod, service, node, address) {
        (Some(pod), ..) => pod.clone(),
        (_, Some(service), ..) => service.replacen('/', "/svc:", 1),
        (_, _, Some(node), _) => format!("node/{node}"),
        (.., Some(address)) => address.to_string(),
        (.., None) => "-".into(),
    }
}

/// Who decided, and of how many alike.
fn policies(flow: &FlowRecord) -> String {
    let policies = flow.policies.iter().map(|policy| {
        let rules: Vec<_> = policy.rules.iter().map(usize::to_string).collect();
        if rules.is_empty() {
            policy.policy.clone()
        } else {
            format!("{}[{}]", policy.policy, rules.join(","))
        }
    });
    let mut text = policies.collect::<Vec<_>>().join(" ");
    if !flow.names.is_empty() {
        text += &format!(" for {}", flow.names.join(", "));
    }
    if !flow.certain {
        text += " (policies changed at that moment)";
    }
    if flow.packets > 1 {
        text += &format!(" x{}", flow.packets);
    }
    if let Some(first) = &flow.first {
        text += &format!(" since {}", time(first));
    }
    text.trim_start().to_owned()
}
