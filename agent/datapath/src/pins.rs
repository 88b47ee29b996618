//! The pin directory, `<bpffs>/podgate/v<layout>/{maps,links}`: what goes on when the agent ends.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use podgate_common::LAYOUT_VERSION;

use super::{
    AgentLock,
    attach::{clsact::Filters, tcx},
    bpffs, cluster_id, effective_user, pinned_programs, sys,
};

const ROOT: &str = "podgate";
const MAPS: &str = "maps";
const LINKS: &str = "links";
const QDISCS: &str = "qdiscs";
pub(super) const TRACES: &str = "traces";

/// The directory of this layout's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
    /// Why they are lost with this process, if they are.
    lost: Option<String>,
}

impl Pins {
    /// Makes the directory, and mounts a bpffs first where there is none.
    ///
    /// # Errors
    ///
    /// When `bpffs` cannot be made or mounted, or another user has made the directory before.
    pub fn create(bpffs: &Path) -> Result<Self> {
        let made = bpffs::mount(bpffs)?;
        let lost = bpffs::pins_lost(Path::new("/"), bpffs, made);
        if let Some(reason) = &lost {
            tracing::error!("{reason}");
        }
        let pins = Self { lost, ..Self::at(bpffs) };
        make_private(&bpffs.join(ROOT))?;
        for directory in [pins.maps(), pins.links(), pins.traces()] {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(pins)
    }

    /// Those of an agent of this layout, which has made the directory.
    pub fn at(bpffs: &Path) -> Self {
        Self { directory: bpffs.join(ROOT).join(format!("v{LAYOUT_VERSION}")), lost: None }
    }

    /// Why these pins are gone when this process ends, if they are.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// What the agent's lock is on.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.directory.join(MAPS)
    }

    /// When the maps were made that are pinned here.
    ///
    /// # Errors
    ///
    /// When there are none yet.
    pub fn made(&self) -> Result<SystemTime> {
        let path = self.maps().join("FLOW_COUNTERS");
        let made = fs::metadata(&path).and_then(|metadata| metadata.modified());
        made.with_context(|| format!("cannot learn the age of {}", path.display()))
    }

    /// Whether an agent before this one, of whatever layout, has left programs at their hooks.
    ///
    /// # Errors
    ///
    /// When the pin directory cannot be read.
    pub fn hold_programs(&self) -> Result<bool> {
        let root = self.directory.parent().context("the pin directory has no parent")?;
        // What a CNI plugin has left where no agent was enforces no one's policies.
        let had_agent = |layout: &PathBuf| entries(&layout.join(MAPS)).is_ok_and(|maps| !maps.is_empty());
        let layouts = entries(root)?.into_iter().filter(had_agent);
        let notes = layouts.flat_map(|layout| [layout.join(LINKS), layout.join(QDISCS)]);
        let found = notes.map(|directory| Ok(!entries(&directory)?.is_empty()));
        Ok(found.collect::<Result<Vec<_>>>()?.contains(&true))
    }

    pub(super) fn links(&self) -> PathBuf {
        self.directory.join(LINKS)
    }

    /// Where an agent and who asks for a trace hand each other programs and maps; nothing stays there.
    pub(super) fn traces(&self) -> PathBuf {
        self.directory.join(TRACES)
    }

    /// Which qdiscs the agent made: an empty directory for each, for there is nothing to pin.
    pub(super) fn qdiscs(&self) -> PathBuf {
        self.directory.join(QDISCS)
    }
}

/// Makes a directory for this user alone. A bpffs may be everybody's: who can open a directory of pins can
/// hold the lock of the agent, and who owns it can take its pins away.
fn make_private(directory: &Path) -> Result<()> {
    let make = || match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    make().with_context(|| format!("cannot make {}", directory.display()))?;
    let open = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(directory);
    let open = open.with_context(|| format!("cannot open {}", directory.display()))?;
    let metadata = open.metadata().with_context(|| format!("cannot stat {}", directory.display()))?;
    ensure!(
        metadata.uid() == effective_user(),
        "{} belongs to user {}: remove it",
        directory.display(),
        metadata.uid()
    );
    if metadata.mode() & 0o7777 != 0o700 {
        let private = open.set_permissions(fs::Permissions::from_mode(0o700));
        private.with_context(|| format!("cannot change the mode of {}", directory.display()))?;
    }
    Ok(())
}

/// What an agent with other maps has left: its programs evaluate beside the new ones until it is retired.
#[derive(Debug)]
pub struct PreviousAgents(Vec<(PathBuf, AgentLock)>);

impl Pins {
    /// The pins of other layouts. None of their agents may be running.
    ///
    /// # Errors
    ///
    /// When one is: the error names its process id.
    pub fn previous_agents(&self) -> Result<PreviousAgents> {
        let locked = self.other_layouts()?.into_iter().map(|layout| {
            let lock = AgentLock::take(&layout).context("an agent with other maps is running")?;
            Ok((layout, lock))
        });
        locked.collect::<Result<_>>().map(PreviousAgents)
    }

    /// The directories of agents with other maps.
    pub(super) fn other_layouts(&self) -> Result<Vec<PathBuf>> {
        let root = self.directory.parent().context("the pin directory has no parent")?;
        Ok(entries(root)?.into_iter().filter(|layout| *layout != self.directory).collect())
    }
}

impl PreviousAgents {
    /// Takes their links and maps away: to be called when the new programs are attached everywhere. When it
    /// returns, no packet meets their programs any more. Filters of kernels without links were replaced where
    /// they are; which qdiscs were made is noted with the new pins.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn remove_previous(self, pins: &Pins) -> Result<usize> {
        let mut links = 0;
        for (layout, _lock) in &self.0 {
            links += detach_links(&layout.join(LINKS))?;
            remove_files(&layout.join(MAPS))?;
            for note in entries(&layout.join(QDISCS))? {
                let name = note.file_name().context("a note has a name")?;
                let moved = pins.qdiscs().join(name);
                fs::create_dir_all(&moved).with_context(|| format!("cannot make {}", moved.display()))?;
                remove_directory(&note)?;
            }
            remove_directory(&layout.join(QDISCS))?;
            cluster_id::remove(layout)?;
            pinned_programs::remove(layout)?;
            remove_directory(layout)?;
        }
        wait_for_programs()?;
        Ok(links)
    }

    /// Whether there was none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What [`detach`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Pinned links, each of which held a program at a hook.
    pub links: usize,
    /// Filters on kernels without links.
    pub filters: usize,
    /// Pinned maps that were removed.
    pub maps: usize,
}

/// Takes every program, link and pin of every layout away. When it returns, no packet meets a program any
/// more; the kernel frees programs and maps a moment later.
///
/// # Errors
///
/// When an agent is running (it would attach again), or something cannot be removed.
pub fn detach(bpffs: &Path) -> Result<Detached> {
    let root = bpffs.join("podgate");
    let layouts = entries(&root)?;
    // Before anything goes: an agent that is running stays whole.
    let lock = |layout| AgentLock::take(layout).context("stop the agent first, it would attach again");
    let _locks = layouts.iter().map(|layout| lock(layout)).collect::<Result<Vec<_>>>()?;
    let mut detached = Detached::default();
    for layout in &layouts {
        // Links and filters first: a program without its maps' pins goes on working, one at no hook is gone.
        detached.filters += Filters::new(layout.join(QDISCS))?.remove_all()?;
        detached.links += detach_links(&layout.join(LINKS))?;
        detached.maps += remove_files(&layout.join(MAPS))?;
        remove_directory(&layout.join(QDISCS))?;
        cluster_id::remove(layout)?;
        pinned_programs::remove(layout)?;
        remove_directory(layout)?;
    }
    if layouts.is_empty() {
        detached.filters += Filters::new(root.join(QDISCS))?.remove_all()?;
    }
    remove_directory(&root)?;
    wait_for_programs()?;
    Ok(detached)
}

/// For programs of filters: these are out of a device's list when they are removed, and may still run for a
/// packet.
fn wait_for_programs() -> Result<()> {
    sys::wait_for_programs().context("cannot wait for running programs")
}

fn detach_links(directory: &Path) -> Result<usize> {
    let pins = entries(directory)?;
    pins.iter().try_for_each(|pin| tcx::detach(pin))?;
    remove_directory(directory)?;
    Ok(pins.len())
}

/// What is in a directory; one that is not there is empty.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    entries.with_context(|| format!("cannot read {}", directory.display()))
}

pub(super) fn remove_files(directory: &Path) -> Result<usize> {
    let files = entries(directory)?;
    for path in &files {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    remove_directory(directory)?;
    Ok(files.len())
}

/// One that is not there is fine.
pub(super) fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
