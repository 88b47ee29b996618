//! The tests that the sources hold, by the full names that the page uses.
//!
//! In: the workspace. Out: `PROGRAM::PATH` of every test function, and `conformance::FILE` of every
//! conformance case with the numbers that it claims. rustfmt has laid the sources out: a module ends with a
//! brace as far in as its beginning.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

#[derive(Debug, Default)]
pub(super) struct Sources {
    tests: BTreeSet<String>,
    /// The numbers that each conformance case is about.
    cases: BTreeMap<String, BTreeSet<u16>>,
}

/// Programs of tests, the directory of their sources, and the module that it is.
const PROGRAMS: [(&str, &str, &str); 14] = [
    ("agent", "agent/src", ""),
    ("core", "agent/core/src", ""),
    ("datapath", "agent/datapath/src", ""),
    ("common", "common/src", ""),
    ("xtask", "xtask/src", ""),
    ("differential", "agent/tests/differential", ""),
    ("testkit", "agent/testkit/src", ""),
    ("packets", "agent/tests/packets", ""),
    ("verbs", "agent/tests/verbs", ""),
    ("sizes", "agent/tests/sizes", ""),
    ("fleet", "agent/tests/fleet", ""),
    ("namespaces", "xtask/tests/namespaces", ""),
    ("apiserver", "xtask/tests/apiserver", ""),
    ("monitoring", "xtask/tests/monitoring", ""),
];

/// Those that list their tests in tables of names.
const LISTED: [&str; 3] = ["namespaces", "apiserver", "monitoring"];

/// The one test that runs all conformance cases.
pub(super) const CONFORMANCE: &str = "differential::conformance::podgate_gives_the_expected_verdicts";
const CASES: &str = "agent/tests/conformance";
const CASE: &str = "conformance::";

impl Sources {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut sources = Self::default();
        for (program, directory, module) in PROGRAMS {
            let directory = root.join(directory);
            for file in files(&directory)? {
                let text = read(&file)?;
                let below = file.strip_prefix(&directory).context("a file of the directory")?;
                let module = module_of(module, below);
                let named = if LISTED.contains(&program) { listed(&text) } else { tests(&text, &module) };
                sources.tests.extend(named.into_iter().map(|name| format!("{program}::{name}")));
            }
        }
        for file in files(&root.join(CASES))? {
            let name = file.file_stem().context("a file")?.to_string_lossy().into_owned();
            sources.cases.insert(format!("{CASE}{name}"), claimed(&read(&file)?));
        }
        Ok(sources)
    }

    /// What is wrong with this name beside this number.
    pub(super) fn check(&self, name: &str, number: u16) -> Option<String> {
        match self.cases.get(name) {
            Some(claimed) if claimed.contains(&number) => None,
            Some(_) => Some(format!("{number}: {name} does not list {number} itself")),
            None if self.tests.contains(name) => None,
            None => Some(format!("{number}: there is no test {name}")),
        }
    }
}

/// The test whose result tells of this entry of the page.
pub(super) fn test_of(name: &str) -> &str {
    if name.starts_with(CASE) { CONFORMANCE } else { name }
}

/// The files below a directory, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let path = entry.context("reading a directory")?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// The module path of a file; the file of the root itself is named for what it is.
fn module_of(root: &str, file: &Path) -> String {
    let names = file.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    let names: Vec<String> =
        names.filter(|name| !["lib", "main", "oracle"].contains(&name.as_str())).collect();
    [root.to_owned()].into_iter().filter(|name| !name.is_empty()).chain(names).collect::<Vec<_>>().join("::")
}

/// Functions below `#[test]`, with their path.
fn tests(text: &str, module: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Modules that are open, with the blanks before them.
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut announced = false;
    for line in text.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if code == "}" && open.last().is_some_and(|(start, _)| *start == indent) {
            open.pop();
        }
        let opened = code.strip_suffix(" {").and_then(|code| code.rsplit_once("mod "));
        if let Some((before, name)) = opened
            && (before.is_empty() || before.starts_with("pub"))
        {
            open.push((indent, name));
        }
        if code == "#[test]" || code.starts_with("#[tokio::test") {
            announced = true;
        } else if let Some((_, rest)) = code.split_once("fn ").filter(|_| announced) {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            let path = [module].into_iter().filter(|module| !module.is_empty());
            let path = path.chain(open.iter().map(|(_, name)| *name)).chain([name]);
            found.push(path.collect::<Vec<_>>().join("::"));
            announced = false;
        }
    }
    found
}

/// Tests between namespaces stand in lists: `("name", function)`.
fn listed(text: &str) -> Vec<String> {
    let lists = text.split("const TESTS: ").skip(1).filter_map(|list| list.split("];").next());
    let names = lists.flat_map(|list| list.split("(\"").skip(1)).filter_map(|rest| rest.split('"').next());
    names.map(str::to_owned).collect()
}

/// The numbers in the line `checklist: [1, 2]`.
fn claimed(text: &str) -> BTreeSet<u16> {
    let lists = text.lines().filter_map(|line| line.strip_prefix("checklist: [")?.strip_suffix(']'));
    lists.flat_map(|list| list.split(',')).filter_map(|number| number.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_test_is_named_by_file_module_and_function() {
        let text = "fn other() {}\n\n#[test]\nfn one() {\n}\n\nmod pods {\n    #[tokio::test(flavor)]\n    #[should_panic]\n    async fn two() {\n    }\n}\n\n\
                    #[test]\nfn three() {}\n";
        assert_eq!(tests(text, "a::b"), ["a::b::one", "a::b::pods::two", "a::b::three"]);
        for (root, file, expected) in [
            ("", "compiler/tests.rs", "compiler::tests"),
            ("", "lib.rs", ""),
            ("", "main.rs", ""),
            ("oracle", "oracle.rs", "oracle"),
            ("oracle", "naive/cidr.rs", "oracle::naive::cidr"),
        ] {
            assert_eq!(module_of(root, Path::new(file)), expected, "{file}");
        }
        let list = "const TESTS: &[(&str, Test)] = &[\n    (\"one\", one),\n    (\"two\", |lab| two(lab, 2)),\n];\n(\"no\", 1)";
        assert_eq!(listed(list), ["one", "two"]);
        assert_eq!(claimed("kind: Expect\nchecklist: [2, 19]\n"), BTreeSet::from([2, 19]));
    }

    #[test]
    fn tests_of_every_program_are_found() {
        let sources = Sources::read(workspace::root()).expect("the sources can be read");
        let here = "xtask::checklist::sources::tests::tests_of_every_program_are_found";
        for name in [here, CONFORMANCE, "namespaces::a_capture_sees_what_arrives"] {
            assert_eq!(sources.check(name, 1), None);
        }
        for (program, _, _) in PROGRAMS {
            assert!(sources.tests.iter().any(|name| name.starts_with(program)), "{program}");
        }
        assert!(sources.check("agent::no_such_test", 1).is_some());
        assert!(sources.check("conformance::002-ingress-only", 2).is_none());
        assert!(sources.check("conformance::002-ingress-only", 1).is_some());
    }
}
