//! What keeps packets from the short cut: whatever must see each of them on the way that they would leave
//! out.
//!
//! In: a pod's veth. Out: the first thing in the way, in words; none: packets may go past. The agent asks all
//! the time, since most of it appears without a message.

use std::{collections::BTreeMap, fmt, fs, io, path::Path};

use anyhow::{Context as _, Result};
use aya::util::KernelVersion;
use aya_obj::generated::bpf_attach_type;
use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHeader, TcMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Datapath, HookKind, Program, attach::tcx_hook, engines::device_chains, netlink::Requests, sys};

/// What is in the way of packets that would take the short cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Before this version the kernel hands a packet over with what it carries from elsewhere.
    Kernel,
    /// Programs are filters of a clsact qdisc.
    Clsact,
    /// A connection that comes back would be taken for broken while this is not 1.
    Setting(&'static str),
    /// A chain of nf_tables is at the hooks of some device.
    DeviceChain(String),
    /// The interface is a port of a bridge, which must see frames to know where hosts are.
    Bridge,
    /// Another BPF program is at a hook of the interface.
    Program(u32),
    /// One of ours is not there.
    Missing,
    /// A queueing discipline of the interface shapes packets, or holds filters.
    QueueingDiscipline(String),
    /// A trace shows the pod's packets, which would go past it.
    Traced,
    /// Whose interface it is is not known.
    Unidentified,
    /// The kernel does not say.
    Unknown(String),
}

/// Linux 6.15: `bpf_redirect_peer` frees a packet of what it has carried (`skb_scrub_packet`).
const KERNEL: KernelVersion = KernelVersion::new(6, 15, 0);

/// Settings of connection tracking under which a TCP connection is picked up in its middle. A node without
/// connection tracking has none of them.
const SETTINGS: [&str; 2] = ["nf_conntrack_tcp_loose", "nf_conntrack_tcp_be_liberal"];

/// Bytes of `struct tcmsg`, before the attributes; the attribute `TCA_KIND` (linux/rtnetlink.h).
const TC_HEADER: usize = 20;
const KIND: u16 = 1;

/// The queueing discipline of an interface without a queue.
const NO_QUEUE: &str = "noqueue";

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("it needs Linux 6.15"),
            Self::Clsact => f.write_str("it needs TCX"),
            Self::Setting(name) => write!(f, "it needs net.netfilter.{name} = 1"),
            Self::DeviceChain(name) => write!(f, "the chain {name} of nf_tables is at a device"),
            Self::Bridge => f.write_str("its interface is a port of a bridge"),
            Self::Program(id) => write!(f, "BPF program {id} is at its interface, too"),
            Self::Missing => f.write_str("podgate's programs are not at its interface"),
            Self::QueueingDiscipline(kind) => write!(f, "its interface has the queueing discipline {kind}"),
            Self::Traced => f.write_str("its packets are traced"),
            Self::Unidentified => f.write_str("no pod is known to be behind the interface"),
            Self::Unknown(error) => f.write_str(error),
        }
    }
}

/// Looks for obstacles.
#[derive(Debug)]
pub struct ObstacleFinder {
    mode: HookKind,
    requests: Requests,
}

/// What was found on the whole node.
#[derive(Debug)]
pub struct NodeObstacles {
    /// For all interfaces.
    everywhere: Option<Obstacle>,
    /// By ifindex.
    disciplines: BTreeMap<u32, String>,
    /// Our programs at the hooks of a veth, by id.
    programs: [(bpf_attach_type, u32); 2],
}

impl ObstacleFinder {
    /// # Errors
    ///
    /// When the kernel gives no netlink socket.
    pub fn new(mode: HookKind) -> Result<Self> {
        let requests = Requests::open(NETLINK_ROUTE).context("cannot open an rtnetlink socket")?;
        Ok(Self { mode, requests })
    }

    /// Looks at the node.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn look(&mut self, datapath: &mut Datapath) -> Result<NodeObstacles> {
        let mut hook = |program| {
            let info = datapath.program(program)?.info().context("cannot learn a program's id")?;
            Ok::<_, anyhow::Error>((tcx_hook(program), info.id()))
        };
        let programs = [hook(Program::FromPod)?, hook(Program::ToPod)?];
        let disciplines = self.disciplines().context("cannot list the queueing disciplines")?;
        Ok(NodeObstacles { everywhere: everywhere(self.mode)?, disciplines, programs })
    }

    /// The queueing discipline of each interface that has another one than none.
    fn disciplines(&mut self) -> io::Result<BTreeMap<u32, String>> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let found = self.requests.dump(request, |payload| {
            let header = TcHeader::parse(payload).ok()?;
            let mut attributes = NlasIterator::new(payload.get(TC_HEADER..)?).flatten();
            let kind = attributes.find(|attribute| attribute.kind() == KIND)?;
            let kind = kind.value().split(|byte| *byte == 0).next()?;
            Some((header.index.cast_unsigned(), String::from_utf8_lossy(kind).into_owned()))
        })?;
        Ok(found.into_iter().filter(|(_, kind)| kind != NO_QUEUE).collect())
    }
}

impl NodeObstacles {
    /// What is in the way at a pod's veth, if anything.
    pub fn at(&self, ifindex: u32) -> Option<Obstacle> {
        if let Some(obstacle) = &self.everywhere {
            return Some(obstacle.clone());
        }
        if let Some(kind) = self.disciplines.get(&ifindex) {
            return Some(Obstacle::QueueingDiscipline(kind.clone()));
        }
        self.programs.iter().find_map(|(hook, ours)| match sys::programs_at(ifindex, *hook) {
            Ok(programs) if !programs.contains(ours) => Some(Obstacle::Missing),
            Ok(programs) => programs.into_iter().find(|id| id != ours).map(Obstacle::Program),
            Err(error) => Some(Obstacle::Unknown(format!("cannot list the programs at a hook: {error}"))),
        })
    }
}

fn everywhere(mode: HookKind) -> Result<Option<Obstacle>> {
    let version = KernelVersion::current().context("cannot read the kernel's version")?;
    if let Some(obstacle) = kernel_obstacle(Path::new("/"), version, mode) {
        return Ok(Some(obstacle));
    }
    let chain = device_chains()?.into_iter().next();
    Ok(chain.map(Obstacle::DeviceChain))
}

/// What is in the way on a whole node by its kernel and its settings. `root`: `/`, or where the node's is
/// mounted.
pub fn kernel_obstacle(root: &Path, version: KernelVersion, mode: HookKind) -> Option<Obstacle> {
    if version < KERNEL {
        return Some(Obstacle::Kernel);
    }
    if mode == HookKind::Clsact {
        return Some(Obstacle::Clsact);
    }
    SETTINGS.into_iter().find_map(|name| {
        match fs::read_to_string(root.join("proc/sys/net/netfilter").join(name)) {
            Ok(value) if value.trim() == "1" => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Ok(_) => Some(Obstacle::Setting(name)),
            Err(error) => Some(Obstacle::Unknown(format!("cannot read {name}: {error}"))),
        }
    })
}
