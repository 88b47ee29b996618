//! How long a new device is there before it has its programs: what passes meanwhile is measured, not closed.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use xtask::lab::{Agent, ClusterService, Lab, Node, until};

use super::{
    Test,
    policies::DENY_ALL,
    scene::{CLOSE, apply},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_way_out_of_the_node_that_appears_has_its_program_at_once", way_out),
    ("a_veth_that_takes_the_place_of_a_pods_has_its_programs_at_once", replaced),
];

const TIMES: usize = 20;
/// Hundreds of times what it takes on an idle machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn way_out(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let remote = lab.node("n2")?.pod("x/remote").start()?;
    let _client = node.pod("x/client").labels(&[("app", "closed")]).start()?;
    let service = ClusterService::new("x/denied", 1, "UDP", 80).backend(remote.addresses, 8080, None);
    service.apply(&[&node])?;
    apply(lab.manifests(), "client", DENY_ALL)?;
    let _agent = Agent::start(&node, &[])?;
    until(
        "the ways out have programs",
        AT_ONCE,
        || Ok(is_attached(&node, "eth0", "to_wire")?.then_some(())),
    )?;
    measure(
        "a device",
        |number| {
            node.place.ip(&format!("link add late{number} type bridge\n"))?;
            Ok((format!("late{number}"), "to_wire"))
        },
        &node,
    )
}

fn replaced(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    apply(lab.manifests(), "close", CLOSE)?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    let _agent = Agent::start(&node, &[])?;
    measure(
        "a veth",
        |_| {
            pod.rewire()?;
            Ok((pod.host_interface.clone(), "to_pod"))
        },
        &node,
    )
}

/// From the end of the commands that make a device until it has its program.
fn measure(
    what: &str,
    mut make: impl FnMut(usize) -> Result<(String, &'static str)>,
    node: &Node,
) -> Result<()> {
    let mut took = Vec::new();
    for number in 0..TIMES {
        let (interface, program) = make(number)?;
        let made = Instant::now();
        until(&format!("{interface} has its program"), AT_ONCE, || {
            Ok(is_attached(node, &interface, program)?.then_some(()))
        })?;
        took.push(made.elapsed());
    }
    took.sort();
    let (half, all) = (took.get(TIMES / 2).context("many")?, took.last().context("many")?);
    println!("{what} has its program {half:?} after it was made (half of {TIMES}), {all:?} (all)");
    ensure!(*all < AT_ONCE, "{took:?}");
    Ok(())
}

fn is_attached(node: &Node, interface: &str, program: &str) -> Result<bool> {
    let ifindex = node.place.run(|| if_nametoindex(interface))?;
    let layouts = fs::read_dir(node.bpffs().join("podgate"))?;
    for layout in layouts {
        if layout?.path().join("links").join(format!("{ifindex}-{program}")).exists() {
            return Ok(true);
        }
    }
    Ok(false)
}
