//! A pod prepares sockets for the moment when an agent comes, or takes another one's place.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::IpAddr,
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};
use xtask::lab::{Addresses, Agent, BRIEF, Lab, Place, Pod, Seen, Traffic};

use super::{
    Test,
    arrival::{Pair, WORDS, bound},
    policies::DENY_ALL,
    scene::{apply, becomes},
};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_udp_socket_that_is_only_connected_opens_nothing", only_connected),
    ("an_upgrade_takes_over_the_connections_of_the_flow_table_and_no_others", upgraded),
];

/// A pod prepares a socket, for a time when there is no agent or another one.
struct Prepared {
    socket: Socket,
    server: Socket,
}

impl Prepared {
    /// `connect` sends nothing.
    fn new(pod: &Pod, server: (&Place, Addresses)) -> Result<Self> {
        let (place, at) = (server.0, IpAddr::from(server.1.v4));
        let listener = place.run(|| bound(Domain::IPV4, Type::DGRAM, (at, 0).into()))?;
        let socket = pod.place.run(|| Socket::new(Domain::IPV4, Type::DGRAM, None))?;
        socket.connect(&listener.local_addr()?)?;
        Ok(Self { socket, server: listener })
    }

    /// Whether anything of what it sends arrives.
    fn is_heard(&self) -> Result<bool> {
        (&self.socket).write_all(WORDS)?;
        self.server.set_read_timeout(Some(BRIEF))?;
        match (&self.server).read(&mut [0; WORDS.len()]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("waiting for what must not come"),
        }
    }
}

fn only_connected(lab: &mut Lab) -> Result<()> {
    let (plain, tracking) = (lab.node("n1")?, lab.node("n2")?);
    tracking.track_connections()?;
    let outside = lab.outside("outside")?;
    let outside = (&outside.place, outside.addresses);
    let pods = [&plain, &tracking].map(|node| {
        let pod = node.pod(&format!("x/on-{}", node.name())).labels(&[("app", "closed")]).start()?;
        pod.cache_cni_result()?;
        Ok(pod)
    });
    let pods = pods.into_iter().collect::<Result<Vec<Pod>>>()?;
    apply(lab.manifests(), "close", DENY_ALL)?;
    for pod in &pods {
        let prepared = Prepared::new(pod, outside)?;
        // Where nothing tracks connections, not even one that talks is known to be answered.
        let talks = Pair::open(&pod.place, outside.0, outside.1.v4.into(), Type::DGRAM)?;
        let stream = Pair::open(&pod.place, outside.0, outside.1.v4.into(), Type::STREAM)?;
        let _agent = Agent::start(pod.node(), &[])?;
        ensure!(!prepared.is_heard()?, "{}: a socket that is only connected passes", pod.name());
        stream.talk()?;
        if pod.node().name() == tracking.name() {
            talks.talk()?;
        }
    }
    Ok(())
}

/// By an agent of the same maps, by one that can read the table of the agent before, and by one that cannot.
fn upgraded(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let pod = node.pod("x/closed").labels(&[("app", "closed")]).start()?;
    pod.cache_cni_result()?;
    let outside = lab.outside("outside")?;
    let outside = (&outside.place, outside.addresses);
    let agent = Agent::start(&node, &[])?;
    let pair = Pair::open(&pod.place, outside.0, outside.1.v4.into(), Type::DGRAM)?;
    apply(lab.manifests(), "close", DENY_ALL)?;
    let prepared = Prepared::new(&pod, outside)?;
    becomes(&pod.place, outside.1.v4.into(), Traffic::Tcp(80), Seen::Blocked)?;
    agent.kill()?;
    let pins = node.bpffs().join("podgate");
    let layout = fs::read_dir(&pins)?.next().context("a directory of pins")??.file_name();
    let layout = layout.to_str().context("a plain name")?.to_owned();
    for (moved, goes_on) in
        [(None, true), (Some(format!("{layout}-before")), true), (Some("v1".into()), false)]
    {
        // Prepared while no agent is there.
        let fresh = Prepared::new(&pod, outside)?;
        if let Some(moved) = &moved {
            fs::rename(pins.join(&layout), pins.join(moved)).context("renaming the pins")?;
        }
        let agent = Agent::start(&node, &[])?;
        for socket in [&prepared, &fresh] {
            ensure!(!socket.is_heard()?, "a prepared socket passes after {moved:?}");
        }
        if goes_on {
            pair.talk().with_context(|| format!("a connection of before {moved:?}"))?;
        }
        agent.kill()?;
    }
    Ok(())
}
