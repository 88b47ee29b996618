//! The files behind the paths, and what each of them held when it could last be read.
//!
//! Reading and putting are two steps, so that a watcher can drop what it read of a file that was being
//! written meanwhile. **What cannot be read keeps what it had:** a file that turns unreadable, is no longer
//! YAML, or holds something that is no object at all leaves the objects of its last good state in force, and
//! so does a path that is gone; only what is missing from a directory that can be listed is taken as deleted.
//! A half-written or broken file therefore never opens anything. A file that is bad from the first gives what
//! can be read of it, and the picture says that it lacks the rest. A path without any object is as bad as one
//! that is missing: what it held last stays, and without that there is no picture.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use podgate_core::model::Cluster;

use crate::source::{
    Unread,
    decode::{self, Contents, Decoded, Decoder, ObjectId, ObjectLocation, WrittenObject},
    limited::Limits,
};

use super::{
    ClusterSnapshot, ReadOptions, ValidationError,
    document::{self, LineDetail},
    input::{Input, expand, is_of_kustomize, unreadable},
    namespace,
};

#[derive(Debug)]
pub(super) struct ManifestStore {
    roots: Vec<Root>,
    inputs: BTreeMap<Input, Arc<Pending>>,
    decoder: Decoder,
    options: ReadOptions,
    limits: Limits,
    detail: LineDetail,
}

/// What was read of one input.
#[derive(Debug)]
pub(super) struct InputReading {
    objects: Vec<Decoded>,
    problems: Vec<ValidationError>,
    unread: Vec<Unread>,
    written: Vec<WrittenObject>,
    state: Readable,
}

/// How far an input could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    /// Everything that was meant as an object could be recognised as one.
    Whole,
    /// Something in it could not.
    InPart,
    /// It gave no bytes.
    NotAtAll,
}

/// A path that was named.
#[derive(Debug)]
struct Root {
    input: Input,
    /// What it stands for: itself, or the files of the directory. `None`: it could never be listed.
    found: Option<Vec<Input>>,
    problem: Option<ValidationError>,
    /// The inputs that held its objects when it last had any.
    last: Vec<(Input, Arc<Pending>)>,
}

/// What an input contributes.
#[derive(Debug)]
struct Pending {
    objects: Vec<Decoded>,
    problems: Vec<ValidationError>,
    unread: Vec<Unread>,
    /// Of the reading that the objects are of.
    state: Readable,
}

impl ManifestStore {
    pub(super) fn new(paths: &[PathBuf], options: ReadOptions) -> Self {
        let mut roots: Vec<Root> = Vec::new();
        for path in paths {
            let input = Input::named(path);
            if !roots.iter().any(|root| root.input == input) {
                roots.push(Root { input, found: None, problem: None, last: Vec::new() });
            }
        }
        let (inputs, decoder, limits) = (BTreeMap::new(), Decoder::default(), Limits::default());
        Self { roots, inputs, decoder, options, limits, detail: LineDetail::Documents }
    }

    /// Keeps how objects are written, too.
    pub(super) fn keeping_written(self) -> Self {
        Self { decoder: self.decoder.keeping_written(), detail: LineDetail::Items, ..self }
    }

    /// What was put, each once: of an object that appears twice the last one counts.
    pub(super) fn in_order(&self) -> Vec<&Input> {
        let mut seen = BTreeSet::new();
        self.roots.iter().flat_map(Root::inputs).filter(|input| seen.insert(*input)).collect()
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
                Ok(found) => (root.found, root.problem) = (Some(found), None),
                Err(error) => {
                    root.problem = Some(ValidationError::of_file(root.input.to_string(), unreadable(&error)));
                }
            }
        }
        let found: BTreeSet<&Input> = self.roots.iter().flat_map(Root::inputs).collect();
        self.inputs.retain(|input, _| found.contains(input));
        self.decoder.sweep();
        let readable = self.roots.iter().filter(|root| root.problem.is_none());
        readable.flat_map(Root::inputs).cloned().collect()
    }

    /// Whether something was put for it.
    pub(super) fn holds(&self, input: &Input) -> bool {
        self.inputs.contains_key(input)
    }

    pub(super) fn read(&mut self, input: &Input) -> InputReading {
        match input.bytes() {
            Ok(bytes) => self.parse(input, &bytes),
            Err(error) => {
                let problem = ValidationError::of_file(input.to_string(), unreadable(&error));
                let unread = vec![of_any(&problem)];
                InputReading {
                    objects: Vec::new(),
                    problems: vec![problem],
                    unread,
                    written: Vec::new(),
                    state: Readable::NotAtAll,
                }
            }
        }
    }

    pub(super) fn put(&mut self, input: Input, reading: InputReading) {
        let InputReading { objects, problems, unread, written: _, state } = reading;
        let held = match self.inputs.get(&input) {
            Some(before) if state != Readable::Whole && !before.objects.is_empty() => {
                Pending { objects: before.objects.clone(), problems, unread, state: before.state }
            }
            _ => Pending { objects, problems, unread, state },
        };
        self.inputs.insert(input, Arc::new(held));
    }

    /// Everything together. Of an object that appears twice the later one counts, as with `kubectl apply`.
    ///
    /// `held_back`: inputs that are not read now, because somebody writes them.
    pub(super) fn picture(&mut self, held_back: &[Input]) -> ClusterSnapshot {
        let mut picture = ClusterSnapshot::default();
        picture.problems.extend(self.roots.iter().filter_map(|root| root.problem.clone()));
        picture.problems.extend(held_back.iter().map(being_written));
        // One that was never read may hold anything.
        let unread = held_back.iter().filter(|input| !self.inputs.contains_key(input));
        picture.lacking.extend(unread.map(being_written));
        let mut inputs: BTreeMap<Input, Arc<Pending>> = BTreeMap::new();
        let mut order: Vec<Input> = Vec::new();
        for root in &mut self.roots {
            let held = |input: &Input| Some((input.clone(), self.inputs.get(input)?.clone()));
            let now: Vec<_> = root.inputs().filter_map(held).collect();
            let problems =
                now.iter().flat_map(|(input, held)| held.problems.iter().map(move |it| (input, it)));
            let of_new =
                problems.filter(|(input, _)| !inputs.contains_key(input)).map(|(_, problem)| problem);
            picture.problems.extend(of_new.cloned());
            let has_objects = now.iter().any(|(_, held)| !held.objects.is_empty());
            if has_objects || self.options.allow_empty && root.found.is_some() {
                root.last = now;
            } else {
                let reason = now.into_iter().find_map(|(_, held)| held.problems.first().cloned());
                let reason = reason.filter(|_| root.last.is_empty()).or_else(|| root.problem.clone());
                let is_reported = reason.is_some();
                let reason = reason.unwrap_or_else(|| root.without_objects());
                picture.problems.extend((!is_reported).then(|| reason.clone()));
                picture.missing.extend(root.last.is_empty().then_some(reason));
            }
            for (input, held) in &root.last {
                if inputs.insert(input.clone(), held.clone()).is_none() {
                    order.push(input.clone());
                }
            }
        }
        let mut cluster = Cluster::default();
        let mut seen: HashMap<ObjectId, &Input> = HashMap::new();
        for input in &order {
            let held = &inputs[input];
            picture.lacking.extend(held.lacking());
            picture.unread.extend(held.unread.iter().cloned());
            for object in &held.objects {
                if let Some(earlier) = seen.insert(object.id(), input) {
                    picture.problems.push(twice(object, earlier, input));
                }
                object.clone().put(&mut cluster);
            }
        }
        picture.cluster = Arc::new(cluster);
        self.limits.apply(&mut picture.cluster);
        for (policy, problem) in self.limits.problems() {
            let file = seen.get(&policy).map(ToString::to_string).unwrap_or_default();
            picture.problems.push(ValidationError { file, ..problem.clone() });
        }
        picture
    }

    fn parse(&mut self, input: &Input, bytes: &[u8]) -> InputReading {
        let file = input.to_string();
        let mut reading = InputReading {
            objects: Vec::new(),
            problems: Vec::new(),
            unread: Vec::new(),
            written: Vec::new(),
            state: Readable::Whole,
        };
        let documents = match document::read(bytes, self.detail) {
            Ok(documents) => documents,
            Err(message) => {
                let problem = ValidationError::of_file(file, message);
                reading.unread.push(of_any(&problem));
                reading.problems.push(problem);
                reading.state = Readable::InPart;
                return reading;
            }
        };
        for document in documents {
            let position = document.position;
            match document.value {
                Ok(value) if is_of_kustomize(input, &value) => {}
                Ok(mut value) => {
                    if let Some(name) = &self.options.namespace {
                        namespace::fill(&mut value, name);
                    }
                    let place = ObjectLocation { origin: file.clone(), position };
                    let Contents { objects, faults, incomplete, unread, written } =
                        self.decoder.decode_at(&value, &place, &document.lines);
                    reading.objects.extend(objects);
                    reading.written.extend(written);
                    let faults =
                        faults.into_iter().map(|fault| ValidationError::of_fault(file.clone(), fault));
                    reading.problems.extend(faults);
                    reading.unread.extend(unread.into_iter().map(
                        |decode::UnreadObject { fault, namespace }| Unread {
                            problem: ValidationError::of_fault(file.clone(), fault),
                            namespace,
                        },
                    ));
                    if incomplete {
                        reading.state = Readable::InPart;
                    }
                }
                Err(message) => {
                    let (file, field) = (file.clone(), String::new());
                    reading.written.push(WrittenObject::unknown(position.clone(), document.lines.own));
                    let problem = ValidationError { file, object: position, field, message };
                    reading.unread.push(of_any(&problem));
                    reading.problems.push(problem);
                    reading.state = Readable::InPart;
                }
            }
        }
        reading
    }
}

impl InputReading {
    /// How its objects are written, if that is kept.
    pub(super) fn take_written(&mut self) -> Vec<WrittenObject> {
        std::mem::take(&mut self.written)
    }
}

impl Root {
    fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.found.iter().flatten()
    }

    fn without_objects(&self) -> ValidationError {
        let message = match self.last.is_empty() {
            true => "holds no object (--allow-empty if that is meant)",
            false => "holds no object any more; what it held stays (--allow-empty if that is meant)",
        };
        ValidationError::of_file(self.input.to_string(), message.into())
    }
}

impl Pending {
    /// What it is known to lack: it has never been read as a whole.
    fn lacking(&self) -> Option<ValidationError> {
        match self.state {
            Readable::Whole => None,
            Readable::InPart | Readable::NotAtAll => self.problems.first().cloned(),
        }
    }
}

/// An object that could not be read at all may be a policy of any namespace.
fn of_any(problem: &ValidationError) -> Unread {
    Unread { problem: problem.clone(), namespace: None }
}

fn being_written(input: &Input) -> ValidationError {
    ValidationError::of_file(
        input.to_string(),
        "is being written; its last state counts until it is closed".into(),
    )
}

fn twice(object: &Decoded, earlier: &Input, later: &Input) -> ValidationError {
    let message = match earlier == later {
        true => "stands twice in this file; the later one counts".to_owned(),
        false => format!("stands also in {earlier}; this one counts"),
    };
    ValidationError {
        file: later.to_string(),
        object: object.id().to_string(),
        field: String::new(),
        message,
    }
}
