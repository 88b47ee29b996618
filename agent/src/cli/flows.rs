//! `podgate flows`: decisions as they happen.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;

use super::{
    colour,
    endpoints::pod_name,
    output::{Format, say},
    policies::seconds,
};
use crate::{
    api::{self, FlowEnd, FlowFilter, FlowLine, FlowRecord, FlowVerdict},
    options::SOCKET,
    server::Ask,
};

/// Show new connections and drops: source, destination, verdict, and the policies and rules behind it
#[derive(Debug, Args)]
#[command(after_help = "\
Reports cover new connections and dropped packets, not the packets of established connections. Identical events are \
limited to a few per second, each with the number of packets it represents.

A connection that a rule about a name has allowed ends with `for` and the names that the pod has learnt the address \
for. The reason name-expired: such a rule would have allowed it, but the pod looked the name up too long ago.

Example:
  podgate flows --follow --denied
  podgate flows --pod production/api --since 5m -o json")]
pub(super) struct FlowsOptions {
    /// Keep printing new flows until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what was denied, or would be by a policy in audit mode
    #[arg(long)]
    denied: bool,
    /// Only from or to this pod
    #[arg(long, value_name = "NAMESPACE/POD", value_parser = pod)]
    pod: Option<String>,
    /// Only from or to this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only to this port, for example 80 or TCP/80, or of this protocol, for example ICMP
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Option<PortFilter>,
    /// Only flows of the last TIME, for example 90s or 30m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    since: Option<u64>,
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortFilter {
    protocol: Option<String>,
    number: Option<u16>,
}

impl FlowsOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let PortFilter { protocol, number: port } = self.port.unwrap_or_default();
        let filter =
            FlowFilter { denied: self.denied, pod: self.pod, namespace: self.namespace, port, protocol };
        // Without a word about the past, who follows wants what comes.
        let last = match (self.last, self.since, self.follow) {
            (None, None, true) => Some(0),
            (last, ..) => last,
        };
        let ask = Ask::Flows { filter, since_seconds: self.since, last, follow: self.follow };
        if self.end_with_stdin {
            std::thread::spawn(|| {
                let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
                std::process::exit(0);
            });
        }
        let mut stdout = io::stdout();
        let mut printer = Printer { format, colours: colour::on_stdout(), has_header: false, nodes: None };
        api::follow(&self.socket, &ask, |line: FlowLine| {
            let text = match line {
                FlowLine::FlowRecord(flow) => printer.text(&flow)?,
                FlowLine::Lost(flows) => {
                    say(format_args!("{flows} flows came faster than they were read\n"));
                    return Ok(ControlFlow::Continue(()));
                }
            };
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                // As `head` does when it has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
                written => written.map(ControlFlow::Continue).context("cannot print"),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

pub(super) fn pod(text: &str) -> Result<String, &'static str> {
    pod_name(text).map(|pod| pod.to_string())
}

pub(super) fn port(text: &str) -> Result<PortFilter, &'static str> {
    let number = |text: &str| text.parse().map_err(|_| "a port is a number as in 80 or TCP/80, or ICMP");
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
    Ok(PortFilter { protocol, number: port })
}

/// Lines for a person or for a program.
pub(super) struct Printer {
    format: Format,
    colours: bool,
    has_header: bool,
    /// The width of the names of nodes, where flows of several are shown.
    nodes: Option<usize>,
}

/// Lines come one at a time, so columns have a width beforehand: that of common names.
const ENDS: usize = 36;

impl Printer {
    /// `width`: of the longest name of a node.
    pub(super) const fn of_nodes(format: Format, colours: bool, width: usize) -> Self {
        Self { format, colours, has_header: false, nodes: Some(width) }
    }

    /// One line, the first time after the header.
    pub(super) fn text(&mut self, flow: &FlowRecord) -> anyhow::Result<String> {
        if self.format == Format::Json {
            return Ok(serde_json::to_string(flow).context("cannot print")? + "\n");
        }
        let mut text = String::new();
        if !self.has_header {
            self.has_header = true;
            text = self.of_node("NODE")
                + &line(["TIME", "SIDE", "FROM", "TO", "VERDICT", "REASON", "POLICIES"].map(str::to_owned));
        }
        let verdict = format!("{:10}", flow.verdict.to_string());
        let verdict = match (self.colours, flow.verdict) {
            (false, _) => verdict,
            (true, FlowVerdict::Allowed) => format!("\x1b[32m{verdict}\x1b[0m"),
            (true, FlowVerdict::Denied) => format!("\x1b[31m{verdict}\x1b[0m"),
            (true, FlowVerdict::WouldDeny) => format!("\x1b[33m{verdict}\x1b[0m"),
        };
        let to = match flow.destination.port {
            Some(port) => format!("{} {}/{port}", end(&flow.destination), flow.protocol),
            None => format!("{} {}", end(&flow.destination), flow.protocol),
        };
        // The day is known; a follower looks at the seconds.
        let time = flow.time.split_once('T').map_or(&*flow.time, |(_, time)| time).trim_end_matches('Z');
        text += &self.of_node(&flow.node);
        text += &line([
            time.to_owned(),
            flow.direction.to_string(),
            end(&flow.source),
            to,
            verdict,
            if flow.name_expired { NAME_EXPIRED.into() } else { flow.reason.to_string() },
            policies(flow),
        ]);
        Ok(text)
    }

    fn of_node(&self, node: &str) -> String {
        self.nodes.map_or_else(String::new, |width| format!("{node:width$}  "))
    }
}

fn line([time, side, from, to, verdict, reason, policies]: [String; 7]) -> String {
    let wide = ENDS + 9;
    let line =
        format!("{time:12}  {side:7}  {from:ENDS$}  {to:wide$}  {verdict:10}  {reason:14}  {policies}");
    line.trim_end().to_owned() + "\n"
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
    text.trim_start().to_owned()
}
