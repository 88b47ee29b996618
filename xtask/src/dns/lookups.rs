//! Very many look-ups of new names, each followed at once by a connection: with an agent, without one, and
//! while agents are killed and policies change.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    clients::{Client, Connections, Family},
    network::{Network, ResolverPath, policy},
    programs::Programs,
    resolvers::Resolver,
};
use crate::{
    lab::{Agent, PATIENT, join},
    sandbox::Sandbox,
    screen::mark,
};

/// Names from here on are never looked up: connections to their addresses must not get through.
const NEVER_ASKED: u32 = 120_000;
/// Look-ups that one process does.
const AT_A_TIME: u32 = 10_000;
/// Policies that change while names are looked up, and after how many of them the agent is killed.
const CHANGES: u64 = 1_000;
const KILLED_EVERY: u64 = 200;
/// All these changes take less.
const LONGEST: Duration = Duration::from_secs(900);

/// Names that have an address of their own in the range of the servers.
pub(super) const MOST: u32 = NEVER_ASKED;

/// Runs all three; whether each look-up was followed by a connection, and no other was.
pub(super) fn run(sandbox: Sandbox, programs: &Programs, count: u32) -> Result<bool> {
    let mut is_sound = true;
    for (kills_first, what) in [(false, "with an agent"), (true, "after the agent was killed")] {
        let name = if kills_first { "killed" } else { "lookups" };
        let network =
            Network::new(sandbox, name, programs, Resolver::Unbound, ResolverPath::Nftables, false)?;
        let agent = Agent::start(&network.client_node, &[])?;
        if kills_first {
            agent.kill()?;
        }
        let started = Instant::now();
        let made = look_up(&network, programs, count)?;
        is_sound &= report(what, &made, started);
    }
    Ok(is_sound & disturbed(sandbox, programs)?)
}

/// Look-ups while the agent is killed, starts again, and policies change; and a client that looks nothing up.
fn disturbed(sandbox: Sandbox, programs: &Programs) -> Result<bool> {
    let network =
        Network::new(sandbox, "disturbed", programs, Resolver::Unbound, ResolverPath::Nftables, false)?;
    let agent = Agent::start(&network.client_node, &[])?;
    let started = Instant::now();
    let has_ended = AtomicBool::new(false);
    let (changed, made, passed) = thread::scope(|scope| -> Result<_> {
        let changes = scope.spawn(|| {
            let changed = change(&network, agent);
            has_ended.store(true, Ordering::Relaxed);
            changed
        });
        let blind = scope.spawn(|| -> Result<Connections> {
            let mut passed = Connections::default();
            while !has_ended.load(Ordering::Relaxed) {
                let file = network.resolver_file(Family::V4);
                let client = Client::blind(programs);
                passed += client.run(&network.client.place, file, Family::V4, NEVER_ASKED, 500)?;
            }
            Ok(passed)
        });
        let mut made = Connections::default();
        while !has_ended.load(Ordering::Relaxed) {
            made += look_up(&network, programs, AT_A_TIME)?;
        }
        Ok((join(changes)?, made, join(blind)?))
    })?;
    let (revisions, kills) = changed;
    let what = format!("while {revisions} changes were enforced and {kills} agents killed");
    let is_sound = report(&what, &made, started);
    let blind = passed.at_once + passed.late;
    println!(
        "{} {blind} of {} connections to addresses of names that no one asked for",
        mark(blind == 0),
        passed.sum()
    );
    Ok(is_sound && blind == 0)
}

/// Changes the policy again and again, and kills the agent now and then: revisions that were enforced, and
/// agents that were killed.
fn change(network: &Network, mut agent: Agent) -> Result<(u64, u64)> {
    let started = Instant::now();
    let (mut revisions, mut kills) = (0, 0);
    while revisions < CHANGES {
        ensure!(started.elapsed() < LONGEST, "only {revisions} changes were enforced in {LONGEST:?}");
        let before = revision(&agent)?;
        let name = format!("n{revisions}.other.test");
        network.lab.manifests().write("cluster-policy-names.yaml", &policy(&[name]))?;
        agent.until("the change is enforced", PATIENT, "status", |status| {
            status["revision"].as_u64().is_some_and(|revision| revision > before)
        })?;
        revisions += 1;
        if revisions % KILLED_EVERY == 0 {
            agent.kill()?;
            kills += 1;
            thread::sleep(Duration::from_secs(1));
            agent = Agent::start(&network.client_node, &[])?;
        }
    }
    Ok((revisions, kills))
}

fn revision(agent: &Agent) -> Result<u64> {
    agent.ask(&["status"])?["revision"].as_u64().context("a revision")
}

fn look_up(network: &Network, programs: &Programs, count: u32) -> Result<Connections> {
    let client = Client::many(programs);
    let mut made = Connections::default();
    for first in (0..count).step_by(AT_A_TIME as usize) {
        let file = network.resolver_file(Family::V4);
        let count = AT_A_TIME.min(count - first);
        made += client.run(&network.client.place, file, Family::V4, first, count)?;
    }
    Ok(made)
}

fn report(what: &str, made: &Connections, started: Instant) -> bool {
    let Connections { at_once, late, failed } = *made;
    let is_sound = late == 0 && failed == 0;
    println!(
        "{} {at_once} of {} names were open at once {what}: {late} later, {failed} not; {:.0} s",
        mark(is_sound),
        made.sum(),
        started.elapsed().as_secs_f64()
    );
    is_sound
}
