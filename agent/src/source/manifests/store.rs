//! The files behind the paths, and what each of them held when it could last be read.
//!
//! Reading and putting are two steps, so that a watcher can drop what it read of a file that was being
//! written meanwhile. **What cannot be read keeps what it had:** a file that turns unreadable, is no longer
//! YAML, or holds something that is no object at all leaves the objects of its last good state in force, and
//! so does a path that is gone; only what is missing from a directory that can be listed is taken as deleted.
//! A half-written or broken file therefore never opens anything. A file that is bad from the first gives what
//! can be read of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    model::Cluster,
    source::decode::{Contents, Decoded, Decoder, ObjectId, Place},
};

use super::{Picture, Problem, document};

/// Where manifests come from; printed as problems name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Input {
    /// `-`.
    Standard,
    File(PathBuf),
}

#[derive(Debug)]
pub(super) struct Store {
    roots: Vec<Root>,
    inputs: BTreeMap<Input, Held>,
    decoder: Decoder,
}

/// What was read of one input.
#[derive(Debug)]
pub(super) struct Reading {
    objects: Vec<Decoded>,
    problems: Vec<Problem>,
    /// Everything that was meant as an object could be recognised as one.
    is_good: bool,
}

/// A path that was named.
#[derive(Debug)]
struct Root {
    input: Input,
    /// What it stands for: itself, or the files of the directory.
    found: Vec<Input>,
    problem: Option<Problem>,
}

/// What an input contributes.
#[derive(Debug, Default)]
struct Held {
    objects: Vec<Decoded>,
    problems: Vec<Problem>,
}

impl Store {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let mut roots: Vec<Root> = Vec::new();
        for path in paths {
            let input = Input::named(path);
            if !roots.iter().any(|root| root.input == input) {
                roots.push(Root { input, found: Vec::new(), problem: None });
            }
        }
        Self { roots, inputs: BTreeMap::new(), decoder: Decoder::default() }
    }

    /// The paths that were named, without standard input.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.roots.iter().filter_map(|root| root.input.path())
    }

    /// Looks again at which inputs there are; forgets those that are gone. Out: those that may be read, each
    /// once.
    pub(super) fn list(&mut self) -> BTreeSet<Input> {
        for root in &mut self.roots {
            match expand(&root.input) {
                Ok(found) => (root.found, root.problem) = (found, None),
                Err(error) => {
                    root.problem = Some(Problem::of_file(root.input.to_string(), unreadable(&error)));
                }
            }
        }
        let found: BTreeSet<&Input> = self.roots.iter().flat_map(|root| &root.found).collect();
        self.inputs.retain(|input, _| found.contains(input));
        self.decoder.sweep();
        let readable = self.roots.iter().filter(|root| root.problem.is_none());
        readable.flat_map(|root| &root.found).cloned().collect()
    }

    /// Whether something was put for it.
    pub(super) fn holds(&self, input: &Input) -> bool {
        self.inputs.contains_key(input)
    }

    pub(super) fn read(&mut self, input: &Input) -> Reading {
        match input.bytes() {
            Ok(bytes) => self.parse(input, &bytes),
            Err(error) => Reading {
                objects: Vec::new(),
                problems: vec![Problem::of_file(input.to_string(), unreadable(&error))],
                is_good: false,
            },
        }
    }

    pub(super) fn put(&mut self, input: Input, reading: Reading) {
        let Reading { objects, problems, is_good } = reading;
        let held = self.inputs.entry(input).or_default();
        held.problems = problems;
        if is_good || held.objects.is_empty() {
            held.objects = objects;
        }
    }

    /// Everything together. Of an object that appears twice the later one counts, as with `kubectl apply`.
    pub(super) fn picture(&self) -> Picture {
        let mut cluster = Cluster::default();
        let mut problems: Vec<Problem> = self.roots.iter().filter_map(|root| root.problem.clone()).collect();
        let mut seen: HashMap<ObjectId, &Input> = HashMap::new();
        let mut done: BTreeSet<&Input> = BTreeSet::new();
        for input in self.roots.iter().flat_map(|root| &root.found) {
            let Some(held) = self.inputs.get(input) else { continue };
            if !done.insert(input) {
                continue;
            }
            problems.extend(held.problems.iter().cloned());
            for object in &held.objects {
                if let Some(earlier) = seen.insert(object.id(), input) {
                    problems.push(twice(object, earlier, input));
                }
                object.clone().put(&mut cluster);
            }
        }
        Picture { cluster: Arc::new(cluster), problems }
    }

    fn parse(&mut self, input: &Input, bytes: &[u8]) -> Reading {
        let file = input.to_string();
        let mut reading = Reading { objects: Vec::new(), problems: Vec::new(), is_good: true };
        let documents = match document::read(bytes) {
            Ok(documents) => documents,
            Err(message) => {
                reading.problems.push(Problem::of_file(file, message));
                reading.is_good = false;
                return reading;
            }
        };
        for document in documents {
            let position = document.position;
            match document.value {
                Ok(value) => {
                    let place = Place { origin: file.clone(), position };
                    let Contents { objects, faults, incomplete } = self.decoder.decode(&value, &place);
                    reading.objects.extend(objects);
                    let faults = faults.into_iter().map(|fault| Problem::of_fault(file.clone(), fault));
                    reading.problems.extend(faults);
                    reading.is_good &= !incomplete;
                }
                Err(message) => {
                    let (file, field) = (file.clone(), String::new());
                    reading.problems.push(Problem { file, object: position, field, message });
                    reading.is_good = false;
                }
            }
        }
        reading
    }
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

fn twice(object: &Decoded, earlier: &Input, later: &Input) -> Problem {
    let message = match earlier == later {
        true => "stands twice in this file; the later one counts".to_owned(),
        false => format!("stands also in {earlier}; this one counts"),
    };
    Problem { file: later.to_string(), object: object.id().to_string(), field: String::new(), message }
}
