//! The way to a file: which directories must be watched to hear that a path leads elsewhere, or changed.
//!
//! A mounted ConfigMap is a directory of links to `..data/<name>`, and `..data` is a link that is swapped; a
//! directory may be a link, or be replaced by a rename. So a path is walked step by step: each link, and the
//! first name that is missing, is noted with the directory that holds it; each directory passed is noted for
//! itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    fs,
    path::{Component, Path, PathBuf},
};

/// Directories to watch, without links in their paths, and the names in each that matter. Of one without
/// names only its own removal or renaming matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WatchedPaths {
    directories: BTreeMap<PathBuf, Directory>,
}

/// What a change of a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathChange {
    /// The file of that name changed.
    File,
    /// Any path may lead elsewhere now.
    Way,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Directory {
    ways: BTreeSet<OsString>,
    files: BTreeSet<OsString>,
    /// Itself named as a place of manifests: new files in it matter.
    is_root: bool,
}

/// How many links a path may lead through; the kernel's own limit.
const MOST_LINKS: usize = 40;

impl WatchedPaths {
    /// Notes the way to a path that was named or listed, as far as it leads.
    pub(super) fn add(&mut self, path: &Path) {
        let Some(end) = std::path::absolute(path).ok().and_then(|path| self.walk(&path)) else { return };
        if end.is_dir() {
            self.directories.entry(end).or_default().is_root = true;
        } else if let (Some(parent), Some(name)) = (end.parent(), end.file_name()) {
            self.directory(parent).files.insert(name.to_owned());
        }
    }

    /// The directories, and whether names in them matter.
    pub(super) fn directories(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.directories.iter().map(|(path, Directory { ways, files, is_root })| {
            (path.as_path(), *is_root || !ways.is_empty() || !files.is_empty())
        })
    }

    /// What a change of this name in this directory means; `None`: nothing to us.
    pub(super) fn meaning(&self, directory: &Path, name: &OsStr) -> Option<PathChange> {
        let directory = self.directories.get(directory)?;
        if directory.ways.contains(name) {
            Some(PathChange::Way)
        } else if directory.files.contains(name) || directory.is_root && super::input::is_manifest(name) {
            Some(PathChange::File)
        } else {
            None
        }
    }

    /// Follows links one by one. Out: the path without links, or `None` where it ends before.
    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        let mut reached = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = names(path).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                reached.pop();
                continue;
            }
            let next = reached.join(&name);
            match fs::symlink_metadata(&next) {
                Ok(metadata) if metadata.is_symlink() => {
                    self.directory(&reached).ways.insert(name);
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    let target = fs::read_link(&next).ok()?;
                    if target.is_absolute() {
                        reached = PathBuf::from("/");
                    }
                    names(&target).rev().for_each(|name| ahead.push_front(name));
                }
                Ok(metadata) => {
                    reached = next;
                    if metadata.is_dir() {
                        self.directory(&reached);
                    }
                }
                Err(_missing_or_closed) => {
                    self.directory(&reached).ways.insert(name);
                    return None;
                }
            }
        }
        Some(reached)
    }

    fn directory(&mut self, path: &Path) -> &mut Directory {
        self.directories.entry(path.to_owned()).or_default()
    }
}

/// The steps of a path that matter.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Directories with names that matter, and those names; paths relative to `base`.
    fn named(routes: &WatchedPaths, base: &Path) -> String {
        let named = routes.directories.iter().filter_map(|(path, directory)| {
            let path = path.strip_prefix(base).ok()?.display();
            let ways = directory.ways.iter().map(|name| format!("way {}", name.display()));
            let files = directory.files.iter().map(|name| format!("file {}", name.display()));
            let root = directory.is_root.then(|| "root".to_owned());
            let names: Vec<_> = ways.chain(files).chain(root).collect();
            (!names.is_empty()).then(|| format!("{path}: {}", names.join(", ")))
        });
        named.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn each_name_that_may_lead_elsewhere_is_noted() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("mount/..v1")).unwrap();
        fs::write(base.join("mount/..v1/np.yaml"), "").unwrap();
        symlink("..v1", base.join("mount/..data")).unwrap();
        symlink("..data/np.yaml", base.join("mount/np.yaml")).unwrap();
        symlink(base.join("mount"), base.join("link")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        let table = [
            ("mount", "mount: root"),
            ("mount/np.yaml", "mount: way ..data, way np.yaml; mount/..v1: file np.yaml"),
            ("link/../link", ": way link; mount: root"),
            ("mount/absent/np.yaml", "mount: way absent"),
            ("loop", ": way loop"),
        ];
        for (path, expected) in table {
            let mut routes = WatchedPaths::default();
            routes.add(&base.join(path));
            assert_eq!(named(&routes, &base), expected, "{path}");
        }
    }
}
