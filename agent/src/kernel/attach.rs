//! Programs at the hooks of a veth: TCX links where the kernel has them, clsact filters where not.
//!
//! Attaching twice is attaching once: a start, a crash and an upgrade take the same path, and so does a change from one
//! kind of hook to the other. Replacing a program leaves no gap.

pub(super) mod clsact;
pub(super) mod tcx;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use aya::{programs::TcAttachType, util::KernelVersion};
use podgate_common::Direction;

use self::{clsact::Filters, tcx::Links};
use super::{Kernel, Pins, programs::program_name};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Linux 6.6 and later.
    Tcx,
    Clsact,
}

impl Mode {
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

/// One device: with another generation, another device has got its ifindex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    pub ifindex: u32,
    pub generation: u32,
}

/// Knows at which veths the programs of this process run.
#[derive(Debug)]
pub struct Attacher {
    mode: Mode,
    links: Links,
    filters: Filters,
    attached: BTreeSet<Device>,
}

impl Attacher {
    /// # Errors
    ///
    /// When the kernel gives no netlink socket.
    pub fn new(mode: Mode, pins: &Pins) -> Result<Self> {
        let (links, filters) = (Links::new(pins.links()), Filters::new(pins.qdiscs())?);
        Ok(Self { mode, links, filters, attached: BTreeSet::new() })
    }

    /// Whether no agent has put its programs at this veth so far, in whatever way.
    ///
    /// # Errors
    ///
    /// When the kernel does not tell.
    pub fn is_new(&mut self, device: &Device) -> Result<bool> {
        Ok(!self.attached.contains(device)
            && !self.links.is_attached(device.ifindex)
            && !self.filters.is_attached(device.ifindex)?)
    }

    /// Puts both programs at a veth; returns whether that was new to this process.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the device may just have gone.
    pub fn attach(&mut self, kernel: &mut Kernel, device: &Device, interface: &str) -> Result<bool> {
        if self.attached.contains(device) {
            return Ok(false);
        }
        for direction in Direction::ALL {
            let program = kernel.program(direction)?;
            match self.mode {
                Mode::Tcx => self.links.attach(program, device.ifindex, interface, direction),
                Mode::Clsact => self.filters.attach(program, device.ifindex, interface, direction),
            }
            .with_context(|| format!("cannot attach {} to {interface}", program_name(direction)))?;
        }
        // An agent of the other mode may have been here. Until now both judged, and said the same.
        match self.mode {
            Mode::Tcx => self.filters.remove(device.ifindex).map(|_| ()),
            Mode::Clsact => self.links.remove(device.ifindex),
        }
        .with_context(|| format!("cannot remove earlier programs from {interface}"))?;
        self.attached.insert(*device);
        Ok(true)
    }

    /// Forgets every veth that is not in `present`, with its pins: its links are dead.
    ///
    /// # Errors
    ///
    /// When the directory of pins cannot be read or changed.
    pub fn keep(&mut self, present: &BTreeSet<Device>) -> Result<()> {
        self.attached.retain(|device| present.contains(device));
        let present: BTreeSet<u32> = present.iter().map(|device| device.ifindex).collect();
        self.links.keep(&present)?;
        self.filters.keep(&present)
    }
}

const fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Egress => TcAttachType::Ingress,
        Direction::Ingress => TcAttachType::Egress,
    }
}
