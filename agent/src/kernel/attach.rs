//! Programs at the hooks of devices: TCX links where the kernel has them, clsact filters where not.
//!
//! Attaching twice is attaching once: a start, a crash and an upgrade take the same path. A TCX link is pinned and gets
//! the new program by an atomic update. A filter outlives the agent by itself; it has a fixed priority and handle, under
//! which the next agent finds and replaces it.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Kernel, Pins, Program};
use anyhow::{Context as _, Result, bail};
use aya::{
    programs::{
        LinkOrder, ProgramError, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    util::KernelVersion,
};

/// Where other programs leave room, and where the next agent looks: "pg".
const FILTER_PRIORITY: u16 = 0x7067;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

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
    links: PathBuf,
    attached: BTreeSet<(Device, Place)>,
}

/// What a device is, and so which programs it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The host side of a pod's veth.
    Pod,
    /// A way out of the node.
    Wire,
}

impl Place {
    const fn programs(self) -> &'static [Program] {
        match self {
            Self::Pod => &[Program::FromPod, Program::ToPod],
            Self::Wire => &[Program::ToWire],
        }
    }
}

impl Attacher {
    pub fn new(mode: Mode, pins: &Pins) -> Self {
        Self { mode, links: pins.links(), attached: BTreeSet::new() }
    }

    /// Puts the programs of its place at a device; returns whether that was new to this process.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the device may just have gone.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        place: Place,
        device: &Device,
        interface: &str,
    ) -> Result<bool> {
        if self.attached.contains(&(*device, place)) {
            return Ok(false);
        }
        for &program in place.programs() {
            match self.mode {
                Mode::Tcx => attach_link(kernel, program, &self.pin(device.ifindex, program), interface),
                Mode::Clsact => attach_filter(kernel, program, interface),
            }
            .with_context(|| format!("cannot attach {} to {interface}", program.name()))?;
        }
        self.attached.insert((*device, place));
        Ok(true)
    }

    /// Takes every program away that is not in `present`, with its pin; the links of devices that are gone are dead.
    ///
    /// # Errors
    ///
    /// When the directory of pins cannot be read or changed, or the kernel does not remove a filter.
    pub fn keep(&mut self, present: &BTreeSet<(Device, Place)>) -> Result<()> {
        self.attached.retain(|attached| present.contains(attached));
        let programs = |(device, place): &(Device, Place)| {
            place.programs().iter().map(|program| (device.ifindex, program.name())).collect::<Vec<_>>()
        };
        let wanted: BTreeSet<(u32, &str)> = present.iter().flat_map(programs).collect();
        let entries =
            fs::read_dir(&self.links).with_context(|| format!("cannot read {}", self.links.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", self.links.display()))?.path();
            if !pinned(&path).is_some_and(|link| wanted.contains(&link)) {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn pin(&self, ifindex: u32, program: Program) -> PathBuf {
        self.links.join(format!("{ifindex}-{}", program.name()))
    }
}

/// The device and the program of a pinned link.
fn pinned(path: &Path) -> Option<(u32, &str)> {
    let (ifindex, program) = path.file_name()?.to_str()?.split_once('-')?;
    Some((ifindex.parse().ok()?, program))
}

/// Gives the pinned link the new program, or makes and pins a link.
fn attach_link(kernel: &mut Kernel, program: Program, pin: &Path, interface: &str) -> Result<()> {
    let attach_type = attach_type(program);
    let program = kernel.program(program)?;
    match PinnedLink::from_pin(pin) {
        Ok(pinned) => {
            let link = FdLink::from(pinned).try_into().context("the pinned link is no TCX link")?;
            match program.attach_to_link(link) {
                Ok(link) => {
                    // The pin holds the link; this process does not need it.
                    program.take_link(link)?;
                    return Ok(());
                }
                // The device of the pinned link is gone, and another one has got its ifindex.
                Err(error) if os_error(&error) == Some(libc::ENOLINK) => {
                    fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))?;
                }
                Err(error) => return Err(error).context("cannot replace the program of the pinned link"),
            }
        }
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", pin.display())),
    }
    // First of all programs: what a pod must not send, nobody else needs to see.
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program.attach_with_options(interface, attach_type, options)?;
    let link: FdLink = program.take_link(link)?.try_into()?;
    link.pin(pin).with_context(|| format!("cannot pin a link at {}", pin.display()))?;
    Ok(())
}

/// Replaces the filter of an earlier agent, or adds one.
fn attach_filter(kernel: &mut Kernel, program: Program, interface: &str) -> Result<()> {
    let attach_type = attach_type(program);
    let program = kernel.program(program)?;
    match tc::qdisc_add_clsact(interface) {
        Ok(()) => {}
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(error).context("cannot add the clsact qdisc"),
    }
    let earlier = SchedClassifierLink::attached(interface, attach_type, FILTER_PRIORITY, FILTER_HANDLE, None)
        .context("no such device")?;
    let link = match program.attach_to_link(earlier) {
        Ok(link) => link,
        Err(_) => {
            let options = NlOptions { priority: FILTER_PRIORITY, handle: FILTER_HANDLE, classid: None };
            program.attach_with_options(interface, attach_type, TcAttachOptions::Netlink(options))?
        }
    };
    // Dropping the link would remove the filter, which must outlive this process.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Removes the filters of all devices of this network namespace; returns how many.
pub(super) fn remove_filters() -> Result<usize> {
    let mut removed = 0;
    for interface in interfaces()? {
        for program in Program::ALL {
            match tc::qdisc_detach_program(&interface, attach_type(program), program.name()) {
                Ok(()) => removed += 1,
                // No filter of ours, no clsact qdisc, or no device any more.
                Err(TcError::IoError(error)) if is_absence(&error) => {}
                Err(TcError::NetlinkError(error))
                    if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::ENODEV)) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot remove the filters of {interface}"));
                }
            }
        }
    }
    Ok(removed)
}

fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Names of the devices of this network namespace.
fn interfaces() -> Result<Vec<String>> {
    // SAFETY: takes nothing; the list is freed below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        bail!("cannot list the network devices: {}", io::Error::last_os_error());
    }
    let mut names = Vec::new();
    let mut entry = list;
    // SAFETY: the list ends with an entry of index 0; each name ends in NUL and lives until the list is freed.
    unsafe {
        while (*entry).if_index != 0 {
            names.push(CStr::from_ptr((*entry).if_name).to_string_lossy().into_owned());
            entry = entry.add(1);
        }
        libc::if_freenameindex(list);
    }
    Ok(names)
}

const fn attach_type(program: Program) -> TcAttachType {
    match program {
        Program::FromPod => TcAttachType::Ingress,
        Program::ToPod | Program::ToWire => TcAttachType::Egress,
    }
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
