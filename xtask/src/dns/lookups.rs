//! Very many look-ups of new names, each followed at once by a connection: with an agent, without one, and
//! while agents are killed and restarted and policies change.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    clients::{Client, Connections, Family},
    handshakes::{Handshakes, LostPackets},
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
/// The addresses of all names before.
const ASKED: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 0), Ipv4Addr::new(198, 19, 0xd4, 0xbf)];
const _: () = assert!(ASKED[1].to_bits() - ASKED[0].to_bits() + 1 == NEVER_ASKED);
/// Look-ups that one process does.
const AT_A_TIME: u32 = 10_000;
/// Policies that change while names are looked up, and after how many of them the agent is replaced.
const CHANGES: u64 = 1_000;
const REPLACED_EVERY: u64 = 100;
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
        let handshakes = Handshakes::count(&network.client.place, &network.internet, ASKED)?;
        let mut made = Connections::default();
        for first in (0..count).step_by(AT_A_TIME as usize) {
            made += look_up(&network, programs, first, AT_A_TIME.min(count - first))?;
        }
        is_sound &= report(what, &made, handshakes.lost()?, started);
    }
    Ok(is_sound & disturbed(sandbox, programs)?)
}

/// Look-ups while agents are replaced and policies change; and a client that looks nothing up.
fn disturbed(sandbox: Sandbox, programs: &Programs) -> Result<bool> {
    let network =
        Network::new(sandbox, "disturbed", programs, Resolver::Unbound, ResolverPath::Nftables, false)?;
    let agent = Agent::start(&network.client_node, &[])?;
    let started = Instant::now();
    let handshakes = Handshakes::count(&network.client.place, &network.internet, ASKED)?;
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
        // Each name is new, or its address has long given way to others.
        for first in (0..NEVER_ASKED).step_by(AT_A_TIME as usize).cycle() {
            if has_ended.load(Ordering::Relaxed) {
                break;
            }
            made += look_up(&network, programs, first, AT_A_TIME)?;
        }
        Ok((join(changes)?, made, join(blind)?))
    })?;
    let (revisions, replaced) = changed;
    let what = format!("while {revisions} changes were enforced and {replaced} agents killed or restarted");
    let is_sound = report(&what, &made, handshakes.lost()?, started);
    let blind = passed.at_once + passed.late;
    println!(
        "{} {blind} of {} connections to addresses of names that no one asked for",
        mark(blind == 0),
        passed.sum()
    );
    Ok(is_sound && blind == 0)
}

/// Changes the policy again and again, and replaces the agent now and then: revisions that were enforced, and
/// agents that were replaced.
fn change(network: &Network, mut agent: Agent) -> Result<(u64, u64)> {
    let started = Instant::now();
    let (mut revisions, mut replaced) = (0, 0);
    while revisions < CHANGES {
        ensure!(started.elapsed() < LONGEST, "only {revisions} changes were enforced in {LONGEST:?}");
        let before = revision(&agent)?;
        let name = format!("n{revisions}.other.test");
        network.lab.manifests().write("cluster-policy-names.yaml", &policy(&[name]))?;
        agent.until("the change is enforced", PATIENT, "status", |status| {
            status["revision"].as_u64().is_some_and(|revision| revision > before)
        })?;
        revisions += 1;
        if revisions % REPLACED_EVERY == 0 {
            // Killed, or asked to end as an upgrade does.
            if replaced % 2 == 0 {
                agent.kill()?;
                thread::sleep(Duration::from_secs(1));
            } else {
                agent.terminate()?;
            }
            replaced += 1;
            agent = Agent::start(&network.client_node, &[])?;
        }
    }
    Ok((revisions, replaced))
}

fn revision(agent: &Agent) -> Result<u64> {
    agent.ask(&["status"])?["revision"].as_u64().context("a revision")
}

fn look_up(network: &Network, programs: &Programs, first: u32, count: u32) -> Result<Connections> {
    let client = Client::many(programs);
    client.run(&network.client.place, network.resolver_file(Family::V4), Family::V4, first, count)
}

/// One that came late was not denied if nothing of its handshake was lost.
fn report(what: &str, made: &Connections, lost: LostPackets, started: Instant) -> bool {
    let Connections { at_once, late, failed } = *made;
    let LostPackets { first, first_sent, answers } = lost;
    let is_sound = failed == 0 && first == 0 && answers == 0;
    println!(
        "{} {at_once} of {} names were open at once {what}: {late} later, {failed} not; of {first_sent} first \
         packets {first} did not arrive, and {answers} answers to them; {:.0} s",
        mark(is_sound),
        made.sum(),
        started.elapsed().as_secs_f64()
    );
    is_sound
}
