//! `podgate trace`: what it shows, and that the agent's own programs are back when it has ended, however.

use std::{collections::BTreeSet, net::UdpSocket, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use xtask::lab::{
    Agent, BRIEF, ClusterService, Follower, Lab, Node, PATIENT, Pod, Seen, Traffic, join, until,
};

use super::{
    Test,
    fixture::AllowDenyFixture,
    hooks::filters,
    kernel::{Object, are_gone, pinned},
    live::Live,
    policies::{egress, pods},
    scene::{apply, becomes},
    services::{PORT, WEB, server},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_trace_shows_each_step_of_what_is_denied_allowed_and_spoofed", steps),
    ("a_trace_shows_that_a_service_is_deferred_and_what_its_backend_meets", deferred),
    ("a_trace_that_ends_or_is_killed_leaves_the_agents_programs", client_ends),
    ("an_agent_that_ends_while_it_traces_leaves_verdicts_and_the_next_one_its_programs", agent_ends),
    ("a_flood_is_shown_in_part_and_counted", flood),
];

/// All programs at the hooks of some pods, and all that is pinned.
fn at_hooks(node: &Node, pods: &[&Pod]) -> Result<BTreeSet<Object>> {
    let mut objects: BTreeSet<_> = pinned(&node.bpffs().join("podgate"))?.into_iter().collect();
    for pod in pods {
        let filters = filters(&node.place, &pod.host_interface)?;
        objects.extend(filters.into_iter().filter_map(|filter| filter.program));
    }
    Ok(objects)
}

/// Starts a trace, and waits until it runs; what is at the hooks then that was not before.
fn start(node: &Node, of: &Pod, options: &[&str]) -> Result<(Follower, BTreeSet<Object>)> {
    let before = at_hooks(node, &[of])?;
    let follower = node.follow(&[&["trace", "--pod", of.name()], options].concat())?;
    let mut tracing = BTreeSet::new();
    until("programs that trace are at the hooks, and no pin of theirs is left", PATIENT, || {
        let now = at_hooks(node, &[of])?;
        tracing = now.difference(&before).copied().collect();
        let is_theirs = tracing.iter().all(Object::is_program) && !tracing.is_empty();
        // Both hooks: no program of the agent's is left at them.
        Ok((is_theirs && is_running(node)?).then_some(()))
    })?;
    Ok((follower, tracing))
}

/// Whether what was handed over has been taken.
fn is_running(node: &Node) -> Result<bool> {
    let layouts = std::fs::read_dir(node.bpffs().join("podgate"))?;
    for layout in layouts {
        let handed = std::fs::read_dir(layout?.path().join("traces"))?;
        for pin in handed {
            if pin?.file_name().to_string_lossy().contains('-') {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The lines of the next packet.
pub(crate) fn packet(follower: &Follower) -> Result<String> {
    let mut text = String::new();
    loop {
        let (line, _) = follower.next(PATIENT).with_context(|| format!("after {text:?}"))?;
        text += &line;
        text += "\n";
        if line.trim_start().starts_with("outcome ") {
            return Ok(text);
        }
    }
}

/// Each of these stands in the text, behind the one before.
fn ensure_in_order(text: &str, expected: &[&str]) -> Result<()> {
    let mut rest = text;
    for part in expected {
        let place = rest.find(part).with_context(|| format!("no {part:?} where it should be in:\n{text}"))?;
        rest = &rest[place + part.len()..];
    }
    Ok(())
}

fn steps(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let _agent = Agent::start(&fixture.node, &[])?;
    let AllowDenyFixture { node, server, client_allowed, client_denied, .. } = &fixture;
    let to = server.addresses.v4;
    for (client, expected, row, outcome) in [
        (client_denied, Seen::Blocked, "does not allow it", "denied, dropped"),
        (client_allowed, Seen::Reached, "allows it", "allowed, passes"),
    ] {
        let options = ["--from", client.name(), "--port", "TCP/80", "--count", "1"];
        let (follower, tracing) = start(node, server, &options)?;
        let seen = client.place.probe(to.into(), Traffic::Tcp(80), BRIEF)?;
        ensure!(seen == expected, "{}: {seen}", client.name());
        let text = packet(&follower)?;
        let (own, peer) = (format!("{} at ", server.name()), format!("({})", client.name()));
        ensure_in_order(
            &text,
            &[
                "ingress of ",
                server.name(),
                "TCP",
                &peer,
                " -> ",
                &to.to_string(),
                "headers ",
                "opens a connection",
                "flow ",
                "\n  endpoint ",
                &own,
                "ingress policy ",
                "(x/close)",
                "sender ",
                &peer,
                "identity ",
                &peer,
                "class ",
                "TCP/80",
                "row ",
                "(x/close)",
                row,
                "outcome ",
                outcome,
            ],
        )?;
        are_gone(&tracing).context("the programs of a trace that has its count")?;
    }

    // Under an address that is not its own.
    let stolen = client_allowed.addresses;
    client_denied.place.ip(&format!(
        "{}route replace {to} via 169.254.1.1 dev eth0 src {}",
        stolen.on("eth0"),
        stolen.v4
    ))?;
    let (follower, _) = start(node, client_denied, &["--to", server.name(), "--port", "80"])?;
    let seen = client_denied.place.probe(to.into(), Traffic::Tcp(80), BRIEF)?;
    ensure!(seen == Seen::Blocked, "with a stolen address: {seen}");
    let text = packet(&follower)?;
    let owner = format!(
        "{}: {} at",
        format_args!("{} ({})", stolen.v4, client_allowed.name()),
        client_allowed.name()
    );
    ensure_in_order(
        &text,
        &[
            "egress of ",
            client_denied.name(),
            "headers ",
            "endpoint ",
            "owner ",
            &owner,
            "outcome ",
            "spoofed, dropped",
        ],
    )
}

fn deferred(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let client = node.pod("x/client").labels(&[("app", "client")]).start()?;
    let ((good, _good), (bad, _bad)) = (server(&node, "good", "good")?, server(&node, "bad", "bad")?);
    let service = ClusterService::new("x/mixed", 1, "TCP", 80).to(&good, PORT).to(&bad, PORT);
    service.apply(&[&node])?;
    let to_good = format!("to: {}\n    ports: [{{port: {PORT}}}]", pods("good"));
    apply(lab.manifests(), "egress", &egress("client", &to_good))?;
    let _agent = Agent::start(&node, &[])?;
    let to = service.addresses().v4;
    let (at_client, _) = start(&node, &client, &["--to", "x/svc:mixed", "--port", "TCP/80"])?;
    let (at_bad, _) = start(&node, &bad, &["--from", "x/client"])?;
    becomes(&client.place, to.into(), WEB, Seen::Reached)?;
    becomes(&client.place, to.into(), WEB, Seen::Blocked)?;
    ensure_in_order(
        &packet(&at_client)?,
        &[
            "egress of x/client",
            "(x/svc:mixed)",
            "endpoint ",
            "egress policy ",
            "(x/egress)",
            "service ",
            "(x/svc:mixed) TCP/80: service ",
            "row ",
            "allows some of the backends",
            "outcome ",
            "deferred, passes",
        ],
    )?;
    ensure_in_order(
        &packet(&at_bad)?,
        &[
            "ingress of x/bad",
            "sender ",
            "x/client",
            "row ",
            "does not allow it",
            "outcome ",
            "denied-backend, dropped",
        ],
    )
}

fn client_ends(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let _agent = Agent::start(&fixture.node, &[])?;
    let (node, server) = (&fixture.node, &fixture.server);
    let before = at_hooks(node, &fixture.pods())?;
    let mut live = Live::open(&fixture.client_allowed.place, server.addresses.v4.into())?;
    // Killed, and ended by its time.
    for time in ["1h", "1s"] {
        let tracing = fixture.while_verdicts_hold(|| {
            let (follower, tracing) = start(node, server, &["--for", time])?;
            live.goes_on().context("a connection of before")?;
            let again = node.podgate(&["trace", "--pod", server.name(), "--count", "1"]);
            if time == "1h" {
                let again = again?;
                let text = again.text();
                ensure!(text.contains("the pod is traced already"), "a second trace: {text}");
                drop(follower);
            }
            until("the agent's programs are at the hooks", PATIENT, || {
                Ok((at_hooks(node, &fixture.pods())? == before).then_some(()))
            })?;
            Ok(tracing)
        })?;
        are_gone(&tracing)?;
        live.goes_on().context("a connection of before")?;
    }
    fixture.verdicts_hold()
}

fn agent_ends(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let (node, server) = (&fixture.node, &fixture.server);
    let first = Agent::start(node, &[])?;
    let mut live = Live::open(&fixture.client_allowed.place, server.addresses.v4.into())?;
    let (_follower, tracing) = start(node, server, &[])?;
    let second = fixture.while_verdicts_hold(|| {
        first.kill()?;
        // No one reads what they report.
        fixture.verdicts_hold()?;
        let still_there = at_hooks(node, &[server])?;
        ensure!(tracing.is_subset(&still_there), "{tracing:?} are at the hooks until an agent comes");
        Agent::start(node, &[])
    })?;
    are_gone(&tracing).context("with the next agent")?;
    live.goes_on().context("a connection of before")?;
    fixture.verdicts_hold()?;

    // One that ends in order puts its own programs back itself.
    let (_follower, tracing) = start(node, server, &[])?;
    second.terminate()?;
    are_gone(&tracing).context("the agent has ended")?;
    fixture.verdicts_hold()
}

fn flood(lab: &mut Lab) -> Result<()> {
    const SECONDS: u32 = 3;
    let fixture = AllowDenyFixture::new(lab)?;
    let agent = Agent::start(&fixture.node, &[])?;
    let (node, client, to) = (&fixture.node, &fixture.client_denied, fixture.server.addresses.v4);
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let time = format!("{SECONDS}s");
            node.podgate(&["trace", "--pod", client.name(), "--for", &time, "-o", "json"])
        });
        client.place.run(|| -> Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            while !asking.is_finished() {
                // Full queues are no matter here.
                (0..200).for_each(|_| drop(socket.send_to(b"x", (to, 9))));
                thread::park_timeout(Duration::from_millis(1));
            }
            Ok(())
        })?;
        join(asking)
    })?;
    ensure!(asked.status.success(), "{}", asked.stderr);
    let shown = asked.stdout.lines().count();
    // A part of a second at both ends, and each CPU.
    let most = 128 * (SECONDS as usize + 2) * thread::available_parallelism()?.get();
    ensure!(shown > 100 && shown <= most, "{shown} packets shown, of at most {most}");
    ensure!(asked.stderr.contains(" beyond the rate"), "{}", asked.stderr);
    let spent = agent.cpu_time()?;
    ensure!(spent < Duration::from_secs(u64::from(SECONDS)), "the agent has taken {spent:?}");
    fixture.verdicts_hold()
}
