//! The pin directory, `<bpffs>/podgate/v<layout>/{maps,links}`: what goes on when the agent ends.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use podgate_common::LAYOUT_VERSION;

use super::{Lock, attach};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The directory of this layout's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Makes the directory, and mounts a bpffs first where there is none.
    ///
    /// # Errors
    ///
    /// When `bpffs` cannot be made or mounted.
    pub fn create(bpffs: &Path) -> Result<Self> {
        if !is_bpffs(bpffs) {
            mount(bpffs)?;
        }
        let pins = Self::at(bpffs);
        for directory in [pins.maps(), pins.links()] {
            fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(pins)
    }

    fn at(bpffs: &Path) -> Self {
        Self { directory: bpffs.join("podgate").join(format!("v{LAYOUT_VERSION}")) }
    }

    /// What the agent's lock is on.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    pub(super) fn links(&self) -> PathBuf {
        self.directory.join("links")
    }
}

/// What [`detach`] took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Pinned links, each of which held a program at a hook.
    pub links: usize,
    /// Filters on kernels without links.
    pub filters: usize,
    pub maps: usize,
}

/// Takes every program, link and pin of every layout away. The kernel frees the maps with their last user.
///
/// # Errors
///
/// When an agent is running (it would attach again), or something cannot be removed.
pub fn detach(bpffs: &Path) -> Result<Detached> {
    let mut detached = Detached { filters: attach::remove_filters()?, ..Detached::default() };
    let root = bpffs.join("podgate");
    let layouts = match fs::read_dir(&root) {
        Ok(layouts) => layouts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(detached),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", root.display())),
    };
    for layout in layouts {
        let layout = layout.with_context(|| format!("cannot read {}", root.display()))?.path();
        let _lock = Lock::take(&layout).context("stop the agent first, it would attach again")?;
        // Links first: a program without its maps' pins goes on working, one without its link is gone.
        detached.links += remove_files(&layout.join("links"))?;
        detached.maps += remove_files(&layout.join("maps"))?;
        remove_directory(&layout)?;
    }
    remove_directory(&root)?;
    Ok(detached)
}

fn remove_files(directory: &Path) -> Result<usize> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        removed += 1;
    }
    remove_directory(directory)?;
    Ok(removed)
}

fn remove_directory(directory: &Path) -> Result<()> {
    fs::remove_dir(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

/// Whether a bpffs is mounted at this path.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a valid path and room for the answer, which is read only after success.
    unsafe {
        libc::statfs(path.as_ptr(), stat.as_mut_ptr()) == 0
            && u64::try_from(stat.assume_init().f_type).is_ok_and(|kind| kind == BPF_FS_MAGIC)
    }
}

fn mount(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    let target = std::ffi::CString::new(path.as_os_str().as_bytes())
        .with_context(|| format!("{} is no path for a mount", path.display()))?;
    // SAFETY: all strings end in NUL and live through the call.
    let result = unsafe {
        libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), libc::MS_NOSUID, std::ptr::null())
    };
    if result != 0 {
        bail!("cannot mount a bpffs at {}: {}", path.display(), io::Error::last_os_error());
    }
    tracing::info!(path = %path.display(), "mounted a bpffs");
    Ok(())
}
