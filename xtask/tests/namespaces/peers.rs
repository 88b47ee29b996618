//! The rules of other systems: what the workshop writes is taken by ipset and iptables, old and new, and
//! `podgate check` tells whose it is.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xtask::{
    lab::{Lab, Place},
    peers::{
        calico::{self, Family},
        npm::{self, Policy, Ports, Protocol},
    },
    workspace::podgate,
};

use crate::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("npms_rules_are_accepted_by_both_kinds_of_iptables", npm),
    ("calicos_rules_are_accepted_for_both_families", calico),
];

fn npm(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let text = str::to_owned;
    let ports = [(Protocol::Tcp, 80, 90), (Protocol::Udp, 53, 53)];
    let ports = ports.map(|(protocol, first, last)| Ports { protocol, first, last }).to_vec();
    let policy = Policy { name: text("p"), app: text("b"), from: text("a"), to: text("c"), ports };
    let pod = |(app, digit)| npm::Pod { app: text(app), address: Ipv4Addr::new(10, 0, 0, digit) };
    let pods = [("a", 1), ("b", 2), ("c", 3)].map(pod);
    let another = Policy { name: text("q"), ..policy.clone() };
    let rules = npm::rules("x", &pods, &[policy]);
    ensure!(!engines(&node.place)?.contains("Azure NPM"), "named before it is there");
    load(&node.place, &rules.sets, &rules.filter, &["iptables-nft-restore", "iptables-legacy-restore"])?;
    let pod = npm::Pod { app: text("a"), address: Ipv4Addr::new(10, 0, 0, 4) };
    for (program, change) in [
        ("iptables-nft-restore", npm::policy_comes("x", &another)),
        ("iptables-nft-restore", npm::policy_goes("x", &another)),
        ("iptables-legacy-restore", npm::policy_comes("x", &another)),
        ("iptables-legacy-restore", npm::policy_goes("x", &another)),
    ] {
        node.place.feed(&[program, "--noflush"], &change)?;
    }
    node.place.feed(&["ipset", "restore"], &npm::pod_comes("x", &pod))?;
    node.place.feed(&["ipset", "restore"], &npm::pod_goes("x", &pod))?;
    let found = engines(&node.place)?;
    ensure!(found.contains("Azure NPM (chain AZURE-NPM"), "found: {found}");
    Ok(())
}

fn calico(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = |app: &str, ips: [&str; 2]| {
        json!({
            "kind": "Pod",
            "metadata": {"name": app, "namespace": "x", "labels": {"app": app}},
            "status": {"podIPs": ips.map(|ip| json!({"ip": ip}))},
        })
    };
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "b"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "a"}}}],
                "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}, {"protocol": "UDP", "port": 53}],
            }],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}],
        },
    });
    let objects = [pod("a", ["10.0.0.1", "fd00::1"]), pod("b", ["10.0.0.2", "fd00::2"]), policy];
    // Two interfaces with one first digit, which share a chain of the dispatch, and one alone.
    let pods = [(&objects[0], "veth1a"), (&objects[1], "veth1b"), (&objects[1], "veth2c")];
    for family in Family::BOTH {
        let rules = calico::rules(&objects, 0, family, &pods);
        load(&node.place, &rules.sets, &rules.filter, &[family.restore()])?;
    }
    let found = engines(&node.place)?;
    ensure!(found.contains("Calico (chain cali-"), "found: {found}");
    Ok(())
}

/// What `podgate check` says of other engines on a node.
fn engines(place: &Place) -> Result<String> {
    let output = place.command(podgate()?).args(["check", "-o", "json"]).output().context("podgate check")?;
    let findings: Value = serde_json::from_slice(&output.stdout).context("its JSON")?;
    let findings = findings.as_array().context("a list of findings")?;
    let found = findings.iter().find(|finding| finding["item"] == "other policy engines");
    found.and_then(|found| found["found"].as_str()).map(ToOwned::to_owned).context("no finding on engines")
}

fn load(place: &Place, sets: &str, filter: &str, programs: &[&str]) -> Result<()> {
    place.feed(&["ipset", "restore"], sets)?;
    programs.iter().try_for_each(|program| place.feed(&[program], filter))
}
