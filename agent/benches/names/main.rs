//! What names of domains cost: the replies of a resolver that the programs read, and new connections that a
//! name opens.
//!
//! In: the loaded programs, a pod whose rules have names and one whose rules have none. The same packet goes
//! to both in turn, by the driver of `decision`; a figure is the median of paired differences. Out: one JSON
//! object a line, as there. Left out: sockets and resolvers, which `cargo xtask bench names` adds. Run as
//! root: `cargo bench -p podgate --bench names [-- --quick]`.

#[path = "../decision/driver.rs"]
mod driver;
#[path = "../decision/figure.rs"]
mod figure;
#[path = "../control/kernel_memory.rs"]
mod kernel_memory;
mod messages;
#[path = "../../tests/packets"]
mod packets {
    pub(crate) mod sandbox;
    #[expect(dead_code, reason = "the packet tests use all of it")]
    pub(crate) mod world;
}
mod node;

use std::{collections::BTreeSet, net::IpAddr, process::ExitCode};

use anyhow::{Result, ensure};

use figure::Figure;
use kernel_memory::kernel_memory;
use messages::{Message, OTHERS, PATTERN};
use node::{Kind, Node};
use packets::{sandbox, world::Host};

/// Pods with names that a node may have: as many as the kubelet runs.
const PODS: u32 = 110;
/// How many replies with addresses of their own a round has: none is known when it comes again.
const NEW: u8 = 200;

fn main() -> Result<ExitCode> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, runs) = if quick { (9, 20_000) } else { (41, 65_536) };
    sandbox::enter();
    let mut node = Node::new()?;
    println!("{}", memory(&mut node)?);

    let replies = replies();
    for message in &replies {
        node.learn(message)?;
    }
    node.check(&replies)?;
    let mut samples = vec![Vec::new(); replies.len()];
    let mut connections = Kind::ALL.map(|_| Vec::new());
    let mut over_denied = Vec::new();
    let mut new = [1, 16].map(|count| (count, Vec::new()));
    let mut control = Vec::new();
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        for (message, samples) in replies.iter().zip(&mut samples) {
            let without = node.read(Host::B, message, runs)?;
            samples.push(node.read(Host::A, message, runs)? - without);
            control.push(node.read(Host::B, message, runs)? - without);
        }
        let empty = node.connect(None, runs)?;
        let took = Kind::ALL.map(|kind| node.connect(Some(kind), runs).map(|took| took - empty));
        for (took, samples) in took.into_iter().zip(&mut connections) {
            samples.push(took?);
        }
        let last = |kind: Kind| connections[kind as usize].last().copied().unwrap_or_default();
        over_denied.push(last(Kind::ByName) - last(Kind::Denied));
        for (count, samples) in &mut new {
            let messages: Vec<_> = (0..NEW).map(|number| Message::of_new(*count, number)).collect();
            let without = node.read_each(Host::B, &messages)?;
            samples.push(node.read_each(Host::A, &messages)? - without);
        }
    }
    eprintln!();
    let control = figure::median(&mut control);
    ensure!(control.abs() <= 3.0, "a pod differs from itself by {control:.1} ns: the machine is too busy");

    let ns = |name: &str, variant: String, samples, goal| {
        println!("{}", Figure::of(name.to_owned(), variant, "ns", samples, Some(control), goal));
    };
    for (message, samples) in replies.into_iter().zip(samples) {
        ns("a reply, added by names", message.name, samples, message.goal);
    }
    for (count, samples) in new {
        let goal = if count == 1 { 350.0 } else { 1_050.0 };
        ns("a reply, added by names", format!("{}, new", addresses(count)), samples, Some(goal));
    }
    for (kind, samples) in Kind::ALL.into_iter().zip(connections) {
        ns("new connection", kind.to_string(), samples, None);
    }
    ns("new connection by name, over a denied one", String::new(), over_denied, Some(80.0));
    Ok(ExitCode::SUCCESS)
}

/// What a resolver may say, of names that the rules have and of others.
fn replies() -> Vec<Message> {
    let known = |count: u8, goal| {
        let name = format!("{}, known", addresses(count));
        Message { name, goal, ..Message::answer(PATTERN, 0, count) }
    };
    vec![
        Message {
            name: "no such name, no rule's".into(),
            goal: Some(150.0),
            ..Message::answer(OTHERS, 0, 0)
        },
        Message { name: "4 addresses, no rule's".into(), goal: Some(150.0), ..Message::answer(OTHERS, 0, 4) },
        known(1, Some(350.0)),
        known(4, Some(500.0)),
        known(16, Some(1_050.0)),
        known(32, Some(1_850.0)),
        known(60, None),
        Message { name: "12 aliases, known".into(), goal: Some(2_500.0), ..Message::answer(PATTERN, 12, 1) },
    ]
}

/// Of the tables of as many pods as a node has.
fn memory(node: &mut Node) -> Result<Figure> {
    let before = kernel_memory()?;
    let mut in_use = node.tables_in_use();
    let made: BTreeSet<u32> = (0..PODS)
        .map(|_| {
            let number = node.make_table(&in_use)?;
            in_use.insert(number);
            Ok(number)
        })
        .collect::<Result<_>>()?;
    let took = kernel_memory()? - before;
    made.into_iter().try_for_each(|number| node.remove_table(number))?;
    Ok(Figure::of(
        "memory of learnt names".into(),
        format!("{PODS} pods"),
        "MB",
        vec![took],
        None,
        Some(12.1),
    ))
}

fn addresses(count: u8) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

/// An address that a reply has.
fn address(group: u8, number: u8) -> IpAddr {
    [203, 0, 113 + group % 100, number].into()
}
