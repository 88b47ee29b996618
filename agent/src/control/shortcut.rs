//! Between which veths packets may take the short cut.
//!
//! In: the veths, and what is in the way at each. Out: the table that the programs ask with each packet. It
//! is written again each second, as it holds for some seconds only.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use podgate_datapath::{Obstacle, ObstacleFinder};

use super::Reconciler;
use crate::{
    endpoints::{InterfaceState, PodInterface},
    snapshot::ShortcutState,
};

/// What is known of the short cut.
#[derive(Debug, Default)]
pub(super) struct ShortcutGates {
    /// `None`: it is off.
    finder: Option<ObstacleFinder>,
    /// At each veth, by ifindex: what is in the way.
    found: BTreeMap<u32, Option<Obstacle>>,
}

impl ShortcutGates {
    pub(super) fn state(&self, ifindex: u32) -> ShortcutState {
        match (&self.finder, self.found.get(&ifindex)) {
            (None, _) => ShortcutState::Off,
            (Some(_), Some(None)) => ShortcutState::Open,
            (Some(_), Some(Some(obstacle))) => ShortcutState::Closed(obstacle.to_string()),
            (Some(_), None) => ShortcutState::Closed(Obstacle::Unidentified.to_string()),
        }
    }
}

impl Reconciler {
    /// Lets packets take the short cut where nothing is in the way.
    #[must_use]
    pub fn with_shortcut(mut self, finder: ObstacleFinder) -> Self {
        self.shortcut.finder = Some(finder);
        self
    }

    /// Looks for what is in the way at each veth; whether that has changed.
    pub(super) fn look_for_obstacles(&mut self) -> bool {
        if self.shortcut.finder.is_none() {
            return false;
        }
        let found = self.obstacles().unwrap_or_else(|error| {
            tracing::warn!("no packet takes the short cut: {error:#}");
            BTreeMap::new()
        });
        let open: BTreeSet<u32> =
            found.iter().filter(|(_, obstacle)| obstacle.is_none()).map(|(ifindex, _)| *ifindex).collect();
        match self.datapath.clock.now() {
            Ok(now) => self.datapath.maps.open_veths.set_all(open, now),
            Err(error) => tracing::warn!("no packet takes the short cut: {error:#}"),
        }
        let before = std::mem::replace(&mut self.shortcut.found, found);
        for (ifindex, obstacle) in &self.shortcut.found {
            let Some(veth) =
                self.endpoints.veths.get(ifindex).filter(|_| before.get(ifindex) != Some(obstacle))
            else {
                continue;
            };
            match obstacle {
                None => tracing::info!(interface = %veth.name, "packets may take the short cut"),
                Some(obstacle) => tracing::info!(interface = %veth.name, "no short cut: {obstacle}"),
            }
        }
        before != self.shortcut.found
    }

    fn obstacles(&mut self) -> Result<BTreeMap<u32, Option<Obstacle>>> {
        let Self { datapath, endpoints, shortcut, attacher, .. } = self;
        let traced: BTreeSet<u32> = attacher.traced().map(|device| device.ifindex).collect();
        let Some(finder) = &mut shortcut.finder else { return Ok(BTreeMap::new()) };
        let node = finder.look(datapath)?;
        let at = |veth: &PodInterface| match veth.state {
            InterfaceState::Identified { .. } if traced.contains(&veth.ifindex) => Some(Obstacle::Traced),
            InterfaceState::Identified { .. } if veth.master != 0 => Some(Obstacle::Bridge),
            InterfaceState::Identified { .. } => node.at(veth.ifindex),
            InterfaceState::Pending | InterfaceState::Unmanaged => Some(Obstacle::Unidentified),
        };
        Ok(endpoints.veths.values().map(|veth| (veth.ifindex, at(veth))).collect())
    }
}
