//! Programs as pins: with them, and the pinned maps, an interface can be guarded while there is no agent.
//!
//! `programs/tcx` or `programs/clsact` has those that the last agent has put at pods' interfaces, by the hook
//! that it has used. `traces` has the maps that programs of a trace share with these beside the pinned ones,
//! and for a moment those programs. `programs/drop` drops everything: for nodes where no agent was since
//! their start. `held` has an empty directory for each interface that got the latter; nothing has passed
//! there, so no connection is older than the agent.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::SchedClassifier;

use super::{
    Datapath, HookKind, Pins, Program,
    attach::Programs,
    pins::{TRACES, entries, remove_directory, remove_files},
    sys,
};

const PROGRAMS: &str = "programs";
const DROP: &str = "drop";
const PENDING: &str = "held";

/// Those of a pod's interface.
pub(super) const OF_PODS: [Program; 2] = [Program::FromPod, Program::ToPod];

impl HookKind {
    const fn directory(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl Datapath {
    /// Pins the programs of pods' interfaces in the place of those that an agent before this one has pinned.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn pin_programs(&mut self, pins: &Pins, mode: HookKind) -> Result<()> {
        remove(pins.directory())?;
        self.lend_maps(pins)?;
        let directory = pins.directory().join(PROGRAMS).join(mode.directory());
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        for program in OF_PODS {
            let path = directory.join(program.name());
            let pinned = self.program(program)?.pin(&path);
            pinned.with_context(|| format!("cannot pin {}", path.display()))?;
        }
        Ok(())
    }
}

/// Programs for a pod's interface that some process has loaded.
#[derive(Debug)]
pub(super) struct PinnedPrograms {
    from_pod: SchedClassifier,
    to_pod: SchedClassifier,
}

impl PinnedPrograms {
    /// Those of the last agent, and how it has attached them.
    pub(super) fn open(pins: &Pins) -> Result<Option<(HookKind, Self)>> {
        for mode in [HookKind::Tcx, HookKind::Clsact] {
            let directory = pins.directory().join(PROGRAMS).join(mode.directory());
            let paths = OF_PODS.map(|program| directory.join(program.name()));
            if paths.iter().all(|path| path.exists()) {
                let [from_pod, to_pod] = paths.map(|path| open(&path));
                return Ok(Some((mode, Self { from_pod: from_pod?, to_pod: to_pod? })));
            }
        }
        Ok(None)
    }

    /// One that drops everything, at both hooks.
    pub(super) fn drop_all(pins: &Pins) -> Result<Self> {
        let directory = pins.directory().join(PROGRAMS);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(DROP);
        if !path.exists() {
            let program = sys::load_drop_all().context("cannot load a program that drops everything")?;
            sys::pin(&program, &path).with_context(|| format!("cannot pin {}", path.display()))?;
        }
        Ok(Self { from_pod: open(&path)?, to_pod: open(&path)? })
    }
}

impl Programs for PinnedPrograms {
    fn program(&mut self, program: Program) -> Result<&mut SchedClassifier> {
        match program {
            Program::FromPod => Ok(&mut self.from_pod),
            Program::ToPod => Ok(&mut self.to_pod),
            Program::ToWire
            | Program::ToTunnel
            | Program::FromNetdev
            | Program::ToNetdev
            | Program::FromBareNetdev
            | Program::ToBareNetdev => anyhow::bail!("{} is not pinned", program.name()),
        }
    }
}

/// Notes that an interface was guarded from its start, on a node without a flow table.
pub(super) fn note_held(pins: &Pins, ifindex: u32) -> Result<()> {
    let note = held(pins).join(ifindex.to_string());
    fs::create_dir_all(&note).with_context(|| format!("cannot make {}", note.display()))
}

/// The ifindexes that were noted; they are noted no longer.
pub(super) fn take_held(pins: &Pins) -> Result<BTreeSet<u32>> {
    let notes = entries(&held(pins))?;
    notes.iter().try_for_each(|note| remove_directory(note))?;
    let ifindex = |note: &PathBuf| note.file_name()?.to_str()?.parse().ok();
    Ok(notes.iter().filter_map(ifindex).collect())
}

fn held(pins: &Pins) -> PathBuf {
    pins.directory().join(PENDING)
}

/// Removes the programs and the notes of one layout. Programs at hooks stay there.
pub(super) fn remove(layout: &Path) -> Result<()> {
    let programs = layout.join(PROGRAMS);
    for mode in [HookKind::Tcx, HookKind::Clsact] {
        remove_files(&programs.join(mode.directory()))?;
    }
    remove_files(&programs)?;
    remove_files(&layout.join(TRACES))?;
    let held = layout.join(PENDING);
    entries(&held)?.iter().try_for_each(|note| remove_directory(note))?;
    remove_directory(&held)
}

pub(super) fn open(path: &Path) -> Result<SchedClassifier> {
    SchedClassifier::from_pin(path).with_context(|| format!("cannot open {}", path.display()))
}
