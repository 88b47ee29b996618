//! A host endpoint on a real node: it is watched at the API server, and confirmed by that and the kubelet.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Run;
use crate::{cluster::NODES, lab::until};

/// A change is confirmed, or undone, in a minute.
const CONFIRMED: Duration = Duration::from_secs(90);

/// What is open on the node: the kubelet's API, and kube-proxy's health.
const KUBELET: u16 = 10_250;
const PROXY: u16 = 10_256;

impl Run<'_> {
    /// The node lets in the kubelet's clients alone, and failsafe ports; its pods are reached as before.
    pub(super) fn host_endpoint(&self) -> Result<()> {
        let [from, node] = NODES;
        let address = self.ask(&[
            "get",
            "node",
            node,
            "-o",
            "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}",
        ])?;
        let address = address.split_whitespace().next().context("the node has an address")?;
        let is_reached = |port: u16| -> Result<bool> {
            let mut connect = self.cluster.command_on(from, "busybox")?;
            let connect = connect.args(["nc", "-w", "1", address, &port.to_string(), "-e", "true"]);
            Ok(connect.status().context("starting busybox")?.success())
        };
        ensure!(is_reached(KUBELET)? && is_reached(PROXY)?, "the node's ports are not open at first");
        let object = |kind: &str, name: &str, spec: &str| {
            let metadata = format!("metadata: {{name: {name}, labels: {{role: node}}}}");
            format!("apiVersion: crd.projectcalico.org/v1\nkind: {kind}\n{metadata}\nspec: {spec}\n---\n")
        };
        let policy = format!(
            "{{selector: \"role == 'node'\", types: [Ingress, Egress], egress: [{{action: Allow}}], ingress: \
             [{{action: Allow, protocol: TCP, destination: {{ports: [{KUBELET}]}}}}]}}"
        );
        let host = format!("{{node: {node}, interfaceName: eth0}}");
        let objects = [
            object("GlobalNetworkPolicy", "default.kubelet", &policy),
            object("HostEndpoint", &format!("{node}-eth0"), &host),
        ];
        self.apply(&objects.concat())?;
        until("the host endpoint is enforced", CONFIRMED, || Ok((!is_reached(PROXY)?).then_some(())))?;
        ensure!(is_reached(KUBELET)?, "what the policy allows is closed");
        let mut endpoints = String::new();
        let confirmed = until("it is confirmed", CONFIRMED, || {
            endpoints = self.ask_podgate(&["endpoints", "-A", "-o", "json"])?;
            let is_there = endpoints.contains(&format!("HostEndpoint/{node}-eth0"));
            let is_confirmed = !endpoints.contains("\"unconfirmed\"") && !endpoints.contains("\"undone\"");
            Ok((is_there && is_confirmed).then_some(()))
        });
        confirmed.with_context(|| endpoints.clone())?;
        ensure!(!is_reached(PROXY)? && is_reached(KUBELET)?, "it is enforced otherwise once it is confirmed");
        // Through the kubelet of that node as well.
        self.goes_on()?;
        self.ask(&["delete", "hostendpoints.crd.projectcalico.org", &format!("{node}-eth0")])?;
        until("it is open again", CONFIRMED, || Ok(is_reached(PROXY)?.then_some(())))
    }
}
