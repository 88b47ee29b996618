//! Another engine of network policies on the same nodes: what both allow passes, and the move from it.
//!
//! In: a cluster on which both enforce the same policies, with an allowed and a denied client. Out: that a
//! client which only one of them allows is kept out, and that nothing is lost or let in while the other one
//! is removed.

use anyhow::{Context, Result, ensure};

use super::{CLIENT_ALLOWED, CLIENT_DENIED, CLOSE, Run};
use crate::cluster::NODES;

/// Every chain of kube-router's firewall has one of these in its name.
const CHAINS: [&str; 3] = ["KUBE-ROUTER", "KUBE-NWPLCY", "KUBE-POD-FW"];

impl Run<'_> {
    pub(super) fn both_agree(&self) -> Result<()> {
        ensure!(self.chains()?.iter().all(|count| *count > 0), "the other engine has no rules");
        self.policy("{}")?;
        self.becomes(CLIENT_DENIED, true)?;
        // The other one stays with what allows everybody.
        self.on_engine("kill -STOP $(pidof -s kube-router)")?;
        self.policy(CLOSE)?;
        self.becomes(CLIENT_DENIED, false).context("podgate denies alone")?;
        self.becomes(CLIENT_ALLOWED, true)?;
        self.on_engine("kill -CONT $(pidof -s kube-router)")?;
        self.ask(&["-n", "shop", "annotate", "networkpolicy", "web", "podgate.io/mode=audit"])?;
        self.answer(&["rollout", "status", "--all", "-n", "shop", "--timeout", "60s"])?;
        let address = self.address("web")?;
        let from = format!("shop/{CLIENT_DENIED}");
        let question = ["explain", "--from", &from, "--to", "shop/web", "--port", "TCP/80", "-o", "json"];
        let answer: serde_json::Value =
            serde_json::from_str(&self.answer(&question)?).context("an explanation")?;
        ensure!(answer["verdict"] == "allow", "podgate would let the stranger in: {answer:#}");
        ensure!(!self.reaches(CLIENT_DENIED, &address)?, "the other engine denies alone");
        self.ask(&["-n", "shop", "annotate", "networkpolicy", "web", "podgate.io/mode-"])?;
        self.answer(&["rollout", "status", "--all", "-n", "shop", "--timeout", "60s"]).map(|_| ())
    }

    pub(super) fn move_away(&self) -> Result<()> {
        // Its own `--cleanup-config` says that it has succeeded, and leaves all rules (2.1.0).
        let clean = format!(
            "engine=$(pidof -s kube-router); kill $engine; while kill -0 $engine; do sleep 0.1; done\n\
             for family in iptables ip6tables; do $family-save | grep -vE '{}' | $family-restore; done",
            CHAINS.join("|")
        );
        self.verdicts_hold_while(|| {
            self.on_engine(&clean)?;
            let left = self.chains()?;
            ensure!(left == [0; NODES.len()], "rules of the other engine are left: {left:?}");
            self.becomes(CLIENT_ALLOWED, true)?;
            self.becomes(CLIENT_DENIED, false)
        })
    }

    /// On each node: how many rules and chains of the other engine there are.
    fn chains(&self) -> Result<[usize; NODES.len()]> {
        let mut counts = [0; NODES.len()];
        for (node, count) in NODES.iter().zip(&mut counts) {
            let output = self.cluster.command_on(node, "iptables-save")?.output().context("iptables-save")?;
            let text = String::from_utf8_lossy(&output.stdout);
            *count = text.lines().filter(|line| CHAINS.iter().any(|chain| line.contains(chain))).count();
        }
        Ok(counts)
    }

    fn on_engine(&self, line: &str) -> Result<()> {
        for node in NODES {
            let output = self.cluster.command_on(node, "sh")?.args(["-c", line]).output().context("sh")?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{line} on {node}: {}", complaint.trim());
        }
        Ok(())
    }
}
