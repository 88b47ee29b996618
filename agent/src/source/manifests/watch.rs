//! Watching the manifests: a new picture soon after each change.
//!
//! In: inotify events of the directories on the way to the files. Out: pictures that differ from the one
//! before. A file is not read while somebody writes it: `kubectl get > file` has it empty for seconds, and a
//! policy cut off after `from:` is a valid one that allows everyone. Until its writer has closed it, its last
//! good state stays in force, and a problem says so. Left out: changes that no event reports, such as writes
//! to a network file system from another machine.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use inotify::{Event, EventMask, Inotify, WatchDescriptor, WatchMask};
use podgate_datapath::{has_writer, watch_inotify};
use tokio::{
    io::unix::AsyncFd,
    runtime::{self, Runtime},
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{
    ClusterSnapshot, ReadOptions, Update, ValidationError,
    input::Input,
    route::{PathChange, WatchedPaths},
    store::ManifestStore,
};

/// A tool that writes several files, or an editor that renames, has finished when nothing happened for this
/// long.
const QUIET: Duration = Duration::from_millis(5);

/// How long changes that follow each other without a pause may put off the next picture.
const LONGEST_BURST: Duration = Duration::from_millis(100);

/// How often files that are being written are looked at, should the event of their closing be missing.
const RECHECK: Duration = Duration::from_millis(100);

/// How often the inputs are listed again when they change while they are listed; then the next event must do.
const MOST_LISTINGS: usize = 8;

/// Room for a few hundred events.
const EVENT_BUFFER: usize = 16 << 10;

/// What happens to a directory itself.
const ITSELF: WatchMask = WatchMask::DELETE_SELF.union(WatchMask::MOVE_SELF).union(WatchMask::ONLYDIR);

/// What happens to the names in it.
const NAMES: WatchMask = WatchMask::CREATE
    .union(WatchMask::DELETE)
    .union(WatchMask::MOVE)
    .union(WatchMask::MODIFY)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::ATTRIB);

/// Watches the paths from a thread of its own, which ends when the receiver is dropped.
///
/// The first picture comes as soon as everything was read, the next ones 5 ms after the last change. Standard
/// input and pipes are read once. What cannot be read or watched is a problem in the picture; `Err` is for a
/// system that gives no inotify at all. `allow_empty`: a path without any object is meant.
pub fn watch(paths: Vec<PathBuf>, allow_empty: bool) -> anyhow::Result<mpsc::Receiver<Update>> {
    // One: a slow reader finds at most one picture that is older than the newest.
    let (updates, receiver) = mpsc::channel(1);
    let (started, start) = sync_channel(1);
    let options = ReadOptions { allow_empty, ..ReadOptions::default() };
    let work = move || match set_up() {
        Ok((runtime, inotify)) => {
            let _ = started.send(Ok(()));
            runtime.block_on(Watcher::new(inotify, ManifestStore::new(&paths, options)).run(updates));
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    };
    thread::Builder::new()
        .name("manifests".into())
        .spawn(work)
        .context("start a thread to watch manifests")?;
    start.recv().context("the thread that watches manifests ended")??;
    Ok(receiver)
}

fn set_up() -> anyhow::Result<(Runtime, AsyncFd<Inotify>)> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().context("start an event loop")?;
    let inotify = Inotify::init().context("inotify_init1")?;
    let inotify = {
        let _context = runtime.enter();
        watch_inotify(inotify).context("wait on inotify")?
    };
    Ok((runtime, inotify))
}

#[derive(Debug)]
struct Watcher {
    store: ManifestStore,
    inotify: AsyncFd<Inotify>,
    routes: WatchedPaths,
    /// The directories that the kernel watches. One may have several paths, by a bind mount.
    watched: HashMap<WatchDescriptor, Vec<PathBuf>>,
    unwatched: Vec<ValidationError>,
    changes: FileChanges,
    /// Files, without links in their paths, that changed or had a writer and were not closed yet.
    being_written: HashSet<PathBuf>,
}

/// What happened since the last look.
#[derive(Debug, Default)]
struct FileChanges {
    /// Any path may lead elsewhere.
    everything: bool,
    /// Files to read again, without links in their paths.
    files: HashSet<PathBuf>,
}

impl Watcher {
    fn new(inotify: AsyncFd<Inotify>, store: ManifestStore) -> Self {
        Self {
            store,
            inotify,
            routes: WatchedPaths::default(),
            watched: HashMap::new(),
            unwatched: Vec::new(),
            changes: FileChanges { everything: true, ..FileChanges::default() },
            being_written: HashSet::new(),
        }
    }

    /// Until no one listens any more.
    async fn run(mut self, updates: mpsc::Sender<Update>) {
        let mut last = None;
        let mut learned = Instant::now();
        loop {
            let picture = self.look();
            if last.as_ref() != Some(&picture) {
                last = Some(picture.clone());
                if updates.send(Update { picture, learned: learned.into_std() }).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = self.change() => {}
                () = updates.closed() => return,
            }
            learned = Instant::now();
            self.quiet().await;
        }
    }

    /// Reads what changed. What somebody wrote to while it was read is not used: the next look takes it up.
    fn look(&mut self) -> ClusterSnapshot {
        let inputs = self.find_inputs();
        let changes = std::mem::take(&mut self.changes);
        let mut readings = Vec::new();
        let mut held_back = Vec::new();
        for input in inputs {
            // A pipe is read to its end: its writer has closed it, and it cannot be read again.
            let file = input.path().filter(|_| input.is_repeatable());
            let file = file.and_then(|path| fs::canonicalize(path).ok());
            if file.as_ref().is_some_and(|file| self.being_written.contains(file)) {
                held_back.push(input);
            } else if self.is_due(&input, file.as_deref(), &changes) {
                let reading = self.store.read(&input);
                let has_writer = file.as_deref().and_then(has_writer).unwrap_or(false);
                readings.push((input, file, reading, has_writer));
            }
        }
        // A writer that had closed the file before `has_writer` looked has caused its event by now.
        self.take_events();
        for (input, file, reading, has_writer) in readings {
            match file {
                Some(file) if self.changes.files.contains(&file) => {}
                Some(file) if has_writer || self.being_written.contains(&file) => {
                    self.being_written.insert(file);
                    held_back.push(input);
                }
                _ => self.store.put(input, reading),
            }
        }
        let mut picture = self.store.picture(&held_back);
        picture.problems.extend(self.unwatched.iter().cloned());
        picture
    }

    /// Lists the inputs and watches the ways to them, until the list was made under the watches: what changed
    /// between the two would be missed.
    fn find_inputs(&mut self) -> BTreeSet<Input> {
        let mut is_stale = self.changes.everything;
        for _ in 0..MOST_LISTINGS {
            let inputs = self.store.list();
            let mut routes = WatchedPaths::default();
            self.store.roots().chain(inputs.iter().filter_map(Input::path)).for_each(|path| routes.add(path));
            if !is_stale && routes == self.routes {
                return inputs;
            }
            self.routes = routes;
            is_stale = false;
            self.watch_routes();
        }
        self.store.list()
    }

    /// Makes the kernel watch the routes, and nothing else. It is the same watch for the same directory, so
    /// that nothing is lost of those that stay.
    fn watch_routes(&mut self) {
        let mut watches = self.inotify.get_ref().watches();
        let before = std::mem::take(&mut self.watched);
        self.unwatched.clear();
        let mut directories: Vec<_> = self.routes.directories().collect();
        // The last mask counts for a directory with several paths: the full one.
        directories.sort_by_key(|(_, names_matter)| *names_matter);
        for (path, names_matter) in directories {
            let mask = if names_matter { ITSELF.union(NAMES) } else { ITSELF };
            match watches.add(path, mask) {
                Ok(watch) => {
                    if !before.get(&watch).is_some_and(|paths| paths.iter().any(|known| known == path)) {
                        // Another directory than before: what was being written in the old one is not here.
                        self.being_written.retain(|file| file.parent() != Some(path));
                    }
                    self.watched.entry(watch).or_default().push(path.to_owned());
                }
                // It went away since the route was made; the next listing finds another.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    self.changes.everything = true;
                }
                Err(error) => {
                    let message = format!("cannot be watched: {error}");
                    self.unwatched.push(ValidationError::of_file(path.display().to_string(), message));
                }
            }
        }
        for (watch, _) in before {
            if !self.watched.contains_key(&watch) {
                // The kernel has removed it by itself when the directory is gone.
                let _ = watches.remove(watch);
            }
        }
    }

    fn is_due(&self, input: &Input, file: Option<&Path>, changes: &FileChanges) -> bool {
        let has_changed = changes.everything || file.is_some_and(|file| changes.files.contains(file));
        let is_new = !self.store.holds(input);
        is_new || has_changed && input.is_repeatable()
    }

    /// Returns when there is something to read.
    async fn change(&mut self) {
        while !self.changes.everything && self.changes.files.is_empty() {
            if self.being_written.is_empty() {
                self.events().await;
            } else if timeout(RECHECK, self.events()).await.is_err() {
                self.release_closed_files();
            }
        }
    }

    /// The event of their closing may have come before they were found to have a writer.
    fn release_closed_files(&mut self) {
        let is_closed = |file: &PathBuf| has_writer(file) == Some(false) || !file.exists();
        let closed = self.being_written.extract_if(is_closed);
        self.changes.files.extend(closed);
    }

    /// Returns when nothing happened for a while.
    async fn quiet(&mut self) {
        let last_call = Instant::now() + LONGEST_BURST;
        while Instant::now() < last_call {
            let silence = (Instant::now() + QUIET).min(last_call);
            if timeout_at(silence, self.events()).await.is_err() {
                return;
            }
        }
    }

    /// Returns when something happened that matters.
    async fn events(&mut self) {
        loop {
            let ready = self.inotify.readable_mut().await;
            ready.expect("the event loop runs for as long as this future").clear_ready();
            if self.take_events() {
                return;
            }
        }
    }

    /// Notes what the kernel has reported so far. Out: whether any of it matters.
    fn take_events(&mut self) -> bool {
        let mut buffer = [0; EVENT_BUFFER];
        let mut matters = false;
        // An error means that there are no more: the descriptor does not block, and the buffer holds any
        // event.
        while let Ok(events) = self.inotify.get_mut().read_events(&mut buffer) {
            for event in events {
                matters |= self.note(&event);
            }
        }
        matters
    }

    fn note(&mut self, event: &Event<&OsStr>) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.changes.everything = true;
            // Their end may be among what was lost.
            self.being_written.clear();
            return true;
        }
        // The end of a watch that was removed.
        let Some(directories) = self.watched.get(&event.wd) else { return false };
        let Some(name) = event.name else {
            // The directory itself was moved, removed or unmounted, or may be read now.
            self.changes.everything = true;
            return true;
        };
        let mut matters = false;
        for directory in directories {
            match self.routes.meaning(directory, name) {
                None => continue,
                Some(PathChange::Way) => self.changes.everything = true,
                Some(PathChange::File) => {
                    let file = directory.join(name);
                    if event.mask.contains(EventMask::MODIFY) {
                        self.being_written.insert(file);
                    } else {
                        // Closed; or another file than before, which is complete or will be written to.
                        if !event.mask.contains(EventMask::ATTRIB) {
                            self.being_written.remove(&file);
                        }
                        self.changes.files.insert(file);
                    }
                }
            }
            matters = true;
        }
        matters
    }
}

#[cfg(test)]
mod tests;
