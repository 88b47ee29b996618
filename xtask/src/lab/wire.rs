//! The wire: a bridge in a namespace of its own that joins nodes and hosts outside.
//!
//! In: places with their numbers. Out: each has an `eth0` with a fixed link address, which is up and has no
//! IP address yet.

use anyhow::Result;

use super::{Place, address::Mac};
use crate::sandbox::Sandbox;

/// The bridge. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Place);

const BRIDGE: &str = "wire";

impl Wire {
    pub(crate) fn new(sandbox: Sandbox) -> Result<Self> {
        let wire = Place::new(sandbox, BRIDGE)?;
        wire.add_bridge(BRIDGE)?;
        Ok(Self(wire))
    }

    /// Gives a place its `eth0`.
    pub(crate) fn plug(&self, place: &Place, number: u8) -> Result<()> {
        self.0.pair(&port(number), Mac::of_port(number), Some(BRIDGE), place, Mac::of_member(number))
    }

    /// Takes the `eth0` of a place away that has ended, which the kernel might do only later.
    pub(crate) fn unplug(&self, number: u8) {
        let _ = self.0.ip(&format!("link del {}\n", port(number)));
    }
}

fn port(number: u8) -> String {
    format!("port{number}")
}
