//! Much more than fits into a window, and segments that are too large for a link.

use std::{
    fs::File,
    io::{Read, copy},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result, ensure};
use xtask::lab::{Addresses, Agent, ClusterService, Lab, PATIENT, Place, Seen, join};

use crate::scene::{EVERY_KIND, apply, expect, serve_all};

/// Much more than a window of TCP.
const MUCH: u64 = 4 << 20;

/// Sends much from a file, as a web server does it, and waits until all of it was read.
fn transfer(from: &Place, to: &Place, at: SocketAddr, listener: &TcpListener) -> Result<()> {
    let what = || format!("{} to {at}", from.name());
    let mut sender = from.run(|| TcpStream::connect_timeout(&at, PATIENT)).with_context(what)?;
    let (mut receiver, _) = to.run(|| listener.accept()).with_context(what)?;
    sender.set_write_timeout(Some(PATIENT))?;
    receiver.set_read_timeout(Some(PATIENT))?;
    let mut file = tempfile()?;
    file.set_len(MUCH)?;
    let receive = move || -> Result<u64> {
        let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
        loop {
            match receiver.read(&mut buffer).with_context(|| format!("after {count} bytes"))? {
                0 => return Ok(count),
                length => count += length as u64,
            }
        }
    };
    thread::scope(|scope| {
        let receiving = scope.spawn(receive);
        // sendfile(2): the kernel sends pages of the file.
        let sent =
            copy(&mut file, &mut sender).and_then(|count| sender.shutdown(Shutdown::Write).map(|()| count));
        let received = join(receiving);
        ensure!(sent.with_context(what)? == MUCH, "{}: not all was sent", what());
        let count = received.with_context(what)?;
        ensure!(count == MUCH, "{}: {count} of {MUCH} bytes arrived", what());
        Ok(())
    })
}

/// A file without a name, in memory.
fn tempfile() -> Result<File> {
    let file = nix::sys::memfd::memfd_create(c"much", nix::sys::memfd::MFdFlags::empty())?;
    Ok(file.into())
}

const MAY_SEND: &str = "  podSelector: {matchLabels: {app: client}}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
                        - to: [{podSelector: {matchLabels: {app: server}}}]\n    ports: [{port: 9}]\n";

/// The other node cannot hand on what the client sends at first, and tells it so by ICMP.
pub(super) fn small_mtu(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let server = n2.pod("x/server").labels(&[("app", "server")]).start()?;
    let service = ClusterService::new("x/much", 1, "TCP", 80).backend(server.addresses, 9, Some(&n2));
    service.apply(&[&n1])?;
    let Addresses { v4, v6 } = server.addresses;
    let veth = &server.host_interface;
    n2.place.ip(&format!(
        "route replace {v4} dev {veth} scope link mtu 1300\nroute replace {v6} dev {veth} mtu 1300\n"
    ))?;
    apply(lab.manifests(), "client", MAY_SEND)?;
    let _agent = Agent::start(&n1, &[])?;
    let listener = server.place.run(|| TcpListener::bind(("::", 9)))?;
    let capture = client.place.capture()?;
    for (at, port) in [(server.addresses, 9), (service.addresses(), 80)] {
        for address in at.both() {
            transfer(&client.place, &server.place, SocketAddr::new(address, port), &listener)?;
        }
    }
    let errors = capture.from(&n2.addresses.both());
    for protocol in [1, 58] {
        ensure!(
            errors.iter().any(|packet| packet.protocol == protocol),
            "no ICMP (protocol {protocol}): {errors:?}"
        );
    }
    // It is isolated all the same.
    expect(&server.place, client.addresses, &EVERY_KIND, Seen::Blocked)?;
    expect(&n2.place, client.addresses, &EVERY_KIND, Seen::Blocked)
}

/// Segments of 64 KiB with their data in pages, between pods of one node and of two.
pub(super) fn large(lab: &mut Lab) -> Result<()> {
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    let client = n1.pod("x/client").labels(&[("app", "client")]).start()?;
    let servers = [n1.pod("x/near"), n2.pod("x/far")].map(|pod| pod.labels(&[("app", "server")]).start());
    apply(lab.manifests(), "client", MAY_SEND)?;
    let from_client = "  podSelector: {matchLabels: {app: server}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
                       - from: [{podSelector: {matchLabels: {app: client}}}]\n    ports: [{port: 9}]\n";
    apply(lab.manifests(), "server", from_client)?;
    let _agents = [Agent::start(&n1, &[])?, Agent::start(&n2, &[])?];
    for server in servers {
        let server = server?;
        let listener = server.place.run(|| TcpListener::bind(("::", 9)))?;
        let _others = serve_all(&server.place)?;
        for address in server.addresses.both() {
            transfer(&client.place, &server.place, SocketAddr::new(address, 9), &listener)?;
        }
        expect(&client.place, server.addresses, &EVERY_KIND, Seen::Blocked)?;
    }
    Ok(())
}
