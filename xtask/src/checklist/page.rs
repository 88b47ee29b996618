//! The page itself: a Markdown file with one table per section and one row per behaviour.
//!
//! In: the text. Out: sections with their items, each with the tests that show it or the reason why there is
//! none; and the lines that do not follow the form `| NUMBER | STATEMENT | TESTS |`.

use std::collections::BTreeMap;

/// A line number, counted from 1, and what is wrong there.
pub(super) type Found = (usize, String);

/// The highest number there can be.
const HIGHEST: u16 = 999;

#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) sections: Vec<Section>,
    pub(super) problems: Vec<Found>,
}

#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) items: Vec<Item>,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) number: u16,
    pub(super) statement: String,
    pub(super) shown: Shown,
    pub(super) line: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Full names of tests, at least one.
    By(Vec<String>),
    /// The reason why no test does.
    NotTried(String),
}

impl Page {
    /// Each number from 1 to `last` must be there once; without a `last`, each up to the highest one.
    pub(super) fn from_markdown(text: &str, last: Option<u16>) -> Self {
        let mut page = Self::default();
        let mut lines = BTreeMap::new();
        // A table of attackers or of words is no list of behaviours: only those that begin with a number are.
        let mut table = None;
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            if let Some(title) = text.strip_prefix("## ") {
                page.sections.push(Section { title: title.to_owned(), items: Vec::new() });
            }
            if !text.starts_with('|') {
                table = None;
            }
            let Some(row) = text.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else { continue };
            let is_list =
                *table.get_or_insert(row.starts_with(|first: char| first == '#' || first.is_ascii_digit()));
            if !is_list || row.starts_with("# |") {
                continue;
            }
            match (item(row, line), page.sections.last_mut()) {
                (Ok(item), Some(section)) => {
                    if let Some(earlier) = lines.insert(item.number, line) {
                        page.problems.push((line, format!("{} stands in line {earlier} too", item.number)));
                    }
                    section.items.push(item);
                }
                (Ok(_), None) => page.problems.push((line, "a row before the first section".to_owned())),
                (Err(why), _) => page.problems.push((line, why)),
            }
        }
        let highest = lines.keys().max().copied().unwrap_or_default();
        let last = last.unwrap_or(highest);
        let missing = (1..=last).filter(|number| !lines.contains_key(number));
        page.problems.extend(missing.map(|number| (1, format!("number {number} is missing"))));
        if highest > last {
            page.problems.push((lines[&highest], format!("number {highest} is above {last}")));
        }
        page
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.sections.iter().flat_map(|section| &section.items)
    }
}

fn item(row: &str, line: usize) -> Result<Item, String> {
    let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
    let [number, statement, shown] = cells[..] else {
        return Err(format!("{} cells in the place of 3", cells.len()));
    };
    let number = number.parse().ok().filter(|number| (1..=HIGHEST).contains(number));
    let number = number.ok_or_else(|| format!("a row starts with a number from 1 to {HIGHEST}"))?;
    if statement.is_empty() {
        return Err(format!("{number} says nothing"));
    }
    let shown = Shown::from_cell(shown).map_err(|why| format!("{number}: {why}"))?;
    Ok(Item { number, statement: statement.to_owned(), shown, line })
}

impl Shown {
    fn from_cell(text: &str) -> Result<Self, &'static str> {
        if let Some(reason) = text.strip_prefix("not tried: ") {
            return Ok(Self::NotTried(reason.to_owned()));
        }
        let name = |part: &str| Some(part.trim().strip_prefix('`')?.strip_suffix('`')?.to_owned());
        let names: Option<Vec<String>> = text.split(',').map(name).collect();
        names.map(Self::By).ok_or("give names of tests, each in ``, or `not tried: ` and the reason")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_tests_or_a_reason() {
        for (row, expected) in [
            ("1 | a | `x::y`", Some(Shown::By(vec!["x::y".to_owned()]))),
            ("247 | a | `x::y`, `z::w`", Some(Shown::By(vec!["x::y".to_owned(), "z::w".to_owned()]))),
            ("2 | a | not tried: too long", Some(Shown::NotTried("too long".to_owned()))),
            ("0 | a | `x::y`", None),
            ("1000 | a | `x::y`", None),
            ("1 |  | `x::y`", None),
            ("1 | a | later", None),
            ("1 | a", None),
            ("1 | a | ", None),
        ] {
            assert_eq!(item(row, 7).ok().map(|item| item.shown), expected, "{row}");
        }
    }

    #[test]
    fn numbers_that_are_double_or_missing_are_found() {
        const LAST: u16 = 247;
        let rows: String = (1..=LAST).map(|number| format!("| {number} | a | `x::y` |\n")).collect();
        let page = |rows: &str| Page::from_markdown(&format!("# Page\n\n## A. One\n\n{rows}"), Some(LAST));
        assert_eq!(page(&rows).problems, []);
        assert_eq!(page(&rows).items().count(), usize::from(LAST));
        assert_eq!(page(&format!("{rows}| 3 | b | `x::y` |\n")).problems.len(), 1);
        assert_eq!(page(&rows.replace("| 30 |", "| 31 |")).problems.len(), 2);
        assert_eq!(page(&format!("{rows}| 248 | b | `x::y` |\n")).problems.len(), 1);
        assert_eq!(Page::from_markdown(&rows, Some(LAST)).problems.len(), 2 * usize::from(LAST));
        let open = |rows: &str| Page::from_markdown(&format!("## A. One\n\n{rows}"), None).problems.len();
        assert_eq!([open(&rows), open(&rows.replace("| 30 |", "| 31 |"))], [0, 2]);
        assert_eq!(open("| who | what |\n|---|---|\n| 7 | nothing |\n"), 0);
    }
}
