//! A stand-in for kube-proxy: what leads clients of services to backends on a node, as an nftables table.
//!
//! In: frontends, each an address and a port with its backends. Out: the node's rules. They translate as
//! kube-proxy's do, and masquerade by its mark 0x4000: the clients that a frontend says, and a pod that is
//! led to itself. Chance has no part in it, so that a test meets every backend, or knows which one it meets.
//! Left out: session affinity.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;

use super::Node;

/// Where a service answers on a node.
#[derive(Clone, Debug)]
pub struct Frontend {
    pub address: IpAddr,
    /// As the API writes it.
    pub protocol: String,
    pub port: u16,
    pub masquerade: Masquerade,
    pub backends: Vec<SocketAddr>,
}

/// Which clients a node hides behind its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masquerade {
    None,
    AllButPods,
    All,
}

/// What is the same for all frontends of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Proxy<'a> {
    /// The networks of pods, one of each family.
    pub pods: [&'a str; 2],
    /// The networks of services.
    pub services: &'a [&'a str],
    pub choice: Choice,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One backend after the other; a refusal where there are none.
    InTurn,
    /// The one of [`Frontend::turn`]; silence where there are none.
    ByClientPort,
}

/// kube-proxy's mark of what is to be masqueraded.
const MASQUERADE: &str = "0x4000";
const MARK: &str = "meta mark set meta mark or 0x4000";
/// How many bits of the client's port decide.
const TURNS: u16 = 16;

impl Frontend {
    /// The number of the backend that a client gets by its port.
    pub fn turn(&self, client_port: u16) -> usize {
        usize::from(client_port % TURNS) % self.backends.len().max(1)
    }
}

impl Node {
    /// Puts the rules of these frontends in the place of those that the table had.
    pub fn translate(&self, proxy: &Proxy<'_>, table: &str, frontends: &[Frontend]) -> Result<()> {
        // What the node itself sends to a service needs a way before its address is translated.
        let ways = proxy.services.iter().map(|network| format!("route replace {network} dev eth0\n"));
        self.place.ip(&ways.collect::<String>())?;
        let rules = proxy.rules(frontends);
        self.place.nft(&format!(
            "table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\n{rules}}}\n"
        ))
    }
}

impl Proxy<'_> {
    fn rules(&self, frontends: &[Frontend]) -> String {
        let (mut chains, mut dispatch, mut refusals) = (String::new(), Vec::new(), Vec::new());
        for (number, frontend) in frontends.iter().enumerate() {
            let Frontend { address, port, masquerade, backends, .. } = frontend;
            let protocol = frontend.protocol.to_lowercase();
            let (family, pods) = match address {
                IpAddr::V4(_) => ("ip", self.pods[0]),
                IpAddr::V6(_) => ("ip6", self.pods[1]),
            };
            let to_it = format!("{family} daddr {address} {protocol} dport {port}");
            if backends.is_empty() && self.choice == Choice::InTurn {
                refusals.push(format!("{to_it} ct state new reject"));
                continue;
            }
            for (place, backend) in backends.iter().enumerate() {
                let hairpin = format!("{family} saddr {} {MARK}", backend.ip());
                let lead = format!("meta l4proto {protocol} dnat {family} to {backend}");
                add(&mut chains, &format!("frontend_{number}_{place}"), &[hairpin, lead]);
            }
            let mark_clients = match masquerade {
                Masquerade::None => None,
                Masquerade::AllButPods => Some(format!("{family} saddr != {pods} {MARK}")),
                Masquerade::All => Some(MARK.to_owned()),
            };
            let lead = match (backends.len(), self.choice) {
                (0, _) => "drop".to_owned(),
                (count, Choice::InTurn) => by_key(number, &format!("numgen inc mod {count}"), 0..count),
                (_, Choice::ByClientPort) => {
                    let turns = (0..TURNS).map(|port| frontend.turn(port));
                    by_key(number, &format!("{protocol} sport & {}", TURNS - 1), turns)
                }
            };
            let rules: Vec<_> = mark_clients.into_iter().chain([lead]).collect();
            add(&mut chains, &format!("frontend_{number}"), &rules);
            dispatch.push(format!("{to_it} goto frontend_{number}"));
        }
        add(&mut chains, "dispatch", &dispatch);
        for hook in ["forward", "output"] {
            let rules = [&[format!("type filter hook {hook} priority 0;")], &refusals[..]].concat();
            add(&mut chains, &format!("filter_{hook}"), &rules);
        }
        chains
            + &format!(
                "  chain prerouting {{ type nat hook prerouting priority -100; jump dispatch; }}\n  \
                 chain output {{ type nat hook output priority -100; jump dispatch; }}\n  \
                 chain postrouting {{\n    type nat hook postrouting priority 100;\n    \
                 meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark xor {MASQUERADE} \
                 masquerade fully-random\n  }}\n"
            )
    }
}

/// A rule that leads to the backend whose turn it is.
fn by_key(frontend: usize, key: &str, turns: impl Iterator<Item = usize>) -> String {
    let ways = turns.enumerate().map(|(key, turn)| format!("{key} : goto frontend_{frontend}_{turn}"));
    format!("{key} vmap {{ {} }}", ways.collect::<Vec<_>>().join(", "))
}

fn add(text: &mut String, chain: &str, rules: &[String]) {
    let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
    write!(text, "  chain {chain} {{\n{rules}  }}\n").expect("writing to a string");
}
