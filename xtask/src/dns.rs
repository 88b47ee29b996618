//! `cargo xtask dns`: names of rules, looked up by the libraries that programs use, at real resolvers.
//!
//! In: glibc, musl, c-ares, Go and a cache that outlives answers; unbound and CoreDNS, reached in each way
//! that clusters have. Out: a table of which connected at once to each new name, then very many look-ups with
//! and without an agent, and while agents are killed and restarted and policies change; exit code 1 when one
//! connection came late, or not at all. With very many at a time a busy machine makes some come late: there
//! it is packets that count, none of which may be lost. Left out: ipvs, which needs a kernel module.

mod acceptor;
mod clients;
mod handshakes;
mod lookups;
mod network;
mod programs;
mod resolvers;

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::{
    cargo,
    flags::DnsFlags,
    lab::Agent,
    root,
    sandbox::{self, Sandbox},
    screen::{Cell, Tone, mark, table},
    setup, shell,
};
use clients::{Client, Connections, Family};
use network::{Network, ResolverPath};
use programs::Programs;
use resolvers::Resolver;

/// Names that a client looks up in one cell of the table, of each family.
const NAMES: u32 = 20;

pub(crate) fn run(flags: &DnsFlags) -> Result<ExitCode> {
    root::require("the clients and resolvers (network namespaces, BPF)")?;
    ensure!(flags.lookups <= lookups::MOST, "there are addresses for {} names", lookups::MOST);
    setup::run()?;
    cargo::build_podgate()?;
    let programs = Programs::find()?;
    let lookups = flags.lookups;
    let code = sandbox::enter(|sandbox| shell::report(run_in(sandbox, &programs, lookups)))?;
    Ok(code.into())
}

fn run_in(sandbox: Sandbox, programs: &Programs, lookups: u32) -> Result<()> {
    let is_sound = libraries(sandbox, programs)? & lookups::run(sandbox, programs, lookups)?;
    ensure!(is_sound, "a connection came late, or not at all, or without a look-up");
    Ok(())
}

/// Each library by each way to each resolver.
fn libraries(sandbox: Sandbox, programs: &Programs) -> Result<bool> {
    let clients = Client::all(programs);
    let head = ["RESOLVER", "REACHED BY", "ON"].into_iter().chain(clients.iter().map(|client| client.name));
    let mut rows = vec![head.map(|title| Cell::new(title, Tone::Title)).collect::<Vec<_>>()];
    let mut is_sound = true;
    let mut number = 0;
    for resolver in Resolver::ALL {
        for way in ResolverPath::ALL {
            for (is_near, place) in [(true, "this node"), (false, "another node")] {
                number += 1;
                let name = format!("dns-{number}");
                let network = Network::new(sandbox, &name, programs, resolver, way, is_near)?;
                let _agent = Agent::start(&network.client_node, &[])?;
                let what = [resolver.name(), way.name(), place];
                let mut row: Vec<Cell> = what.iter().map(|text| Cell::new(*text, Tone::Plain)).collect();
                for (client, at) in clients.iter().zip(0..) {
                    let made = both_families(client, &network, at)?;
                    is_sound &= made.at_once == made.sum();
                    let tone = if made.at_once == made.sum() { Tone::Good } else { Tone::Bad };
                    row.push(Cell::new(format!("{}/{}", made.at_once, made.sum()), tone));
                }
                let progress: Vec<String> = row.iter().map(ToString::to_string).collect();
                println!("{}", Cell::new(progress.join(", "), Tone::Quiet));
                rows.push(row);
            }
        }
    }
    print!("{}", table(&rows));
    println!("{} connections that came at once, of all to new names, IPv4 and IPv6", mark(is_sound));
    Ok(is_sound)
}

fn both_families(client: &Client, network: &Network, at: u32) -> Result<Connections> {
    let mut made = Connections::default();
    for family in Family::BOTH {
        let file = network.resolver_file(family);
        made += client.run(&network.client.place, file, family, at * NAMES, NAMES)?;
    }
    Ok(made)
}
