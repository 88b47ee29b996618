//! Guards a new interface while there is no agent, by the pinned programs over the pinned maps, or by a
//! program that drops everything.
//!
//! In: an interface that no one has spoken through yet, and whether policies may isolate its pod. Out:
//! programs at it. A pod that may be isolated is held: no entry in the table of endpoints says that anything
//! passes. The agent that comes finds links, filters and entries as an agent before it would have left them.

use std::{collections::BTreeSet, io, net::IpAddr, path::Path, time::Instant};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use podgate_common::{Address, Endpoint, EndpointState, is_nodes};

use super::{
    Attacher, Device, DeviceRole, HookKind, Pins,
    lock::Visit,
    pinned_programs::{PinnedPrograms, note_held},
};

/// An interface of a pod, right after it was made.
#[derive(Clone, Copy, Debug)]
pub struct NewInterface<'a> {
    /// The interface's number on the node.
    pub ifindex: u32,
    /// The interface's name on the node.
    pub name: &'a str,
    /// The bridge that it is a port of, 0 if none.
    pub master: u32,
    /// What the pod was given.
    pub addresses: &'a BTreeSet<IpAddr>,
}

/// How an interface is guarded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandIn {
    /// Nothing was done: an agent runs, and does it.
    AgentRuns,
    /// Nothing passes until an agent comes.
    Pending,
    /// Everything passes until an agent comes.
    Unmanaged,
}

/// Guards an interface, unless an agent runs. `may_isolate`: a policy may isolate its pod.
///
/// # Errors
///
/// When the kernel refuses something, or others that do the same are not done in time.
pub fn stand_in(
    bpffs: &Path,
    interface: &NewInterface<'_>,
    may_isolate: bool,
    deadline: Instant,
) -> Result<StandIn> {
    let pins = Pins::create(bpffs)?;
    let Some(_visit) = Visit::enter(pins.directory(), deadline)? else { return Ok(StandIn::AgentRuns) };
    let endpoints = open::<u32, Endpoint>(&pins, "ENDPOINTS")?;
    let pinned = PinnedPrograms::open(&pins)?;
    let programs = match (pinned, &endpoints) {
        (Some(programs), Some(_)) => Some(programs),
        // No agent was here since the node has started.
        _ if !may_isolate => None,
        _ => {
            note_held(&pins, interface.ifindex)?;
            Some((HookKind::of_this_kernel()?, PinnedPrograms::drop_all(&pins)?))
        }
    };
    let Some((mode, mut programs)) = programs else { return Ok(StandIn::Unmanaged) };
    if let Some(mut endpoints) = endpoints {
        // Of a device that had this number before.
        absent_is_fine(endpoints.remove(&interface.ifindex)).context("cannot clear its endpoint")?;
        forget_owners(&pins, interface)?;
        if !may_isolate {
            let table_set = endpoints.iter().next().transpose().context("cannot read the endpoints")?;
            let unmanaged = Endpoint {
                state: EndpointState::Unmanaged as u32,
                table_set: table_set.map_or(Endpoint::PENDING.table_set, |(_, other)| other.table_set),
                master: interface.master,
                ..Endpoint::PENDING
            };
            endpoints.insert(interface.ifindex, unmanaged, 0).context("cannot write its endpoint")?;
        }
    }
    let device = Device { ifindex: interface.ifindex, generation: 0 };
    Attacher::new(mode, &pins)?.attach(&mut programs, DeviceRole::Pod, &device, interface.name)?;
    Ok(if may_isolate { StandIn::Pending } else { StandIn::Unmanaged })
}

/// Whether programs of whatever agent, or of its stand-in, are at an interface.
///
/// # Errors
///
/// When the kernel does not answer.
pub fn is_guarded(bpffs: &Path, ifindex: u32) -> Result<bool> {
    let pins = Pins::at(bpffs);
    let device = Device { ifindex, generation: 0 };
    Attacher::new(HookKind::of_this_kernel()?, &pins)?.is_new(&device).map(|is_new| !is_new)
}

/// The pod's addresses may have been those of pods whose interfaces are gone: they must not count as taken.
fn forget_owners(pins: &Pins, interface: &NewInterface<'_>) -> Result<()> {
    let Some(mut owners) = open::<Address, u32>(pins, "OWNERS")? else { return Ok(()) };
    for address in interface.addresses {
        let address = Address::from(*address);
        let owner = match owners.get(&address, 0) {
            Ok(owner) => owner,
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(error).context("cannot read whose its addresses are"),
        };
        if !is_nodes(owner) && owner != interface.ifindex && !is_there(owner) {
            absent_is_fine(owners.remove(&address)).context("cannot free its address")?;
        }
    }
    Ok(())
}

fn is_there(ifindex: u32) -> bool {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: room for the longest name.
    !unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null()
}

fn open<K: aya::Pod, V: aya::Pod>(pins: &Pins, name: &str) -> Result<Option<HashMap<MapData, K, V>>> {
    let path = pins.maps().join(name);
    if !path.try_exists().with_context(|| format!("cannot look for {}", path.display()))? {
        return Ok(None);
    }
    let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    HashMap::try_from(Map::HashMap(map)).map(Some).with_context(|| format!("the map {}", path.display()))
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
