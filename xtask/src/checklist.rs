//! `cargo xtask checklist`: how many behaviours of NetworkPolicy are tried by a test, and how many passed.
//!
//! In: the page of behaviours, the sources, and the outcomes of the last test run. Out: counts per section,
//! and on request what is missing. A behaviour has passed when all its tests have; a test that has not run
//! has not passed. The threat model is a page of the same form: an attack has passed when podgate withstood
//! it in all tests of its row.

mod page;
mod sources;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, ensure};

use crate::{
    flags::ChecklistFlags,
    results::Results,
    screen::{Cell, Tone, table},
    workspace,
};
use page::{Found, Item, Page, Shown};
use sources::Sources;

/// A page of numbered rows, each with the tests that show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checklist {
    /// Relative to the root of the workspace.
    pub(crate) path: &'static str,
    title: &'static str,
    /// The last number, where the page must have all of a given list.
    last: Option<u16>,
}

pub(crate) const CHECKLISTS: [Checklist; 2] = [
    Checklist { path: "agent/tests/checklist.md", title: "checklist", last: Some(288) },
    Checklist { path: "agent/docs/threat-model.md", title: "threat model", last: None },
];

pub(crate) fn run(flags: &ChecklistFlags) -> Result<ExitCode> {
    let results = Results::load()?;
    for checklist in CHECKLISTS {
        let page = checklist.read(workspace::root())?;
        ensure!(page.problems.is_empty(), "{} has faults: see `cargo xtask tidy`", checklist.path);
        println!("{}", Cell::new(checklist.title, Tone::Title));
        println!("{}", counts(&page, &results));
        if flags.missing {
            println!("{}", missing(&page, &results));
        }
    }
    if results.is_empty() {
        println!("No test has run yet: `cargo xtask test`.");
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each checklist: how many items it has, how many are tried, how many passed.
pub(crate) fn summary(results: &Results) -> Result<String> {
    let lines = CHECKLISTS.map(|checklist| {
        let page = checklist.read(workspace::root())?;
        let Count { items, tried, passed } = Count::of(page.items(), results);
        let untried = items - tried;
        let title = checklist.title;
        Ok(format!("{title}: {items} items, {tried} tried, {passed} passed, {untried} not tried"))
    });
    let lines: Result<Vec<String>> = lines.into_iter().collect();
    Ok(lines?.join("\n"))
}

impl Checklist {
    /// What is wrong with the page, by its lines.
    pub(crate) fn problems(&self, root: &Path) -> Result<Vec<Found>> {
        let (page, sources) = (self.read(root)?, Sources::read(root)?);
        let unknown = page.items().flat_map(|item| {
            let names = match &item.shown {
                Shown::By(names) => names.as_slice(),
                Shown::NotTried(_) => &[],
            };
            names.iter().filter_map(|name| Some((item.line, sources.check(name, item.number)?)))
        });
        let unknown: Vec<Found> = unknown.collect();
        Ok(page.problems.into_iter().chain(unknown).collect())
    }

    fn read(&self, root: &Path) -> Result<Page> {
        let path = self.path;
        let text = fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"))?;
        Ok(Page::from_markdown(&text, self.last))
    }
}

/// How far a behaviour is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Passed,
    /// Tests that failed.
    Failed(Vec<String>),
    /// None failed, but these have not run.
    NotRun(Vec<String>),
    /// For this reason.
    NotTried(String),
}

impl Standing {
    fn of(item: &Item, results: &Results) -> Self {
        let names = match &item.shown {
            Shown::NotTried(reason) => return Self::NotTried(reason.clone()),
            Shown::By(names) => names,
        };
        let with = |wanted| {
            let names = names.iter().filter(move |name| outcome(name, results) == wanted);
            names.cloned().collect::<Vec<_>>()
        };
        let (failed, not_run) = (with(Some(false)), with(None));
        match (failed.is_empty(), not_run.is_empty()) {
            (false, _) => Self::Failed(failed),
            (true, false) => Self::NotRun(not_run),
            (true, true) => Self::Passed,
        }
    }
}

/// Of a test between namespaces that runs once with each kind of hook, both count.
fn outcome(name: &str, results: &Results) -> Option<bool> {
    let test = sources::test_of(name);
    let older = results.passed(&format!("{test}_by_clsact"));
    Some(results.passed(test)? && older.unwrap_or(true))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    items: usize,
    tried: usize,
    passed: usize,
}

impl Count {
    fn of<'a>(items: impl Iterator<Item = &'a Item>, results: &Results) -> Self {
        let mut count = Self::default();
        for item in items {
            let standing = Standing::of(item, results);
            count.items += 1;
            count.tried += usize::from(!matches!(standing, Standing::NotTried(_)));
            count.passed += usize::from(standing == Standing::Passed);
        }
        count
    }

    fn row(self, title: &str, tone: Tone) -> Vec<Cell> {
        let Self { items, tried, passed } = self;
        let numbers = [items, tried, passed, items - tried];
        let numbers = numbers.map(|number| Cell::new(format!("{number:>9}"), tone));
        [Cell::new(title, tone)].into_iter().chain(numbers).collect()
    }
}

fn counts(page: &Page, results: &Results) -> String {
    let head = ["SECTION", "    ITEMS", "    TRIED", "   PASSED", "NOT TRIED"];
    let head = head.map(|title| Cell::new(title, Tone::Quiet)).into();
    let sections = page
        .sections
        .iter()
        .map(|section| Count::of(section.items.iter(), results).row(&section.title, Tone::Plain));
    let total = Count::of(page.items(), results).row("all", Tone::Title);
    table(&[head].into_iter().chain(sections).chain([total]).collect::<Vec<_>>())
}

/// What did not pass, section by section.
fn missing(page: &Page, results: &Results) -> String {
    let mut rows = Vec::new();
    for item in page.items() {
        let (tone, why) = match Standing::of(item, results) {
            Standing::Passed => continue,
            Standing::NotRun(_) if results.is_empty() => continue,
            Standing::Failed(names) => (Tone::Bad, format!("failed: {}", names.join(", "))),
            Standing::NotRun(names) => (Tone::Plain, format!("not run: {}", names.join(", "))),
            Standing::NotTried(reason) => (Tone::Quiet, format!("not tried: {reason}")),
        };
        rows.push(vec![Cell::new(item.number.to_string(), Tone::Plain), item.statement.as_str().into()]);
        rows.push(vec!["".into(), Cell::new(why, tone)]);
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "## A. One\n\n| # | Behaviour | Tests |\n|---|---|---|\n| 1 | a | `p::x`, `p::y` |\n\
                        | 2 | b | not tried: too long |\n\n## B. Two\n\n| 3 | c | `conformance::003-case` |\n";

    #[test]
    fn an_item_has_passed_when_all_of_its_tests_have() {
        let page = Page::from_markdown(TEXT, None);
        // (lines of test programs, how 1 and 3 stand, how many have passed)
        let x = || vec!["p::x".to_owned()];
        let not_run = |names: &[&str]| Standing::NotRun(names.iter().map(|&name| name.to_owned()).collect());
        let case = not_run(&["conformance::003-case"]);
        type Row<'a> = (&'a [(&'a str, &'a str)], Standing, Standing, usize);
        let table: [Row<'_>; 5] = [
            (&[], not_run(&["p::x", "p::y"]), case.clone(), 0),
            (&[("p", "test x ... ok")], not_run(&["p::y"]), case.clone(), 0),
            (&[("p", "test x ... ok"), ("p", "test y ... ok")], Standing::Passed, case.clone(), 1),
            (&[("p", "test x ... FAILED"), ("p", "test y ... ok")], Standing::Failed(x()), case.clone(), 0),
            (
                &[
                    ("p", "test x ... ok"),
                    ("p", "test x_by_clsact ... FAILED"),
                    ("differential", "test conformance::podgate_gives_the_expected_verdicts ... ok"),
                ],
                Standing::Failed(x()),
                Standing::Passed,
                1,
            ),
        ];
        for (lines, first, third, passed) in table {
            let mut results = Results::default();
            lines.iter().for_each(|(program, line)| results.note(program, line));
            let standing: Vec<_> = page.items().map(|item| Standing::of(item, &results)).collect();
            assert_eq!(standing, [first, Standing::NotTried("too long".to_owned()), third], "{lines:?}");
            assert_eq!(Count::of(page.items(), &results), Count { items: 3, tried: 2, passed });
        }
        assert!(missing(&page, &Results::default()).contains("not tried: too long"));
    }

    #[test]
    fn each_page_has_each_number_once_and_names_tests_that_exist() {
        for checklist in CHECKLISTS {
            assert_eq!(checklist.problems(workspace::root()).expect("the page can be read"), []);
        }
    }
}
