//! Flows of many nodes: in order, within a bounded memory, and on again after an agent was replaced.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Child,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    plugin::{peak_memory, run, start},
    server::{Behaviour, PODS, Server, agent_pod},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// One line of an agent, at so many milliseconds after a certain time.
fn flow(milliseconds: u32, pod: &str) -> String {
    let time = format!("2026-01-01T00:00:{:02}.{:03}Z", milliseconds / 1_000, milliseconds % 1_000);
    let end = |name: &str| json!({"address": "10.0.0.1", "port": 80, "pod": name});
    let line = json!({
        "time": time, "node": "a liar", "direction": "ingress", "verdict": "denied", "reason": "denied",
        "protocol": "TCP", "source": end(pod), "destination": end("shop/web"), "policies": [], "certain": true,
        "packets": 1, "revision": 3,
    });
    format!("{line}\n")
}

/// The lines of a child's output as they come.
fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    received
}

fn wait_for(lines: &mpsc::Receiver<String>, part: &str) -> String {
    let deadline = Instant::now() + DEADLINE;
    let mut seen = String::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if line.contains(part) => return line,
            Ok(line) => seen += &(line + "\n"),
            Err(error) => panic!("no line with {part:?} ({error}) in:\n{seen}"),
        }
    }
}

fn kill(mut child: Child) {
    child.kill().expect("a child");
    child.wait().expect("a child");
}

#[test]
fn the_past_of_all_nodes_is_merged_by_time_and_the_newest_are_kept() {
    let server = Server::with_nodes(3, |node, _, arguments| {
        if arguments[0] == "version" {
            return Behaviour::Prints(json!({"version": "9.0"}).to_string());
        }
        let options = arguments.join(" ");
        assert!(options.contains("--denied") && options.contains("--since=900s"), "{options}");
        assert!(options.contains("--namespace=shop") && options.contains("--end-with-stdin"), "{options}");
        match node {
            "node-000" => Behaviour::Prints(flow(1_000, "shop/a") + &flow(3_000, "shop/c\u{1b}[2J")),
            "node-001" => {
                Behaviour::Prints(flow(2_000, "shop/b") + "no JSON\n" + &"x".repeat(100_000) + "\n")
            }
            _ => Behaviour::Fails("error: no agent answers\n"),
        }
    });
    let done = run(&server, "flows --denied --since 15m");
    let expected = "\
NODE      TIME (UTC)               SIDE     FROM                TO                        VERDICT     REASON          POLICIES
node-000  2026-01-01 00:00:01.000  ingress  shop/a:80           shop/web TCP/80           denied      policy
node-001  2026-01-01 00:00:02.000  ingress  shop/b:80           shop/web TCP/80           denied      policy
node-000  2026-01-01 00:00:03.000  ingress  shop/c\\u{1b}[2J:80  shop/web TCP/80           denied      policy
";
    assert_eq!(done.stdout, expected, "{}", done.stderr);
    assert!(!done.stdout.contains('\u{1b}'), "{}", done.stdout);
    assert_eq!(done.code, Some(4));
    let said = "2 lines could not be read\npodgate 9.0 runs on 3 nodes (node-000, node-001, node-002), this is podgate 0.1.0\nnode-002: its agent says: no agent answers\n2 of 3 nodes answered\n";
    assert_eq!(done.stderr, said);
    let done = run(&server, "flows --denied --since 15m --last 1 -o json");
    let only: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&only["node"], &only["time"]), (&json!("node-000"), &json!("2026-01-01T00:00:03.000Z")));
    assert!(done.stderr.contains("2 older flows are left out (--last)"), "{}", done.stderr);
    for line in ["flows -o yaml", "flows -l app=web", "flows --port http/80"] {
        assert_ne!(run(&server, line).code, Some(0), "{line}");
    }
}

#[test]
fn a_pod_that_does_not_exist_is_an_error_unless_flows_of_it_are_known() {
    let server = Server::with_nodes(2, |node, _, arguments| {
        let is_of = arguments.iter().any(|argument| argument == "--pod=shop/gone");
        Behaviour::Prints(if is_of && node == "node-001" { flow(1_000, "shop/gone") } else { String::new() })
    });
    let pods = vec![json!({"metadata": {"name": "quiet", "namespace": "shop"}})];
    server.objects().lists.insert("/api/v1/namespaces/shop/pods".into(), pods);
    for (line, code, said) in [
        (
            "--pod shop/quiet",
            0,
            "no flow in namespace shop (-A for all) that matches\n2 of 2 nodes answered\n",
        ),
        ("--pod shop/gone", 0, "2 of 2 nodes answered\n"),
        (
            "--pod shop/absent",
            1,
            "2 of 2 nodes answered\nerror: no pod shop/absent: the API server does not have it\n",
        ),
        ("--pod shop/absent --follow", 1, "error: no pod shop/absent: the API server does not have it\n"),
        // Who may not list pods learns that there are none.
        (
            "--pod other/absent",
            0,
            "no flow in namespace shop (-A for all) that matches\n2 of 2 nodes answered\n",
        ),
    ] {
        let done = run(&server, &format!("flows {line}"));
        assert_eq!((done.code, &*done.stderr), (Some(code), said), "{line}");
    }
}

#[test]
fn a_long_past_does_not_fill_the_memory() {
    let server = Server::with_nodes(20, |_, _, _| {
        let line = flow(1_000, "shop/a").repeat(5_000);
        Behaviour::Prints(line)
    });
    let done = run(&server, "flows -A --request-timeout 60s");
    assert_eq!(done.stdout.lines().count(), 10_001, "{}", done.stderr);
    assert!(done.stderr.contains("90000 older flows are left out (--last)"), "{}", done.stderr);
    println!("{:?}, {} MiB", done.took, done.memory >> 20);
    assert!(done.memory < 100 << 20, "{} MiB", done.memory >> 20);
}

#[test]
fn followed_nodes_are_in_order_and_an_agent_that_is_replaced_is_followed_on() {
    let server = Server::with_nodes(2, |node, pod, _| match (node, pod) {
        ("node-000", "podgate-node-000") => {
            Behaviour::Floods { line: flow(5_000, "shop/old"), every: Duration::from_millis(1), lines: 1 }
        }
        ("node-000", _) => Behaviour::Follows(flow(7_000, "shop/new")),
        _ => Behaviour::Follows(flow(4_000, "shop/other")),
    });
    let mut child = start(&server, "flows --follow -A");
    let (shown, said) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    // What is later in time waits for what is earlier.
    assert!(wait_for(&shown, "shop/").starts_with("node-001  2026-01-01 00:00:04.000"));
    assert!(wait_for(&shown, "shop/").starts_with("node-000  2026-01-01 00:00:05.000"));
    wait_for(&said, "node-000: the connection failed: the stream ended; trying again");
    {
        let mut objects = server.objects();
        let pods = objects.lists.get_mut(PODS).unwrap();
        pods[0] = agent_pod("node-000", "podgate-new", "sha256:a");
    }
    wait_for(&said, "node-000: pod podgate-node-000 was replaced by podgate-new");
    let back = wait_for(&said, "node-000: back, ");
    assert!(back.ends_with(" s not seen"), "{back}");
    wait_for(&shown, "shop/new");
    kill(child);
}

#[test]
fn a_connection_that_breaks_is_noticed_at_once_and_the_node_is_followed_on() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::with_nodes(1, move |_, _, _| {
        match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0..2 => Behaviour::Breaks(flow(1_000, "shop/before")),
            _ => Behaviour::Follows(flow(2_000, "shop/after")),
        }
    });
    let mut child = start(&server, "flows --follow -A");
    let (shown, said) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    wait_for(&shown, "shop/before");
    wait_for(&said, "node-000: the connection failed: it ended before the answer was complete; trying again");
    wait_for(&shown, "shop/after");
    kill(child);

    let server = Server::with_nodes(1, |_, _, _| Behaviour::Breaks(String::new()));
    let done = run(&server, "status --request-timeout 60s");
    let said =
        "node-000: the connection failed: it ended before the answer was complete\n0 of 1 nodes answered\n";
    assert_eq!((done.code, &*done.stderr), (Some(1), said));
    assert!(done.took < DEADLINE, "{:?}", done.took);
}

#[test]
fn a_megabyte_a_second_of_one_node_is_bounded_and_what_is_lost_is_counted() {
    // Some 30 MB as fast as they go: far more than may wait.
    let server = Server::with_nodes(2, |node, _, _| match node {
        "node-000" => Behaviour::Floods {
            line: flow(5_000, "shop/loud").repeat(100),
            every: Duration::from_millis(1),
            lines: 1_000,
        },
        _ => Behaviour::Follows(flow(4_000, "shop/quiet")),
    });
    let mut child = start(&server, "flows --follow -A");
    let (shown, said) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    wait_for(&shown, "shop/quiet");
    let lost = wait_for(&said, "flows came faster than they were shown");
    assert!(lost.starts_with("node-000: "), "{lost}");
    wait_for(&said, "node-000: the connection failed: the stream ended");
    let memory = peak_memory(child.id());
    println!("{} MiB", memory >> 20);
    assert!(memory > 1 << 20 && memory < 100 << 20, "{} MiB", memory >> 20);
    kill(child);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let server = Server::with_nodes(1, |_, _, _| Behaviour::Floods {
        line: flow(5_000, "shop/a"),
        every: Duration::from_millis(20),
        lines: 10_000,
    });
    let mut child = start(&server, "flows --follow -A");
    let mut first = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < DEADLINE);
        thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}
