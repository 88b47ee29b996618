//! Addresses that the node translates: host ports, services' addresses and their node ports.
//!
//! In: a cluster with an allowed and a denied client. Out: that a connection to such an address gets the
//! verdict of a connection to the pod's own address, for policies of the client and of the server.

use anyhow::{Result, ensure};

use super::{CLIENT_ALLOWED, CLIENT_DENIED, CLOSE, Run, SERVICE};
use crate::cluster::masquerades_to_nodes;

/// The server's in `objects.yaml`.
const HOST_PORT: u16 = 8880;
const NODE_PORT: u16 = 30_080;

impl Run<'_> {
    pub(super) fn host_port(&self) -> Result<()> {
        let [server, client] = ["web", CLIENT_ALLOWED].map(|pod| self.node_address(pod));
        let (server, client) = (server?, client?);
        let reached = |who| self.gets(who, &server, HOST_PORT);
        if masquerades_to_nodes(self.up.cni) {
            ensure!(!reached(CLIENT_ALLOWED)?, "the friend comes as {client}, whom no rule names");
            self.policy(&format!("{{from: [{{ipBlock: {{cidr: {client}/32}}}}]}}"))?;
            self.becomes(CLIENT_ALLOWED, false)?;
            ensure!(reached(CLIENT_DENIED)?, "by the node's address who is behind it is let in");
            self.policy(CLOSE)?;
            return self.becomes(CLIENT_ALLOWED, true);
        }
        ensure!(reached(CLIENT_ALLOWED)?, "the friend reaches {server}:{HOST_PORT}");
        ensure!(!reached(CLIENT_DENIED)?, "the stranger does not");
        Ok(())
    }

    /// The clients that the server's policy allows, and the servers that the client's policy allows. By a
    /// port of a node, kube-proxy masquerades the client as that node: on the server's node it is evaluated
    /// by its own address, from another node by that node's.
    pub(super) fn services(&self) -> Result<()> {
        let [server, client] = ["web", CLIENT_ALLOWED].map(|pod| self.node_address(pod));
        let (server, client) = (server?, client?);
        let reached = |who, node: &str| -> Result<[bool; 2]> {
            Ok([self.reaches(who, SERVICE)?, self.gets(who, node, NODE_PORT)?])
        };
        let seen = reached(CLIENT_ALLOWED, &server)?;
        ensure!(seen == [true, !masquerades_to_nodes(self.up.cni)], "of the friend: {seen:?}");
        let seen = reached(CLIENT_DENIED, &server)?;
        ensure!(seen == [false; 2], "of the stranger: {seen:?}");
        ensure!(!self.gets(CLIENT_ALLOWED, &client, NODE_PORT)?, "by its own node it comes as {client}");
        self.policy("{}")?;
        self.becomes(CLIENT_DENIED, true)?;
        for (app, expected) in [("none", false), ("web", true)] {
            self.apply(&format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: friend, namespace: shop}}\n\
                 spec: {{podSelector: {{matchLabels: {{role: friend}}}}, policyTypes: [Egress], egress: [{{to: \
                 [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]}}]}}\n"
            ))?;
            self.becomes(CLIENT_ALLOWED, expected)?;
            let seen = reached(CLIENT_ALLOWED, &client)?;
            ensure!(seen == [expected; 2], "the friend may go to {app}: {seen:?}");
        }
        self.ask(&["-n", "shop", "delete", "networkpolicy", "friend"])?;
        self.policy(CLOSE)?;
        self.becomes(CLIENT_DENIED, false)
    }

    fn node_address(&self, pod: &str) -> Result<String> {
        self.ask(&["-n", "shop", "get", "pod", pod, "-o", "jsonpath={.status.hostIP}"])
    }
}
