//! How the objects of manifests are written: where each stands, and what it says beside what a cluster keeps
//! of it. For answers about the texts themselves, not about verdicts.

use std::{collections::HashMap, sync::Arc};

use podgate_core::lint::ObjectNotes;

use crate::source::decode::{WrittenObject, WrittenPart};

/// The objects of all files.
#[derive(Debug, Default)]
pub struct WrittenObjects {
    /// What they say.
    pub notes: ObjectNotes,
    /// File and line of the object that counts, by its name as in `NetworkPolicy shop/web`.
    places: HashMap<String, (String, Option<usize>)>,
    /// Of what problems name, by file.
    lines: HashMap<String, HashMap<String, usize>>,
}

impl WrittenObjects {
    /// Objects that count more than those before.
    pub(in crate::source) fn add(&mut self, file: &str, objects: Vec<WrittenObject>) {
        let lines = self.lines.entry(file.to_owned()).or_default();
        for WrittenObject { label, object, line, ignored, part } in objects {
            let line = Some(line).filter(|line| *line > 0);
            if let Some(line) = line {
                lines.insert(label, line);
            }
            let Some(object) = object else { continue };
            if let Some(line) = line {
                lines.insert(object.clone(), line);
            }
            match ignored.is_empty() {
                true => self.notes.ignored.remove(&object),
                false => self.notes.ignored.insert(object.clone(), ignored),
            };
            match part {
                WrittenPart::Policy(name, left_out) if left_out.is_empty() => {
                    self.notes.left_out.remove(&name);
                }
                WrittenPart::Policy(name, left_out) => {
                    self.notes.left_out.insert(name, left_out);
                }
                WrittenPart::Pod(name, ports, dns) => {
                    match dns {
                        Some(dns) => self.notes.dns.insert(name.clone(), dns),
                        None => self.notes.dns.remove(&name),
                    };
                    self.notes.container_ports.insert(name, Arc::new(ports));
                }
                WrittenPart::Other => {}
            }
            self.places.insert(object, (file.to_owned(), line));
        }
    }

    /// File and line of an object as in `NetworkPolicy shop/web`.
    pub fn place(&self, object: &str) -> Option<(&str, Option<usize>)> {
        self.places.get(object).map(|(file, line)| (file.as_str(), *line))
    }

    /// The line of what a problem in a file names.
    pub fn line(&self, file: &str, object: &str) -> Option<usize> {
        self.lines.get(file)?.get(object).copied()
    }
}
