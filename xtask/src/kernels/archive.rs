//! An initramfs: a cpio archive in the format that the kernel unpacks
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{
    collections::BTreeMap,
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// What the archive will hold, by path without the leading slash.
#[derive(Debug, Default)]
pub(super) struct Archive {
    directories: BTreeMap<String, ()>,
    files: BTreeMap<String, Source>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// A file at the place where it is here.
    pub(super) fn file(&mut self, path: &Path) -> Result<()> {
        self.file_as(&path.to_string_lossy(), path)
    }

    pub(super) fn file_as(&mut self, place: &str, path: &Path) -> Result<()> {
        let path = path.canonicalize().with_context(|| format!("finding {}", path.display()))?;
        self.add(place, Source::File(path));
        Ok(())
    }

    /// A file that was found, at its place.
    pub(super) fn found(&mut self, path: &Path) {
        self.found_as(&path.to_string_lossy(), path);
    }

    pub(super) fn found_as(&mut self, place: &str, path: &Path) {
        self.add(place, Source::File(path.to_owned()));
    }

    pub(super) fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.add(place, Source::Bytes(bytes.to_vec()));
    }

    pub(super) fn directory(&mut self, path: &Path) {
        for ancestor in path.ancestors() {
            let ancestor = ancestor.to_string_lossy().trim_start_matches('/').to_owned();
            if !ancestor.is_empty() {
                self.directories.insert(ancestor, ());
            }
        }
    }

    fn add(&mut self, place: &str, source: Source) {
        let place = place.trim_start_matches('/');
        if let Some(directory) = Path::new(place).parent() {
            self.directory(directory);
        }
        self.files.insert(place.to_owned(), source);
    }

    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let file = fs::File::create(to).with_context(|| format!("creating {}", to.display()))?;
        let mut out = BufWriter::new(file);
        let mut number = 0;
        let mut entry = |name: &str, mode, content: &[u8]| {
            number += 1;
            write_entry(&mut out, number, name, mode, content)
        };
        // A path sorts before what lies below it.
        for directory in self.directories.keys() {
            entry(directory, DIRECTORY, &[])?;
        }
        for (name, source) in &self.files {
            match source {
                Source::File(path) => {
                    let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                    entry(name, PROGRAM, &content)?;
                }
                Source::Bytes(content) => entry(name, PROGRAM, content)?,
            }
        }
        entry("TRAILER!!!", 0, &[])?;
        out.flush().with_context(|| format!("writing {}", to.display()))
    }
}

/// Header of 13 hexadecimal numbers, name with a final NUL, content; both padded to multiples of 4 bytes.
fn write_entry(out: &mut impl Write, number: u32, name: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
    let name_size = u32::try_from(name.len() + 1).context("a path is short")?;
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    let mut header = String::from("070701");
    for field in fields {
        header += &format!("{field:08x}");
    }
    let padding = |length: usize| &[0; 3][..length.next_multiple_of(4) - length];
    out.write_all(header.as_bytes())?;
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    out.write_all(padding(header.len() + name.len() + 1))?;
    out.write_all(content)?;
    Ok(out.write_all(padding(content.len()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_padded_to_words() {
        for (name, content) in [("a", &b""[..]), ("ab", b"x"), ("abc", b"1234"), ("abcd", b"12345")] {
            let mut entry = Vec::new();
            write_entry(&mut entry, 7, name, PROGRAM, content).expect("writing to memory");
            assert_eq!(entry.len() % 4, 0, "{name}");
            assert_eq!(&entry[..14], b"07070100000007", "magic number, number of the entry");
            assert_eq!(&entry[110..110 + name.len()], name.as_bytes());
            let at = (110 + name.len() + 1).next_multiple_of(4);
            assert_eq!(&entry[at..at + content.len()], content);
        }
    }
}
