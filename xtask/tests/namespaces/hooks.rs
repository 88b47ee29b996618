//! The two kinds of hooks: what is at a veth, and what a change from one to the other leaves there.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Agent, Lab, Place};

use super::{
    Test,
    fixture::AllowDenyFixture,
    kernel::{Object, are_gone, pinned},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_new_agent_replaces_the_filters_and_adds_none", replaced),
    ("a_change_of_hook_leaves_one_set_of_programs_and_no_gap", changed),
    ("a_qdisc_that_somebody_else_made_or_uses_stays", shared_qdisc),
    ("an_ingress_qdisc_is_not_taken_for_a_clsact", ingress_qdisc),
];

const CLSACT: &[&str] = &["--hook", "clsact"];
const TCX: &[&str] = &["--hook", "tcx"];

/// A filter at a hook of a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    /// `ingress` or `egress` of the device.
    pub(crate) hook: &'static str,
    /// Of the BPF program, empty if it has none.
    pub(crate) name: String,
    pub(crate) program: Option<Object>,
}

/// All filters of a device.
pub(crate) fn filters(place: &Place, device: &str) -> Result<BTreeSet<Filter>> {
    let mut filters = BTreeSet::new();
    for hook in ["ingress", "egress"] {
        let listed = tc(place, &["-json", "filter", "show", "dev", device, hook])?;
        let listed: Vec<Value> =
            serde_json::from_str(&listed).with_context(|| format!("tc printed {listed:?}"))?;
        // Each priority has an entry of its own, without options.
        for options in listed.iter().map(|filter| &filter["options"]).filter(|options| options.is_object()) {
            let program = options["prog"]["id"].as_u64().map(u32::try_from).transpose()?.map(Object::Program);
            let name = options["bpf_name"].as_str().unwrap_or_default().to_owned();
            filters.insert(Filter { hook, name, program });
        }
    }
    Ok(filters)
}

fn tc(place: &Place, arguments: &[&str]) -> Result<String> {
    let output = place.command("tc").args(arguments).output().context("running tc (package iproute2)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tc {arguments:?}: {complaint}");
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn has_clsact(place: &Place, device: &str) -> Result<bool> {
    Ok(tc(place, &["qdisc", "show", "dev", device])?.contains("clsact"))
}

/// What is at a veth of the lab: the programs of filters, by hook, and how many links are pinned.
fn at(fixture: &AllowDenyFixture, device: &str) -> Result<(Vec<(&'static str, String)>, usize)> {
    let filters = filters(&fixture.node.place, device)?.into_iter().map(|filter| (filter.hook, filter.name));
    let links =
        pinned(&fixture.node.bpffs().join("podgate"))?.iter().filter(|object| object.is_link()).count();
    Ok((filters.collect(), links))
}

/// Where a program can tell at which hook it runs (Linux 6.2), one serves both.
fn both_filters() -> Result<Vec<(&'static str, String)>> {
    let shared = is_linux_6_2()?;
    let name = |own: &str| if shared { "at_pod".to_owned() } else { own.to_owned() };
    Ok(vec![("egress", name("to_pod")), ("ingress", name("from_pod"))])
}

fn is_linux_6_2() -> Result<bool> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().context("a release has two numbers")?.context(release.clone());
    Ok((next()?, next()?) >= (6, 2))
}

fn replaced(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let mut earlier = BTreeSet::new();
    for _ in 0..3 {
        let agent = Agent::start(&fixture.node, CLSACT)?;
        for pod in fixture.pods() {
            let found = at(&fixture, &pod.host_interface)?;
            ensure!(found == (both_filters()?, 0), "{}: {found:?}", pod.name());
            let programs = filters(&fixture.node.place, &pod.host_interface)?;
            let programs: BTreeSet<_> = programs.into_iter().filter_map(|filter| filter.program).collect();
            let distinct = both_filters()?.into_iter().map(|(_, name)| name).collect::<BTreeSet<_>>().len();
            ensure!(
                programs.len() == distinct && programs.is_disjoint(&earlier),
                "{programs:?} after {earlier:?}"
            );
        }
        let server = &fixture.server.host_interface;
        earlier.extend(filters(&fixture.node.place, server)?.into_iter().filter_map(|filter| filter.program));
        fixture.verdicts_hold()?;
        agent.kill()?;
    }
    Ok(())
}

fn changed(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let veths = fixture.pods().len();
    let mut agent = Some(Agent::start(&fixture.node, CLSACT)?);
    fixture.while_verdicts_hold(|| {
        for (options, at_veth, links) in
            [(TCX, vec![], 2 * veths), (CLSACT, both_filters()?, 0), (TCX, vec![], 2 * veths)]
        {
            let mut before = objects(&fixture)?;
            before.retain(|object| !object.is_map());
            // Ended by the drop, without a warning.
            agent = None;
            agent = Some(Agent::start(&fixture.node, options)?);
            for pod in fixture.pods() {
                let found = at(&fixture, &pod.host_interface)?;
                ensure!(found == (at_veth.clone(), links), "{options:?}, {}: {found:?}", pod.name());
                let qdisc = has_clsact(&fixture.node.place, &pod.host_interface)?;
                ensure!(qdisc != at_veth.is_empty(), "{options:?}: clsact at {}: {qdisc}", pod.name());
            }
            are_gone(&before)?;
        }
        Ok(())
    })?;
    fixture.verdicts_hold()
}

/// What the agent has pinned and has at the veths, by either kind of hook.
pub(crate) fn objects(fixture: &AllowDenyFixture) -> Result<BTreeSet<Object>> {
    let mut objects: BTreeSet<_> = pinned(&fixture.node.bpffs().join("podgate"))?.into_iter().collect();
    for pod in fixture.pods() {
        let filters = filters(&fixture.node.place, &pod.host_interface)?;
        objects.extend(filters.into_iter().filter_map(|filter| filter.program));
    }
    Ok(objects)
}

fn shared_qdisc(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let (place, [server, client_allowed, client_denied]) =
        (&fixture.node.place, fixture.pods().map(|pod| &pod.host_interface));
    tc(place, &["qdisc", "add", "dev", server, "clsact"])?;
    let agent = Agent::start(&fixture.node, CLSACT)?;
    // Behind ours; it lets everything pass.
    let foreign =
        format!("filter add dev {client_allowed} ingress pref 40000 u32 match u32 0 0 flowid 1:1\n");
    place.feed(&["tc", "-batch", "-"], &foreign)?;
    fixture.verdicts_hold()?;
    agent.terminate()?;
    for _ in 0..2 {
        let answer = fixture.node.podgate(&["detach"])?;
        ensure!(answer.status.success(), "detach: {}", answer.text());
        ensure!(has_clsact(place, server)?, "the qdisc was there before the agent");
        ensure!(has_clsact(place, client_allowed)?, "somebody uses the qdisc");
        ensure!(!has_clsact(place, client_denied)?, "nobody needs the qdisc");
        for (device, expected) in [(server, 0), (client_allowed, 1), (client_denied, 0)] {
            let left = filters(place, device)?;
            ensure!(
                left.len() == expected && left.iter().all(|filter| filter.name.is_empty()),
                "{device}: {left:?}"
            );
        }
    }
    Ok(())
}

fn ingress_qdisc(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    let place = &fixture.node.place;
    let client_allowed = &fixture.client_allowed.host_interface;
    tc(place, &["qdisc", "add", "dev", client_allowed, "ingress"])?;
    let _agent = Agent::start(&fixture.node, CLSACT)?;
    let named =
        |line: &str| line.contains("ERROR") && line.contains(client_allowed) && line.contains("clsact");
    ensure!(lab.logs().lines().any(named), "no error names {client_allowed}");
    ensure!(filters(place, client_allowed)?.is_empty(), "programs of both directions would run at one hook");
    let found = at(&fixture, &fixture.server.host_interface)?;
    ensure!(found == (both_filters()?, 0), "the others are attached: {found:?}");
    fixture.verdicts_hold()
}
