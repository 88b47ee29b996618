//! TCX links: each is pinned, and gets the program of a new agent by an atomic update.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::{
    LinkOrder, ProgramError,
    links::{FdLink, LinkError, PinnedLink},
    tc::TcAttachOptions,
};

use super::{Programs, attach_type};
use crate::{Program, sys};

/// The pinned links, as files `<ifindex>-<program>` of a directory.
#[derive(Debug)]
pub(super) struct Links(PathBuf);

impl Links {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(super) fn is_attached(&self, ifindex: u32) -> bool {
        Program::ALL.into_iter().any(|program| self.pin(ifindex, program).exists())
    }

    /// Gives the pinned link the new program, or makes and pins a link.
    pub(super) fn attach(
        &self,
        programs: &mut dyn Programs,
        program: Program,
        ifindex: u32,
        interface: &str,
    ) -> Result<()> {
        let (pin, attach_type) = (&self.pin(ifindex, program), attach_type(program));
        let program = programs.program(program)?;
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
                    Err(error) if os_error(&error) == Some(libc::ENOLINK) => unpin(pin)?,
                    Err(error) => {
                        return Err(error).context("cannot replace the program of the pinned link");
                    }
                }
            }
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", pin.display())),
        }
        // First of all programs: what a pod must not send, no one else needs to see.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let link = program.attach_with_options(interface, attach_type, options)?;
        let link: FdLink = program.take_link(link)?.try_into()?;
        link.pin(pin).with_context(|| format!("cannot pin a link at {}", pin.display()))?;
        Ok(())
    }

    /// Takes the links of a device away. When it returns, no packet meets their programs any more.
    pub(super) fn remove(&self, ifindex: u32) -> Result<()> {
        self.remove_programs(ifindex, &Program::ALL)
    }

    /// The same of some programs alone.
    pub(super) fn remove_programs(&self, ifindex: u32, programs: &[Program]) -> Result<()> {
        let pins = programs.iter().map(|program| self.pin(ifindex, *program));
        pins.filter(|pin| pin.exists()).try_for_each(|pin| detach(&pin))
    }

    /// Forgets the links of all devices but these.
    pub(super) fn keep(&self, present: &BTreeSet<u32>) -> Result<()> {
        let entries = fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", self.0.display()))?.path();
            if !pinned_ifindex(&path).is_some_and(|ifindex| present.contains(&ifindex)) {
                unpin(&path)?;
            }
        }
        Ok(())
    }

    fn pin(&self, ifindex: u32, program: Program) -> PathBuf {
        self.0.join(format!("{ifindex}-{}", program.name()))
    }
}

fn pinned_ifindex(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// Takes the program of a pinned link off its hook, and the pin away. Removing the pin alone would leave the
/// program there until the kernel comes to free the link.
pub(crate) fn detach(pin: &Path) -> Result<()> {
    let link = sys::open_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    sys::detach_link(&link).with_context(|| format!("cannot detach {}", pin.display()))?;
    unpin(pin)
}

fn unpin(pin: &Path) -> Result<()> {
    fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
