//! Puts the plugin into a container runtime's configuration, and takes it out.
//!
//! In: the runtime's directories. Out: the binary, and our entry in the first configuration, which is the one
//! that the runtime uses. Each file changes in one step, and only if it has to. An old configuration of one
//! plugin is kept beside the list that takes its place.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    conflist::{self, TYPE},
    files::{exchange, rename, replace},
    request::WhenUnknown,
};

/// What becomes of an old configuration; runtimes do not read files with this end.
const SAVED: &str = "podgate-saved";

/// How often a configuration is read again that somebody else writes at the same time.
const ATTEMPTS: usize = 8;

/// Where the plugin goes, and what its entry says.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    pub(crate) configurations: PathBuf,
    pub(crate) binaries: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) bpffs: PathBuf,
    pub(crate) timeout: Duration,
    pub(crate) when_unknown: WhenUnknown,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    /// The configuration that has the entry; `None`: the runtime has no configuration yet.
    pub(crate) configuration: Option<PathBuf>,
    /// Files that were written.
    pub(crate) written: Vec<PathBuf>,
}

impl Installation {
    /// Twice is once.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or the configuration is none that plugins can be added to.
    pub(crate) fn install(&self) -> Result<Installed> {
        // First: a runtime must never find an entry without its binary.
        let binary = self.install_binary()?;
        let mut installed = self.install_entry()?;
        installed.written.extend(binary);
        Ok(installed)
    }

    /// The entry alone, unless there is no binary.
    ///
    /// # Errors
    ///
    /// As [`Self::install`].
    pub(crate) fn install_again(&self) -> Result<Installed> {
        if self.binaries.join(TYPE).exists() { self.install_entry() } else { self.install() }
    }

    fn install_entry(&self) -> Result<Installed> {
        for _ in 0..ATTEMPTS {
            if let Some(installed) = self.try_install_entry()? {
                return Ok(installed);
            }
        }
        bail!("somebody else writes the configuration in {} all the time", self.configurations.display())
    }

    /// `None`: the configuration was written by somebody else meanwhile, and is as they have it.
    fn try_install_entry(&self) -> Result<Option<Installed>> {
        let mut installed = Installed::default();
        for file in configurations(&self.configurations)? {
            let text = read(&file)?;
            let is_list = file.extension().is_some_and(|extension| extension == "conflist");
            let changed = if is_list {
                conflist::check(&text).and_then(|()| conflist::with_entry(&text, &self.entry()))
            } else {
                conflist::list_of(&text, &self.entry())
            };
            let changed = match changed {
                Ok(changed) => changed,
                // Runtimes pass over what is no configuration, or start no pods until it is put right.
                Err(error) if !is_configuration(&text) => {
                    tracing::warn!(file = %file.display(), "no CNI configuration: {error:#}");
                    continue;
                }
                Err(error) => return Err(error).with_context(|| file.display().to_string()),
            };
            let list = if is_list { file.clone() } else { file.with_extension("conflist") };
            if list != file || changed != text {
                if list == file {
                    if !exchange(&file, &text, &changed)? {
                        return Ok(None);
                    }
                } else {
                    self.may_be_replaced(&list)?;
                    write(&list, &changed, &file)?;
                    rename(&file, &saved(&file))?;
                }
                installed.written.push(list.clone());
            }
            installed.configuration = Some(list);
            break;
        }
        Ok(Some(installed))
    }

    /// Takes the entry out of every configuration; returns those that have changed. The binary stays:
    /// container runtimes call it once more for each pod that was started with it.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written.
    pub(crate) fn uninstall(configurations_directory: &Path) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for file in configurations(configurations_directory)? {
            let text = read(&file)?;
            if !conflist::has_entry(&text) {
                continue;
            }
            let singles = ["conf", "json"].map(|extension| file.with_extension(extension));
            match singles.iter().find(|single| saved(single).exists()) {
                Some(single) => {
                    // Both name the same network; the old one comes first.
                    rename(&saved(single), single)?;
                    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
                }
                None => ensure!(
                    exchange(&file, &text, &conflist::without_entry(&text)?)?,
                    "{} was written by somebody else at the same time: try again",
                    file.display()
                ),
            }
            changed.push(file);
        }
        Ok(changed)
    }

    fn entry(&self) -> Value {
        json!({
            "type": TYPE,
            "socket": self.socket,
            "bpffs": self.bpffs,
            "timeout": self.timeout.as_secs_f64(),
            "whenUnknown": match self.when_unknown {
                WhenUnknown::Closed => "closed",
                WhenUnknown::Open => "open",
            },
        })
    }

    /// A list that was made of an old configuration before: somebody has written that one again.
    fn may_be_replaced(&self, list: &Path) -> Result<()> {
        match fs::read_to_string(list) {
            Ok(text) => ensure!(
                conflist::has_entry(&text),
                "{} is there beside a configuration of one plugin",
                list.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| list.display().to_string()),
        }
        Ok(())
    }

    /// Out: the file, if it was written.
    fn install_binary(&self) -> Result<Option<PathBuf>> {
        let path = self.binaries.join(TYPE);
        let own = fs::read("/proc/self/exe").context("cannot read this program")?;
        let is_there = fs::metadata(&path).is_ok_and(|there| there.permissions().mode() & 0o111 != 0)
            && fs::read(&path).is_ok_and(|there| there == own);
        if is_there {
            return Ok(None);
        }
        let make = || fs::create_dir_all(&self.binaries);
        make().with_context(|| format!("cannot make {}", self.binaries.display()))?;
        replace(&path, &own, Permissions::from_mode(0o755))?;
        Ok(Some(path))
    }
}

/// The files that runtimes look at, in their order (`ConfFiles` in libcni/conf.go).
fn configurations(directory: &Path) -> Result<Vec<PathBuf>> {
    let at = || format!("cannot read {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(at),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(at)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("conf" | "conflist" | "json")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a runtime would use it.
fn is_configuration(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let plugins = value.get("plugins").and_then(Value::as_array);
    plugins.is_some_and(|plugins| !plugins.is_empty())
        || value.get("type").and_then(Value::as_str).is_some_and(|kind| !kind.is_empty())
}

fn read(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    // Bytes that are not UTF-8 are no JSON: like an empty file.
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

fn saved(single: &Path) -> PathBuf {
    let mut name = single.as_os_str().to_owned();
    name.push(".");
    name.push(SAVED);
    name.into()
}

/// Writes a configuration with the rights of another.
fn write(file: &Path, text: &str, like: &Path) -> Result<()> {
    let metadata = fs::metadata(like).with_context(|| format!("cannot stat {}", like.display()))?;
    replace(file, text.as_bytes(), metadata.permissions())
}

#[cfg(test)]
mod tests;
