//! Programs at the hooks of devices: TCX links where the kernel has them, clsact filters where not.
//!
//! Attaching twice is attaching once: a start, a crash and an upgrade take the same path, and so does a
//! change from one kind of hook to the other. Replacing a program leaves no gap.

pub(super) mod clsact;
pub(super) mod tcx;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::{SchedClassifier, TcAttachType},
    util::KernelVersion,
};
use aya_obj::generated::bpf_attach_type;

use self::{clsact::Filters, tcx::Links};
use super::{Datapath, Pins, Program, TracingPrograms, sys};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Linux 6.6 and later.
    Tcx,
    /// Filters of tc, where the kernel has no TCX.
    Clsact,
}

impl HookKind {
    /// What this kernel can do best.
    ///
    /// # Errors
    ///
    /// When the kernel's version cannot be read.
    pub fn of_this_kernel() -> Result<Self> {
        let version = KernelVersion::current().context("cannot read the kernel's version")?;
        Ok(if version >= KernelVersion::new(6, 6, 0) { Self::Tcx } else { Self::Clsact })
    }
}

/// Where loaded programs are found.
pub trait Programs {
    /// # Errors
    ///
    /// When this one is not there.
    fn program(&mut self, program: Program) -> Result<&mut SchedClassifier>;
}

impl Programs for Datapath {
    fn program(&mut self, program: Program) -> Result<&mut SchedClassifier> {
        Self::program(self, program)
    }
}

/// One device: with another generation, another device has got its ifindex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// The interface's number.
    pub ifindex: u32,
    /// With another generation it is another device, and what was attached to the old one is gone.
    pub generation: u32,
}

/// What a device is, and so which programs it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceRole {
    /// The host side of a pod's veth.
    Pod,
    /// A way out of the node.
    Wire,
    /// A way out of the node on which packets have no link header.
    Tunnel,
    /// A device with a host endpoint.
    HostEndpoint,
    /// The same, where packets have no link header.
    HostEndpointBare,
}

impl DeviceRole {
    /// The roles of ways out of the node.
    pub const WAYS_OUT: [Self; 2] = [Self::Wire, Self::Tunnel];
    /// The roles of devices with a host endpoint.
    pub const HOSTS: [Self; 2] = [Self::HostEndpoint, Self::HostEndpointBare];

    const fn programs(self) -> &'static [Program] {
        match self {
            Self::Pod => &[Program::FromPod, Program::ToPod],
            Self::Wire => &[Program::ToWire],
            Self::Tunnel => &[Program::ToTunnel],
            Self::HostEndpoint => &[Program::FromNetdev, Program::ToNetdev],
            Self::HostEndpointBare => &[Program::FromBareNetdev, Program::ToBareNetdev],
        }
    }
}

/// Where a program of ours is among all at its hook. Whoever comes before it can end the chain: what such a
/// program lets pass, or sends elsewhere, ours never sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramOrder {
    /// Before those of others.
    First,
    /// Another one comes before it.
    Behind(String),
    /// Somebody has taken ours away.
    Missing,
}

/// Knows at which devices the programs of this process run.
#[derive(Debug)]
pub struct Attacher {
    mode: HookKind,
    links: Links,
    filters: Filters,
    attached: BTreeSet<(Device, DeviceRole)>,
    /// Devices that are known to have no program of a role.
    free: BTreeSet<(Device, DeviceRole)>,
    /// Pods' veths at which programs of a trace are in place of the agent's own, and their ids.
    traced: BTreeMap<Device, Vec<u32>>,
}

impl Attacher {
    /// # Errors
    ///
    /// When the kernel gives no netlink socket.
    pub fn new(mode: HookKind, pins: &Pins) -> Result<Self> {
        let (links, filters) = (Links::new(pins.links()), Filters::new(pins.qdiscs())?);
        let (attached, free, traced) = Default::default();
        Ok(Self { mode, links, filters, attached, free, traced })
    }

    /// Whether this process has put the programs of a place at a device.
    pub fn has(&self, device: &Device, place: DeviceRole) -> bool {
        self.attached.contains(&(*device, place))
    }

    /// Whether no agent has put its programs at this veth so far, in whatever way.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn is_new(&mut self, device: &Device) -> Result<bool> {
        Ok(!self.attached.contains(&(*device, DeviceRole::Pod))
            && !self.links.is_attached(device.ifindex)
            && !self.filters.is_attached(device.ifindex)?)
    }

    /// Puts the programs of its place at a device; returns whether that was new to this process.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the device may just have gone.
    pub fn attach(
        &mut self,
        programs: &mut dyn Programs,
        place: DeviceRole,
        device: &Device,
        interface: &str,
    ) -> Result<bool> {
        if self.attached.contains(&(*device, place)) {
            return Ok(false);
        }
        self.free.remove(&(*device, place));
        self.put(programs, place, device, interface)?;
        self.traced.remove(device);
        // An agent of the other mode may have been here. Until now both evaluated, and said the same.
        match self.mode {
            HookKind::Tcx => self.filters.remove(device.ifindex).map(|_| ()),
            HookKind::Clsact => self.links.remove(device.ifindex),
        }
        .with_context(|| format!("cannot remove earlier programs from {interface}"))?;
        self.attached.insert((*device, place));
        Ok(true)
    }

    fn put(
        &mut self,
        programs: &mut dyn Programs,
        place: DeviceRole,
        device: &Device,
        interface: &str,
    ) -> Result<()> {
        for &program in place.programs() {
            match self.mode {
                HookKind::Tcx => self.links.attach(programs, program, device.ifindex, interface),
                HookKind::Clsact => self.filters.attach(programs, program, device.ifindex, interface),
            }
            .with_context(|| format!("cannot attach {} to {interface}", program.name()))?;
        }
        Ok(())
    }

    /// Puts programs of a trace in the place of those at a pod's veth. Each replaces the other in one step,
    /// so that every packet meets one of them.
    ///
    /// # Errors
    ///
    /// When the agent's own are not there, or the kernel refuses: then they are put back.
    pub fn trace(
        &mut self,
        tracing: &mut TracingPrograms,
        own: &mut dyn Programs,
        device: &Device,
        interface: &str,
    ) -> Result<()> {
        ensure!(self.has(device, DeviceRole::Pod), "podgate's programs are not at {interface}");
        let ids = tracing.ids()?;
        let put = self.put(tracing, DeviceRole::Pod, device, interface);
        // Also if only one of them was replaced.
        self.traced.insert(*device, ids);
        put.or_else(|error| {
            self.end_trace(own, device, interface)?;
            Err(error)
        })
    }

    /// Puts the agent's own programs back in the same way.
    ///
    /// # Errors
    ///
    /// When the kernel refuses: it can be tried again.
    pub fn end_trace(&mut self, own: &mut dyn Programs, device: &Device, interface: &str) -> Result<()> {
        if self.traced.contains_key(device) {
            self.put(own, DeviceRole::Pod, device, interface)?;
            self.traced.remove(device);
        }
        Ok(())
    }

    /// The pods' veths that are traced.
    pub fn traced(&self) -> impl Iterator<Item = &Device> {
        self.traced.keys()
    }

    /// Where our programs of a role are at a device. Those that are missing are attached again by the next
    /// `attach`.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn order(
        &mut self,
        datapath: &mut Datapath,
        device: &Device,
        role: DeviceRole,
    ) -> Result<ProgramOrder> {
        if !self.attached.contains(&(*device, role)) {
            return Ok(ProgramOrder::First);
        }
        for &program in role.programs() {
            let order = self.order_at(datapath, program, device)?;
            if order == ProgramOrder::Missing {
                self.attached.remove(&(*device, role));
            }
            if order != ProgramOrder::First {
                return Ok(order);
            }
        }
        Ok(ProgramOrder::First)
    }

    fn order_at(
        &mut self,
        datapath: &mut Datapath,
        program: Program,
        device: &Device,
    ) -> Result<ProgramOrder> {
        let ifindex = device.ifindex;
        let traced = self.traced.get(device).map_or(&[][..], Vec::as_slice);
        let programs =
            sys::programs_at(ifindex, tcx_hook(program)).context("cannot list the programs at a hook")?;
        // Filters come after all of these.
        let before = match self.mode {
            HookKind::Clsact => programs.first(),
            HookKind::Tcx => {
                let ours = datapath.program(program)?.info().context("cannot learn a program's id")?.id();
                let Some(place) = programs.iter().position(|id| *id == ours || traced.contains(id)) else {
                    return Ok(ProgramOrder::Missing);
                };
                programs.get(..place).and_then(<[u32]>::first)
            }
        };
        match before {
            Some(id) => Ok(ProgramOrder::Behind(format!("BPF program {id}"))),
            None if self.mode == HookKind::Clsact => self.filters.order_at(program, ifindex),
            None => Ok(ProgramOrder::First),
        }
    }

    /// Detaches the programs of these roles, of this agent and of earlier ones, from devices that must have
    /// none.
    ///
    /// # Errors
    ///
    /// When the kernel does not remove one.
    pub fn detach(&mut self, devices: impl IntoIterator<Item = Device>, roles: &[DeviceRole]) -> Result<()> {
        for device in devices {
            for &role in roles {
                if self.free.contains(&(device, role)) {
                    continue;
                }
                self.links.remove_programs(device.ifindex, role.programs())?;
                self.filters.remove_programs(device.ifindex, role.programs())?;
                self.attached.remove(&(device, role));
                self.free.insert((device, role));
            }
        }
        Ok(())
    }

    /// The devices at which this process has put the programs of these roles.
    pub fn attached(&self, roles: &[DeviceRole]) -> Vec<Device> {
        let attached = self.attached.iter().filter(|(_, role)| roles.contains(role));
        attached.map(|(device, _)| *device).collect()
    }

    /// Forgets every device that is not in `present`, with its pins: its links are dead.
    ///
    /// # Errors
    ///
    /// When the directory of pins cannot be read or changed.
    pub fn keep(&mut self, present: &BTreeSet<Device>) -> Result<()> {
        self.attached.retain(|(device, _)| present.contains(device));
        self.free.retain(|(device, _)| present.contains(device));
        self.traced.retain(|device, _| present.contains(device));
        let present: BTreeSet<u32> = present.iter().map(|device| device.ifindex).collect();
        self.links.keep(&present)?;
        self.filters.keep(&present)
    }
}

pub(super) const fn tcx_hook(program: Program) -> bpf_attach_type {
    if program.is_at_ingress() { bpf_attach_type::BPF_TCX_INGRESS } else { bpf_attach_type::BPF_TCX_EGRESS }
}

const fn attach_type(program: Program) -> TcAttachType {
    if program.is_at_ingress() { TcAttachType::Ingress } else { TcAttachType::Egress }
}
