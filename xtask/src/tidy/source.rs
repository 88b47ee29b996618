//! Rules for one file, each a function from its text to the lines that break it.

use std::path::Path;

/// A line number, counted from 1, and what is wrong there.
pub(super) type Found = (usize, String);

/// Lines of the longest file, tests counted too.
const LONGEST: usize = 400;

/// Characters of a line; `max_width` in rustfmt.toml.
pub(super) const WIDTH: usize = 110;

/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "misc", "mod"];

/// Words that must not stay, and directories of single machines. In two parts, so that this file does not
/// hold them.
const LEFT_OVERS: [&str; 5] = [
    concat!("to", "do!"),
    concat!("db", "g!"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("TO", "DO"),
];
const MACHINE_PATHS: [&str; 5] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/tm", "p/w/"),
    concat!("/Us", "ers/"),
];

pub(super) fn file_name(file: &Path) -> Option<Found> {
    let name = file.file_stem()?.to_str()?;
    EMPTY_NAMES.contains(&name).then(|| (1, format!("name the file for what is in it, not `{name}`")))
}

pub(super) fn head(text: &str) -> Option<Found> {
    (!text.starts_with("//! ")).then(|| (1, "open the file with `//!`: what it is for".to_owned()))
}

pub(super) fn length(text: &str) -> Option<Found> {
    let lines = text.lines().count();
    (lines > LONGEST).then(|| (LONGEST + 1, format!("{lines} lines; split by noun, at most {LONGEST} each")))
}

/// Comments, which no tool wraps. rustfmt keeps the code within its width, but for text that it cannot break.
pub(super) fn width(text: &str) -> Vec<Found> {
    let lines = text.lines().enumerate();
    let is_wrappable =
        |line: &str| line.trim_start().split_once(' ').is_some_and(|(_, rest)| rest.contains(' '));
    let wide = lines.filter(|(_, line)| {
        line.trim_start().starts_with("//") && line.chars().count() > WIDTH && is_wrappable(line)
    });
    wide.map(|(index, line)| (index + 1, format!("{} characters; wrap at {WIDTH}", line.chars().count())))
        .collect()
}

pub(super) fn left_overs(text: &str) -> Vec<Found> {
    find(text, &LEFT_OVERS, "left over")
}

pub(super) fn machine_paths(text: &str) -> Vec<Found> {
    find(text, &MACHINE_PATHS, "a path of one machine")
}

/// Whether a file holds nothing but tests: `tests.rs`, or below a directory `tests`.
pub(super) fn is_test(file: &Path) -> bool {
    file.with_extension("").components().any(|part| part.as_os_str() == "tests")
}

/// The part of a file before its test module.
pub(super) fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |tests| &text[..tests])
}

fn find(text: &str, words: &[&str], why: &str) -> Vec<Found> {
    let lines = text.lines().enumerate();
    let found = lines.flat_map(|(index, line)| {
        let words = words.iter().filter(move |word| holds_word(line, word));
        words.map(move |word| (index + 1, format!("{why}: `{word}`")))
    });
    found.collect()
}

/// Whether `word` stands in `line` and is not the end of a longer word or path.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_measured_with_its_tests() {
        let code = "//! Head.\n".repeat(LONGEST - 3);
        let tests = "\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(length(&format!("{code}{tests}")), None);
        let found = length(&format!("{code}fn f() {{}}\n{tests}")).expect("one line too many");
        assert_eq!(found.0, LONGEST + 1);
    }

    #[test]
    fn files_of_tests_are_told_by_their_path() {
        for (file, expected) in [
            ("agent/core/src/compiler/tests.rs", true),
            ("agent/core/src/compiler/tests/rows.rs", true),
            ("xtask/tests/namespaces/main.rs", true),
            ("xtask/src/test.rs", false),
        ] {
            assert_eq!(is_test(Path::new(file)), expected, "{file}");
        }
    }

    #[test]
    fn heads_and_names_are_checked() {
        assert_eq!(head("//! What it is for.\n"), None);
        assert!(head("use std::fmt;\n").is_some());
        assert_eq!(file_name(Path::new("agent/core/src/compiler.rs")), None);
        assert!(file_name(Path::new(concat!("agent/core/src/compiler/", "mod.rs"))).is_some());
    }

    #[test]
    fn left_over_words_and_machine_paths_are_found_with_their_line() {
        let text = ["fn f() {", concat!("    to", "do!()"), "}"].join("\n");
        assert_eq!(left_overs(&text), [(2, format!("left over: `{}`", LEFT_OVERS[0]))]);
        assert_eq!(left_overs(concat!("my_db", "g!()")), []);
        assert_eq!(machine_paths(concat!("cd /wo", "rk/main")).len(), 1);
        assert_eq!(machine_paths("actions/checkout, target/release"), []);
    }
}
