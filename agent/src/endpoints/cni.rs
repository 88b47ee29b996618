//! What CNI plug-ins have done: libcni's result cache, watched.
//!
//! In: the directory of the cache, which may be absent, appear later and go again. Out: [`CniResults`]
//! whenever they changed. libcni writes a result when ADD has ended and before a container starts, which is a
//! second or more before the API server tells a pod's address. Garbage is reported once and never fatal.
//! Which veth it means is left to `resolve`.

mod files;
mod result;
#[cfg(test)]
mod tests;
pub(crate) mod watched;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

pub use self::result::{CniResult, CniResultError};
use self::{
    files::{Files, RejectedFile},
    watched::{FileChange, WatchState, Watched},
};

/// The results of all pods whose DEL has not come yet. Some may be left over from before a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResults(pub BTreeSet<CniResult>);

/// The cache of one node.
#[derive(Debug)]
pub struct CniWatch {
    directory: PathBuf,
    files: Files,
    /// `None`: everything must be looked at.
    watched: Option<Watched>,
    last: Option<Arc<CniResults>>,
}

impl CniWatch {
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let directory = std::path::absolute(directory)
            .with_context(|| format!("{}: cannot make the path absolute", directory.display()))?;
        Ok(Self { files: Files::new(&directory), directory, watched: None, last: None })
    }

    /// The first call gives what is there, each later one waits until it is different. Safe to cancel. After
    /// an error the next call tries again. Must be called within a tokio runtime.
    pub async fn next(&mut self) -> anyhow::Result<Arc<CniResults>> {
        loop {
            let watched = match &mut self.watched {
                Some(watched) => watched,
                none => {
                    let watched =
                        Watched::new(&self.directory).context("cannot watch the CNI result cache")?;
                    self.files.scan().context("cannot read the CNI result cache")?.iter().for_each(report);
                    none.insert(watched)
                }
            };
            let results = self.files.results();
            if self.last.as_deref() != Some(&results) {
                let results = Arc::new(results);
                self.last = Some(results.clone());
                return Ok(results);
            }
            watched.ready().await.context("cannot wait for changes of the CNI result cache")?;
            let files = &mut self.files;
            let taken = watched.take(|change| match change {
                FileChange::Written(name) => files.read(name).iter().for_each(report),
                FileChange::Removed(name) => files.forget(name),
            });
            if !taken.as_ref().is_ok_and(|state| *state == WatchState::Watching) {
                self.watched = None;
            }
            taken.context("cannot read changes of the CNI result cache")?;
        }
    }
}

fn report(refused: &RejectedFile) {
    let (file, error) = (refused.file.display(), &refused.error);
    tracing::warn!(%file, error = format!("{error:#}"), "ignored a file of the CNI result cache");
}
