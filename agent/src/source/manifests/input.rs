//! Where manifests come from: files, those of a directory, or standard input.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Where manifests come from; printed as problems name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Input {
    /// `-`.
    Standard,
    File(PathBuf),
}

impl Input {
    pub(super) fn named(path: &Path) -> Self {
        match path.as_os_str() == OsStr::new("-") {
            true => Self::Standard,
            false => Self::File(path.to_owned()),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Standard => None,
            Self::File(path) => Some(path),
        }
    }

    /// Whether it gives the same again: a pipe does not.
    pub(super) fn is_repeatable(&self) -> bool {
        self.path().is_some_and(|path| fs::metadata(path).is_ok_and(|metadata| metadata.is_file()))
    }

    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Standard => {
                let mut bytes = Vec::new();
                io::stdin().lock().read_to_end(&mut bytes)?;
                Ok(bytes)
            }
            Self::File(path) => fs::read(path),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What a path that was named stands for.
pub(super) fn expand(root: &Input) -> io::Result<Vec<Input>> {
    let Input::File(path) = root else { return Ok(vec![root.clone()]) };
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![root.clone()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A link that leads nowhere is listed: reading it says what is wrong. A pipe would never end.
        if is_manifest(&entry.file_name()) && !fs::metadata(entry.path()).is_ok_and(|found| !found.is_file())
        {
            found.push(Input::File(entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file of this name is read in a directory. Hidden ones are not: editors put their own files
/// there.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    matches!(extension, Some("yaml" | "yml" | "json")) && !name.as_encoded_bytes().starts_with(b".")
}

pub(super) fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// Whether an object is kustomize's own, which need not have a kind.
pub(super) fn is_of_kustomize(input: &Input, value: &Value) -> bool {
    let name = input.path().and_then(Path::file_name).and_then(OsStr::to_str);
    matches!(name, Some("kustomization.yaml" | "kustomization.yml" | "Kustomization"))
        && value.is_object()
        && value.get("kind").is_none()
}
