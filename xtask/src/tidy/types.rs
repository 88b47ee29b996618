//! Names of types: each is defined once in the product, so that a name means one thing wherever it is read.
//!
//! In: the Rust files of the product, without tests. Out: the lines that define a name which another file
//! defines too. Types inside functions and associated types belong to where they stand and do not count.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::source::without_tests;

/// Where the product's sources are. Workshop and testkit are no part of it.
const PRODUCT: [&str; 5] = ["agent/src", "agent/core/src", "agent/datapath/src", "common/src", "ebpf/src"];

const KEYWORDS: [&str; 5] = ["struct", "enum", "union", "trait", "type"];

/// Where each name is defined: files with lines counted from 1.
#[derive(Debug, Default)]
pub(super) struct TypeNames(BTreeMap<String, Vec<(PathBuf, usize)>>);

impl TypeNames {
    /// Notes the definitions of a file, by its path in the workspace, if it belongs to the product.
    pub(super) fn add(&mut self, file: &Path, text: &str) {
        if !PRODUCT.iter().any(|directory| file.starts_with(directory)) {
            return;
        }
        for (index, line) in without_tests(text).lines().enumerate() {
            if let Some(name) = defined(line) {
                self.0.entry(name.to_owned()).or_default().push((file.to_owned(), index + 1));
            }
        }
    }

    /// Each definition after the first one of its name: file, line, what is wrong.
    pub(super) fn problems(&self) -> Vec<(PathBuf, usize, String)> {
        let mut problems = Vec::new();
        for (name, places) in &self.0 {
            let mut places = places.clone();
            places.sort();
            let Some(((first, _), others)) = places.split_first() else { continue };
            let text = format!("the type name `{name}` is taken by {}", first.display());
            problems.extend(others.iter().map(|(file, line)| (file.clone(), *line, text.clone())));
        }
        problems
    }
}

/// The name that a line of the outermost level defines.
fn defined(line: &str) -> Option<&str> {
    let mut line = line;
    if let Some(rest) = line.strip_prefix("pub") {
        line = match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?.1.trim_start(),
            None => rest.strip_prefix(' ')?,
        };
    }
    line = line.strip_prefix("unsafe ").unwrap_or(line);
    let (keyword, rest) = line.split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (KEYWORDS.contains(&keyword) && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_two_files_define_is_reported_at_the_second_by_path() {
        let mut names = TypeNames::default();
        names.add(Path::new("common/src/a.rs"), "pub struct Flow;\nenum Side { A }\n");
        names.add(Path::new("agent/core/src/b.rs"), "//! Head.\npub(crate) enum Flow {}\n    struct Side;\n");
        names.add(Path::new("agent/src/c.rs"), "\n#[cfg(test)]\nmod tests {\nstruct Flow;\n}\n");
        names.add(Path::new("xtask/src/d.rs"), "struct Flow;\n");
        let text = "the type name `Flow` is taken by agent/core/src/b.rs".to_owned();
        assert_eq!(names.problems(), [("common/src/a.rs".into(), 1, text)]);
    }

    #[test]
    fn definitions_are_read_from_their_lines() {
        for (line, name) in [
            ("pub struct Flow<'a> {", Some("Flow")),
            ("pub(in crate::run) type Ends = (A, B);", Some("Ends")),
            ("unsafe trait Pod {", Some("Pod")),
            ("pub use a::Flow;", None),
            ("    struct Inner;", None),
            ("fn structure() {}", None),
        ] {
            assert_eq!(defined(line), name, "{line}");
        }
    }
}
