//! What is measured on a path, of which variants, and for how long.
//!
//! In: a scene. Out: one sample. Left out: what samples are compared with, which `compare` does.

use std::time::Duration;

use anyhow::Result;

use super::{
    scene::Scene,
    traffic::{CONNECTIONS, FIRST_PORT},
    variant::{System, Variant},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measure {
    Connect,
    OneWay,
    Denied,
    Established,
    EstablishedWarm,
    OneWayWarm,
    OneWayCold,
    Request,
    Bulk,
    Syn,
    Goodput,
}

/// Flows of the warm columns.
const WARM: u16 = 1_000;
/// Flows of the cold column: all source ports there are.
const COLD: u16 = u16::MAX - FIRST_PORT;

impl Measure {
    pub(super) const ALL: [Self; 11] = [
        Self::Connect,
        Self::OneWay,
        Self::Denied,
        Self::Established,
        Self::EstablishedWarm,
        Self::OneWayWarm,
        Self::OneWayCold,
        Self::Request,
        Self::Bulk,
        Self::Syn,
        Self::Goodput,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connects",
            Self::OneWay => "one-way UDP",
            Self::Denied => "denied packet",
            Self::Established => "established packet",
            Self::EstablishedWarm => "established packet, 1,000 flows",
            Self::OneWayWarm => "one-way UDP, 1,000 flows",
            Self::OneWayCold => "one-way UDP, 64,000 flows",
            Self::Request => "UDP request/response",
            Self::Bulk => "bulk TCP",
            Self::Syn => "SYN of a flood",
            Self::Goodput => "goodput beside a SYN flood",
        }
    }

    /// Of its absolute figure.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Connect => "1/s",
            Self::Bulk => "s CPU/GB",
            Self::Goodput => "%",
            _ => "ns",
        }
    }

    /// How far the control may be off, in per cent.
    pub(super) fn tolerance(self) -> f64 {
        if self == Self::Connect { 2.0 } else { 1.5 }
    }

    /// How long it is measured in all, of a full run.
    pub(super) fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connect | Self::OneWay => 75,
            Self::Denied | Self::OneWayCold => 50,
            Self::Established | Self::Bulk => 40,
            Self::EstablishedWarm => 30,
            Self::OneWayWarm | Self::Request | Self::Syn | Self::Goodput => 20,
        })
    }

    /// Whether a variant has such a figure. What changes with the number of policies is measured at each of
    /// them; a scan of all policies for each of 64,000 flows would take most of the time there is.
    pub(super) fn is_of(self, variant: Variant, reference: u32) -> bool {
        let core = variant.is_core(reference);
        let small_table = variant.system == System::SmallTable;
        match self {
            Self::Connect | Self::OneWay => !small_table,
            Self::Denied => {
                variant.denies() && !small_table
                    || matches!(variant.system, System::Nothing | System::Control)
            }
            Self::Established | Self::EstablishedWarm | Self::Request | Self::Bulk => core,
            Self::OneWayWarm | Self::OneWayCold => core && !matches!(variant.system, System::Npm(_)),
            Self::Syn | Self::Goodput => core || small_table,
        }
    }

    /// What must stand in a scene before the first round.
    pub(super) fn prepare(self, scene: &mut Scene) -> Result<()> {
        match self {
            Self::EstablishedWarm => scene.ends.hold(usize::from(WARM)),
            Self::Goodput => {
                scene.ends.hold(CONNECTIONS)?;
                // NPM has no table to fill, and takes a scan of all policies for each SYN.
                let fills = !matches!(scene.variant.system, System::Npm(_));
                if fills { scene.ends.flood() } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// One sample: what the unit says, or the time of one connection in ns.
    pub(super) fn sample(self, scene: &mut Scene) -> Result<f64> {
        let ends = &mut scene.ends;
        match self {
            Self::Connect => ends.connect(SLICE),
            Self::OneWay => ends.one_way(SLICE),
            Self::Denied => ends.deny(SLICE),
            Self::Established => ends.ping(1, SLICE),
            Self::EstablishedWarm => ends.ping(usize::from(WARM), 2 * SLICE),
            Self::OneWayWarm => ends.one_way_over(WARM, 2 * SLICE),
            Self::OneWayCold => ends.one_way_over(COLD, Duration::ZERO),
            Self::Request => ends.request(SLICE),
            Self::Bulk => ends.bulk(2 * SLICE),
            Self::Syn => ends.syn(SLICE),
            Self::Goodput => ends.goodput(SLICE),
        }
    }
}

/// How long one variant is visited before the next one. Shorter than most disturbances of a machine are
/// apart.
const SLICE: Duration = Duration::from_millis(6);
