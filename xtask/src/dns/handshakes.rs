//! Handshakes of connections, counted at both ends: whether one that came late was lost on the way.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Place;

/// Both ends of the connections to a range of addresses.
pub(super) struct Handshakes<'a> {
    client: &'a Place,
    server: &'a Place,
}

/// Packets of handshakes that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LostPackets {
    /// From the client, of so many.
    pub(super) first: u64,
    pub(super) first_sent: u64,
    /// From the server.
    pub(super) answers: u64,
}

const FIRST: &str = "first";
const ANSWERS: &str = "answers";

impl<'a> Handshakes<'a> {
    /// Counts from now on those with servers from `low` to `high`.
    pub(super) fn count(client: &'a Place, server: &'a Place, [low, high]: [Ipv4Addr; 2]) -> Result<Self> {
        let table = |first: &str, answers: &str| {
            format!(
                "table ip handshakes {{ counter {FIRST} {{}}; counter {ANSWERS} {{}}; chain first {{\n\
                 type filter hook {first} priority 200;\n\
                 ip daddr {low}-{high} tcp dport 80 tcp flags & (syn|ack) == syn counter name {FIRST}\n\
                 }}; chain answers {{ type filter hook {answers} priority -200;\n\
                 ip saddr {low}-{high} tcp sport 80 tcp flags & (syn|ack) == syn|ack counter name {ANSWERS}\n\
                 }}; }}\n"
            )
        };
        client.nft(&table("output", "input"))?;
        server.nft(&table("input", "output"))?;
        Ok(Self { client, server })
    }

    /// What was lost so far, once everything has arrived that was sent.
    pub(super) fn lost(&self) -> Result<LostPackets> {
        let ([first_sent, answers], [first, answers_sent]) = (read(self.client)?, read(self.server)?);
        Ok(LostPackets { first: first_sent - first, first_sent, answers: answers_sent - answers })
    }
}

/// Both counters, of first packets and of answers.
fn read(place: &Place) -> Result<[u64; 2]> {
    let output = place.command("nft").args(["-j", "list", "counters"]).output().context("starting nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).context("reading what nft lists")?;
    let packets = |name: &str| {
        let counters = listed["nftables"].as_array()?.iter().map(|item| &item["counter"]);
        counters.filter(|counter| counter["name"] == name).find_map(|counter| counter["packets"].as_u64())
    };
    let [first, answers] = [FIRST, ANSWERS].map(packets);
    Ok([first.context("no counter of first packets")?, answers.context("no counter of answers")?])
}
