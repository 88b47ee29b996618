//! Filters of a clsact qdisc, for kernels without TCX.
//!
//! A filter outlives the agent by itself. It has a fixed priority and handle, under which the next agent
//! finds it and gives it another program. The qdisc belongs to whoever came first: one that an agent made is
//! noted down, and goes with the filters unless somebody else has filters at it by then.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::programs::{
    ProgramError,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{self as tc_message, TcAttribute, TcHeader, TcMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use podgate_common::Direction;

use super::{ProgramOrder, Programs, attach_type};
use crate::{Program, netlink::Requests};

/// Where other programs leave room, and where the next agent looks: "pg".
const PRIORITY: u16 = 0x7067;
/// The priority of programs of host endpoints, after the others: both may be at one hook.
const HOST_PRIORITY: u16 = PRIORITY + 1;
const HANDLE: u16 = 1;

/// `ETH_P_ALL` (linux/if_ether.h).
const EVERY_PROTOCOL: u16 = 3;

/// Filters, and the directory with one directory for each qdisc that an agent made, named by ifindex.
#[derive(Debug)]
pub(crate) struct Filters {
    requests: Requests,
    made: PathBuf,
}

impl Filters {
    pub(crate) fn new(made: PathBuf) -> Result<Self> {
        let requests = Requests::open(NETLINK_ROUTE).context("cannot open an rtnetlink socket")?;
        Ok(Self { requests, made })
    }

    pub(super) fn is_attached(&mut self, ifindex: u32) -> Result<bool> {
        for direction in Direction::ALL {
            if self.list(ifindex, direction)?.iter().any(is_ours) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where our filter is in the order of a hook.
    pub(super) fn order_at(&mut self, program: Program, ifindex: u32) -> Result<ProgramOrder> {
        let direction = direction_of(program);
        let filters = self.list(ifindex, direction)?;
        if !filters.iter().any(|filter| is_ours(filter) && priority(filter) == priority_of(program)) {
            return Ok(ProgramOrder::Missing);
        }
        let before = filters.iter().map(priority).filter(|priority| *priority < PRIORITY).min();
        Ok(before.map_or(ProgramOrder::First, |priority| {
            ProgramOrder::Behind(format!("a filter with preference {priority}"))
        }))
    }

    /// Replaces the filter of an earlier agent, or adds one.
    pub(super) fn attach(
        &mut self,
        programs: &mut dyn Programs,
        program: Program,
        ifindex: u32,
        interface: &str,
    ) -> Result<()> {
        self.add_qdisc(ifindex, interface)?;
        let (hook, handle) = (attach_type(program), TcHandle::new(0, HANDLE));
        let priority = priority_of(program);
        let program = programs.program(program)?;
        let earlier = SchedClassifierLink::attached(interface, hook, priority, handle, None)
            .context("no such device")?;
        let link = match program.attach_to_link(earlier) {
            Ok(link) => link,
            Err(error) if os_error(&error) == Some(libc::ENOENT) => {
                let options = NlOptions { priority, handle, classid: None };
                program
                    .attach_with_options(interface, hook, TcAttachOptions::Netlink(options))
                    .context("cannot add a filter")?
            }
            Err(error) => return Err(error).context("cannot replace the filter"),
        };
        // Dropping the link would remove the filter, which must outlive this process.
        std::mem::forget(program.take_link(link)?);
        Ok(())
    }

    /// Removes the filters of a device, and its qdisc if an agent made that and nothing else is left at it;
    /// returns how many filters there were.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<usize> {
        self.remove_programs(ifindex, &Program::ALL)
    }

    /// The same of some programs alone.
    pub(super) fn remove_programs(&mut self, ifindex: u32, programs: &[Program]) -> Result<usize> {
        let (mut removed, mut others) = (0, false);
        for direction in Direction::ALL {
            let of_hook = programs.iter().filter(|program| direction_of(**program) == direction);
            let priorities: BTreeSet<u16> = of_hook.map(|program| priority_of(*program)).collect();
            for filter in self.list(ifindex, direction)? {
                if is_ours(&filter) && priorities.contains(&priority(&filter)) {
                    let info = all_protocols(priority(&filter));
                    let header = TcHeader { info, handle: filter.handle, ..at(ifindex, direction) };
                    self.order(RouteNetlinkMessage::DelTrafficFilter(message(header)))
                        .context("cannot remove a filter")?;
                    removed += 1;
                } else {
                    others = true;
                }
            }
        }
        let note = self.note(ifindex);
        if note.exists() {
            // Who adds the first filter of its own in this very moment loses it: the kernel has no way to
            // remove a qdisc only if it is empty.
            if !others {
                self.order(RouteNetlinkMessage::DelQueueDiscipline(message(qdisc(ifindex))))
                    .context("cannot remove the clsact qdisc")?;
            }
            forget(&note)?;
        }
        Ok(removed)
    }

    /// Removes the filters of all devices of this network namespace, and the notes; returns how many filters
    /// there were.
    pub(crate) fn remove_all(&mut self) -> Result<usize> {
        let mut removed = 0;
        for (ifindex, interface) in interfaces()? {
            removed += self.remove(ifindex).with_context(|| format!("cannot clean {interface}"))?;
        }
        self.keep(&BTreeSet::new())?;
        Ok(removed)
    }

    /// Forgets what was noted of all devices but these.
    pub(super) fn keep(&self, present: &BTreeSet<u32>) -> Result<()> {
        let entries = match fs::read_dir(&self.made) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.made.display())),
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", self.made.display()))?.path();
            if !noted_ifindex(&path).is_some_and(|ifindex| present.contains(&ifindex)) {
                forget(&path)?;
            }
        }
        Ok(())
    }

    fn add_qdisc(&mut self, ifindex: u32, interface: &str) -> Result<()> {
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => {
                let note = self.note(ifindex);
                fs::create_dir_all(&note).with_context(|| format!("cannot make {}", note.display()))
            }
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                // The older qdisc `ingress` has the same place, and takes filters for egress as ones for
                // ingress.
                let mut clsact = message(qdisc(ifindex));
                clsact.attributes.push(TcAttribute::Kind("clsact".to_owned()));
                self.order(RouteNetlinkMessage::GetQueueDiscipline(clsact))
                    .context("it has an ingress qdisc that is no clsact")
            }
            Err(error) => Err(error).context("cannot add the clsact qdisc"),
        }
    }

    /// All filters at a hook. A device that is gone, or that has no such qdisc, has none.
    fn list(&mut self, ifindex: u32, direction: Direction) -> Result<Vec<TcHeader>> {
        let request = RouteNetlinkMessage::GetTrafficFilter(message(at(ifindex, direction)));
        let filters = self.requests.dump(request, |payload| TcHeader::parse(payload).ok());
        let filters = filters.context("cannot list the filters")?;
        // Each priority also has an entry of its own, without a handle.
        Ok(filters.into_iter().filter(|filter| filter.handle != tc_message::TcHandle::UNSPEC).collect())
    }

    fn order(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.requests.ask(request, |_| None::<()>).map(|_| ())
    }

    fn note(&self, ifindex: u32) -> PathBuf {
        self.made.join(ifindex.to_string())
    }
}

fn is_ours(filter: &TcHeader) -> bool {
    [PRIORITY, HOST_PRIORITY].contains(&priority(filter)) && filter.handle == u32::from(HANDLE).into()
}

/// The priority of a filter: the kernel runs filters with smaller numbers first.
const fn priority(filter: &TcHeader) -> u16 {
    (filter.info >> 16) as u16
}

const fn priority_of(program: Program) -> u16 {
    if program.is_of_host() { HOST_PRIORITY } else { PRIORITY }
}

const fn direction_of(program: Program) -> Direction {
    if program.is_at_ingress() { Direction::Egress } else { Direction::Ingress }
}

/// A filter's priority, and the protocols that it is for in network byte order.
fn all_protocols(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from(EVERY_PROTOCOL.to_be())
}

fn qdisc(ifindex: u32) -> TcHeader {
    let parent = tc_message::TcHandle::CLSACT;
    TcHeader { index: ifindex.cast_signed(), parent, ..TcHeader::default() }
}

fn at(ifindex: u32, direction: Direction) -> TcHeader {
    let minor = match direction {
        Direction::Egress => tc_message::TcHandle::MIN_INGRESS,
        Direction::Ingress => tc_message::TcHandle::MIN_EGRESS,
    };
    let parent = tc_message::TcHandle { minor, ..tc_message::TcHandle::CLSACT };
    TcHeader { parent, ..qdisc(ifindex) }
}

fn message(header: TcHeader) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = header;
    message
}

fn noted_ifindex(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}

fn forget(note: &Path) -> Result<()> {
    fs::remove_dir(note).with_context(|| format!("cannot remove {}", note.display()))
}

/// The devices of this network namespace.
fn interfaces() -> Result<Vec<(u32, String)>> {
    // SAFETY: takes nothing; the list is freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        bail!("cannot list the network devices: {}", io::Error::last_os_error());
    }
    let mut interfaces = Vec::new();
    let mut entry = list;
    // SAFETY: the list ends with an entry of index 0; each name ends in NUL and lives until the list is
    // freed.
    unsafe {
        while (*entry).if_index != 0 {
            let name = CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned();
            interfaces.push(((*entry).if_index, name));
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
    }
    Ok(interfaces)
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::TcError(TcError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}
