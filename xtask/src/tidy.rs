//! `cargo xtask tidy`: rules of the repository that no compiler checks.
//!
//! In: the files of the workspace. Out: one line per broken rule, as `file:line: rule`. The rules: a Rust
//! file opens with `//!` and has at most 400 lines besides its tests, is named for what is in it, holds no
//! left-over words, keeps its comments within the width; a type name is defined once in the product, and a
//! list of all variants has each; no file holds a house word or names a directory of somebody's machine; the
//! README is short, documents keep to the width of the code and their links lead somewhere; the checklist of
//! behaviours and the threat model are complete and name tests that exist.

mod documents;
mod source;
mod types;
mod variants;
mod words;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use crate::{checklist::CHECKLISTS, workspace};
use types::TypeNames;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ValidationError {
    file: PathBuf,
    /// Counted from 1.
    line: usize,
    text: String,
}

pub(crate) fn run() -> Result<ExitCode> {
    check()?;
    println!("tidy: no problems");
    Ok(ExitCode::SUCCESS)
}

/// Fails with all broken rules.
pub(crate) fn check() -> Result<()> {
    let mut problems = problems(workspace::root())?;
    problems.sort();
    if problems.is_empty() {
        return Ok(());
    }
    let lines: String = problems.iter().map(|problem| format!("\n{problem}")).collect();
    bail!("tidy: {} problems{lines}", problems.len())
}

fn problems(root: &Path) -> Result<Vec<ValidationError>> {
    let mut problems = Vec::new();
    for checklist in CHECKLISTS {
        let found = checklist.problems(root)?.into_iter();
        problems.extend(found.map(|(line, text)| ValidationError {
            file: checklist.path.into(),
            line,
            text,
        }));
    }
    let mut type_names = TypeNames::default();
    for file in files(root)? {
        let text =
            fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        let mut found = source::machine_paths(&text);
        if file.extension().is_some_and(|extension| extension == "md") {
            found.extend(documents::check(root, &file, &text));
        }
        if file.extension().is_some_and(|extension| extension == "rs") {
            found.extend(source::file_name(&file));
            found.extend(source::head(&text));
            found.extend(source::left_overs(&text));
            found.extend(source::width(&text));
            found.extend(source::length(&text));
            if !source::is_test(&file) {
                type_names.add(&file, &text);
                found.extend(variants::lists(&text));
            }
        }
        if file != Path::new(CHANGES) {
            found.extend(words::check(&text));
        }
        problems.extend(found.into_iter().map(|(line, text)| ValidationError {
            file: file.clone(),
            line,
            text,
        }));
    }
    let taken = type_names.problems().into_iter();
    problems.extend(taken.map(|(file, line, text)| ValidationError { file, line, text }));
    Ok(problems)
}

/// It names what was renamed.
const CHANGES: &str = ".github/CHANGELOG.md";

/// Kinds of files that people write here.
const KINDS: [&str; 7] = ["rs", "toml", "md", "yaml", "yml", "json", "sh"];

/// The text files of the workspace, relative to `root`.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(".ci/run")];
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let path = root.join(&directory);
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            let entry = entry.context("reading a directory")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = directory.join(&name);
            if entry.file_type().context("looking at a file")?.is_dir() {
                // Hidden directories are tools', but for the host's of this code; `target` is cargo's.
                if name == ".github" || !name.starts_with('.') && name != "target" {
                    directories.push(file);
                }
            } else if file.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known)) {
                found.push(file);
            }
        }
    }
    Ok(found)
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_sources_and_leaves_build_output_out() {
        let files = files(workspace::root()).expect("the workspace can be read");
        for expected in
            ["xtask/src/tidy.rs", "Cargo.toml", ".ci/run", "deploy/walkthrough/b-deny-all.yaml", CHANGES]
        {
            assert!(files.contains(&expected.into()), "{expected}");
        }
        assert!(!files.iter().any(|file| file.starts_with("target")));
    }
}
