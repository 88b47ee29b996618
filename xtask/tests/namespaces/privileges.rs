//! What an agent may do: with which capabilities it starts, what is lost without each, and what is left when
//! it runs.

use std::{collections::BTreeMap, fs, os::unix::fs::chown, time::Duration};

use anyhow::{Context, Result, ensure};
use xtask::{
    lab::{Agent, BRIEF, Lab, PATIENT, Pod, Seen, Source, Traffic, until},
    workspace,
};

use super::{
    Test,
    fixture::AllowDenyFixture,
    live::Live,
    scene::{EVERY_KIND, apply, becomes, expect, serve_all},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_running_agent_keeps_only_the_capabilities_and_system_calls_that_it_needs", running),
    ("an_agent_with_the_capabilities_of_the_daemon_set_does_all_that_it_is_for", as_deployed),
    ("without_sys_admin_live_connections_are_evaluated_as_new_ones_at_the_first_start", without_sys_admin),
    ("a_deny_log_that_the_running_agent_could_not_rotate_is_an_error_at_once", foreign_directory),
    ("an_agent_without_one_of_its_other_capabilities_names_it_and_does_not_start", does_not_start),
];

/// Numbers of capabilities (linux/capability.h).
const NUMBERS: [(&str, u32); 5] =
    [("BPF", 39), ("PERFMON", 38), ("NET_ADMIN", 12), ("NET_BROADCAST", 11), ("SYS_ADMIN", 21)];

/// What is left: CAP_NET_ADMIN and CAP_BPF, and CAP_DAC_READ_SEARCH where the operator names files and gives
/// it.
const KEPT: u64 = 1 << 12 | 1 << 39;
const DAC_READ_SEARCH: u64 = 1 << 2;

/// How long an agent may take to start.
const START: Duration = Duration::from_secs(20);

/// The capabilities that the DaemonSet adds, by name.
fn deployed() -> Result<BTreeMap<&'static str, u64>> {
    let path = workspace::root().join("deploy/base/daemon-set.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let agent = text.split("- name: agent\n").nth(1).context("the agent's container")?;
    let added = agent.split("              add:\n").nth(1).context("its capabilities")?;
    let lines = added.lines().take_while(|line| line.starts_with("                "));
    let names = lines.filter_map(|line| line.trim().strip_prefix("- "));
    let number = |name: &str| NUMBERS.into_iter().find(|(known, _)| *known == name);
    names
        .map(|name| number(name).map(|(name, number)| (name, 1 << number)).context(name.to_owned()))
        .collect()
}

/// A field of every thread's status: capabilities and filters are a thread's own.
fn of_threads(agent: &Agent, field: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", agent.process_id())).context("the agent's threads")? {
        // One that has just ended has nothing.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        found.push(value.with_context(|| field.to_owned())?.to_owned());
    }
    ensure!(!found.is_empty(), "no thread");
    Ok(found)
}

/// Waits until no thread has more than it needs, `kept` at most; no thread may get anything back.
fn gives_up(agent: &Agent, kept: u64) -> Result<()> {
    until("every thread has given up what it does not need", PATIENT, || {
        let mut excess = 0;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            for value in of_threads(agent, set)? {
                excess |= u64::from_str_radix(&value, 16).context("a set of capabilities")? & !kept;
            }
        }
        let is_set = |field, expected: &str| -> Result<bool> {
            Ok(of_threads(agent, field)?.iter().all(|value| value == expected))
        };
        Ok((excess == 0 && is_set("NoNewPrivs", "1")? && is_set("Seccomp", "2")?).then_some(()))
    })
}

/// A pod that comes, a policy that goes and one that comes.
fn does_its_work(lab: &Lab, fixture: &AllowDenyFixture) -> Result<()> {
    fixture.verdicts_hold()?;
    lab.manifests().remove("policy-close.yaml")?;
    fixture.denied_client_becomes(Seen::Reached)?;
    let late = fixture.node.pod("x/late").labels(&[("app", "closed")]).start()?;
    let _servers = serve_all(&late.place)?;
    apply(lab.manifests(), "close", super::scene::CLOSE)?;
    becomes(&fixture.client_denied.place, late.addresses.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
    expect(&fixture.client_allowed.place, late.addresses, &EVERY_KIND, Seen::Reached)
}

fn running(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    for _ in ["the first agent", "one that takes its place"] {
        // Its log has a thread of its own.
        let agent = Agent::start(&fixture.node, &["--deny-log", "-"])?;
        gives_up(&agent, KEPT | DAC_READ_SEARCH)?;
        for set in of_threads(&agent, "CapBnd")? {
            let bound = u64::from_str_radix(&set, 16)?;
            ensure!(bound & !(KEPT | DAC_READ_SEARCH) == 0, "a program that it runs could have {bound:#x}");
        }
        does_its_work(lab, &fixture)?;
        agent.kill()?;
    }
    Ok(())
}

fn as_deployed(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    fixture.pods().into_iter().try_for_each(Pod::cache_cni_result)?;
    let mut live = Live::open(&fixture.client_denied.place, fixture.server.addresses.v4.into())?;
    let mut agent = Agent::spawn_with_capabilities(&fixture.node, deployed()?.values().sum())?;
    agent.ready(START)?;
    live.goes_on()?;
    gives_up(&agent, KEPT)?;
    does_its_work(lab, &fixture)
}

fn without_sys_admin(lab: &mut Lab) -> Result<()> {
    let fixture = AllowDenyFixture::new(lab)?;
    fixture.pods().into_iter().try_for_each(Pod::cache_cni_result)?;
    let mut live = Live::open(&fixture.client_denied.place, fixture.server.addresses.v4.into())?;
    let mut given = deployed()?;
    given.remove("SYS_ADMIN").context("CAP_SYS_ADMIN is given")?;
    let mut agent = Agent::spawn_with_capabilities(&fixture.node, given.values().sum())?;
    agent.ready(START)?;
    ensure!(live.goes_on_within(BRIEF).is_err(), "the live connection goes on");
    let named = |line: &str| line.contains("WARN") && line.contains("existing connections");
    ensure!(lab.logs().lines().any(named), "no warning says so");
    gives_up(&agent, KEPT)?;
    does_its_work(lab, &fixture)
}

/// A directory of another user: when the file is full, the agent has given up root's right to write there.
fn foreign_directory(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let directory = node.directory().join("log");
    fs::create_dir(&directory)?;
    chown(&directory, Some(65_534), None)?;
    let log = directory.join("denied");
    fs::write(&log, "")?;
    let options = ["--deny-log", log.to_str().context("a path of text")?];
    let status = Agent::spawn(&node, Source::Manifests, &options)?.ended()?;
    let logs = lab.logs();
    ensure!(!status.success() && logs.contains("could not be rotated"), "{status}: {logs}");
    Ok(())
}

/// CAP_SYS_ADMIN stands for some of the others: it is left out.
fn does_not_start(lab: &mut Lab) -> Result<()> {
    let mut given = deployed()?;
    given.remove("SYS_ADMIN").context("CAP_SYS_ADMIN is given")?;
    for (number, missing) in given.keys().enumerate() {
        let node = lab.node(&format!("n{number}"))?;
        let others = given.iter().filter(|(name, _)| *name != missing).map(|(_, bit)| bit).sum();
        let before = lab.logs().len();
        let status = Agent::spawn_with_capabilities(&node, others)?.ended()?;
        let logs = lab.logs();
        ensure!(!status.success(), "it ended with {status}");
        ensure!(logs[before..].contains(&format!("CAP_{missing}")), "{missing}: {}", &logs[before..]);
    }
    Ok(())
}
