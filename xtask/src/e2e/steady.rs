//! What must disturb no one: policies that change, an API server that is away, agents that die and are
//! replaced.
//!
//! In: a cluster on which the friend is let in and the stranger is not. Out: whether that held for each of a
//! thousand datagrams a second of both, while it happened.

use std::{collections::BTreeSet, net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{AGENTS, CLIENT_ALLOWED, CLIENT_DENIED, CLOSE, INSTALLED, PATIENCE, Run, UPGRADED, watch::Watch};
use crate::{cluster::NODES, lab::until};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

/// How often each of these is done while datagrams are counted.
const POLICY_CHANGES: u8 = 200;
const KILLS: usize = 10;
const UPGRADES: [&str; 3] = [UPGRADED, INSTALLED, UPGRADED];

impl Run<'_> {
    pub(super) fn policy_changes(&self) -> Result<()> {
        self.verdicts_hold_while(|| {
            (0..POLICY_CHANGES).try_for_each(|number| {
                let other = format!("{{from: [{{ipBlock: {{cidr: 203.0.113.{number}/32}}}}]}}");
                // The friend's rule is the first one, or the second.
                let rules = if number % 2 == 0 { [CLOSE, &other] } else { [&other, CLOSE] };
                self.policy(&rules.join(", "))
            })
        })?;
        self.policy(CLOSE)
    }

    pub(super) fn outage(&self) -> Result<()> {
        self.verdicts_hold_while(|| {
            self.cluster.kill_api_server()?;
            thread::sleep(AWAY);
            self.cluster.start_api_server()
        })?;
        self.policy("{}")?;
        self.becomes(CLIENT_DENIED, true)?;
        self.policy(CLOSE)?;
        self.becomes(CLIENT_DENIED, false)
    }

    /// Without a chance to say goodbye, on all nodes at once.
    pub(super) fn kills(&self) -> Result<()> {
        self.verdicts_hold_while(|| {
            (0..KILLS.div_ceil(NODES.len())).try_for_each(|_| {
                let killed = self.ready_agents()?;
                let agents =
                    ["-n", "kube-system", "delete", "pod", "-l", AGENTS, "--force", "--grace-period=0"];
                self.ask(&agents)?;
                until("other agents are ready", PATIENCE, || {
                    let ready = self.ready_agents()?;
                    Ok((ready.len() == NODES.len() && ready.is_disjoint(&killed)).then_some(()))
                })
            })
        })
    }

    /// The names of the agents' pods that are ready.
    fn ready_agents(&self) -> Result<BTreeSet<String>> {
        let path = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}";
        let pods = self.ask(&["-n", "kube-system", "get", "pods", "-l", AGENTS, "-o", path])?;
        Ok(pods.lines().filter_map(|line| line.strip_suffix(" True")).map(ToOwned::to_owned).collect())
    }

    pub(super) fn upgrades(&self) -> Result<()> {
        self.verdicts_hold_while(|| {
            UPGRADES.iter().try_for_each(|version| {
                let image = format!("agent=localhost/podgate:{version}");
                self.ask(&["-n", "kube-system", "set", "image", "daemonset/podgate", &image])?;
                self.cluster.agents_are_ready()
            })
        })
    }

    /// Each datagram of the friend reaches the server and none of the stranger's does, a thousand a second of
    /// each.
    pub(super) fn verdicts_hold_while(&self, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let address = |pod| -> Result<Ipv4Addr> {
            self.address(pod)?.parse().with_context(|| format!("the address of {pod}"))
        };
        let (client_allowed, client_denied) = (address(CLIENT_ALLOWED)?, address(CLIENT_DENIED)?);
        let watch = Watch::start(
            ("web", address("web")?),
            &[(CLIENT_ALLOWED, client_allowed), (CLIENT_DENIED, client_denied)],
        )?;
        act()?;
        let seen = watch.end()?;
        let (client_allowed, client_denied) = (seen[&client_allowed.into()], seen[&client_denied.into()]);
        println!(
            "  datagrams: {} of the friend's {} arrived, {} of the stranger's {}",
            client_allowed.arrived, client_allowed.sent, client_denied.arrived, client_denied.sent
        );
        ensure!(client_allowed.arrived == client_allowed.sent, "datagrams that are allowed were lost");
        ensure!(client_denied.arrived == 0, "datagrams that are denied arrived");
        ensure!(client_allowed.sent > 1_000 && client_denied.sent > 1_000, "hardly anything was sent");
        Ok(())
    }
}
