//! One closed server, a client that it lets in, and one that it denies.

use anyhow::Result;
use xtask::lab::{Lab, Node, Pod, Seen, Server, Traffic};

use super::scene::{CLOSE, EVERY_KIND, apply, becomes, expect, serve_all};

pub(crate) struct AllowDenyFixture {
    pub(crate) node: Node,
    pub(crate) server: Pod,
    pub(crate) client_allowed: Pod,
    pub(crate) client_denied: Pod,
    _servers: Vec<Server>,
}

impl AllowDenyFixture {
    pub(crate) fn new(lab: &mut Lab) -> Result<Self> {
        let node = lab.node("n1")?;
        let server = node.pod("x/server").labels(&[("app", "closed")]).start()?;
        let client_allowed = node.pod("x/friend").labels(&[("role", "friend")]).start()?;
        let client_denied = node.pod("x/stranger").start()?;
        let servers = serve_all(&server.place)?;
        apply(lab.manifests(), "close", CLOSE)?;
        Ok(Self { node, server, client_allowed, client_denied, _servers: servers })
    }

    pub(crate) fn verdicts_hold(&self) -> Result<()> {
        expect(&self.client_allowed.place, self.server.addresses, &EVERY_KIND, Seen::Reached)?;
        expect(&self.client_denied.place, self.server.addresses, &EVERY_KIND, Seen::Blocked)
    }

    /// Waits until the client that the policy denies gets this answer of the server's port.
    pub(crate) fn denied_client_becomes(&self, expected: Seen) -> Result<()> {
        becomes(&self.client_denied.place, self.server.addresses.v4.into(), Traffic::Tcp(80), expected)
    }
}
