//! Enters addresses into the tables of pods' names, as replies do that pods get.
//!
//! A program does it, by a test run: it takes the lock of a set as those of the packet path do, for some
//! instructions. A mapping would be quicker, but the agent could be stopped with the lock held, and the names
//! of that set would open nothing until it runs again.

use std::{net::IpAddr, os::fd::OwnedFd, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use aya::Ebpf;
use podgate_common::{NameAnswer, NameId, NameNode, NameRequest};
use podgate_core::compiler::NamePlace;

use super::reader::OpenTables;
use crate::{readers, sys};

/// Enters addresses. Copies share the program.
#[derive(Clone, Debug)]
pub struct NameWriter {
    program: Arc<OwnedFd>,
    open: OpenTables,
}

/// How often a set is tried that programs write to.
const ATTEMPTS: usize = 8;

impl NameWriter {
    /// The program that enters an address.
    pub(crate) const PROGRAM: &str = "enter";

    pub(crate) fn new(ebpf: &mut Ebpf, open: OpenTables) -> Result<Self> {
        Ok(Self { program: readers::program(ebpf, Self::PROGRAM)?, open })
    }

    /// Enters an address of a name into the table of the pod behind a veth, for so many seconds or the least
    /// time that the programs keep one. `None`: no rule has had the name since the agent started.
    ///
    /// # Errors
    ///
    /// When the kernel does not run the program.
    pub fn enter(
        &self,
        (ifindex, table): (u32, u32),
        (suffix, left): &NamePlace,
        address: IpAddr,
        seconds: u32,
    ) -> Result<Option<NameAnswer>> {
        let numbers = self.open.numbers();
        let Some(&number) = numbers.get(suffix) else { return Ok(None) };
        let name = NameId::new(NameNode::new(number, [true; 3]), *left);
        let packet = NameRequest { ifindex, table, address: address.into(), name, seconds }.packet();
        let mut answer = NameAnswer::Busy;
        for _ in 0..ATTEMPTS {
            let said = sys::test_run(&self.program, &packet).context("cannot enter an address of a name")?;
            answer = NameAnswer::try_from(said)
                .map_err(|said| anyhow!("the answer {said} to an address of a name is none"))?;
            if answer != NameAnswer::Busy {
                break;
            }
        }
        Ok(Some(answer))
    }
}
