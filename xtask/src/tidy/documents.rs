//! Rules for documents: the README is short, links lead somewhere, and lines keep to the width of the code.
//!
//! In: the text of a Markdown file and what else is in the repository. Out: the lines that break a rule.
//! Tables, fenced blocks, headings and lone images cannot be wrapped, so their lines may be longer. Links to
//! other hosts are not followed.

use std::{fs, path::Path};

use super::source::{Found, WIDTH};

/// The page that strangers read first, and its lines.
const README: &str = "README.md";
const README_LINES: usize = 180;

/// Checks one document by its path below `root`.
pub(super) fn check(root: &Path, file: &Path, text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = length(file, text).into_iter().collect();
    let lines = prose(text);
    found.extend(lines.iter().filter(|(_, line)| is_too_wide(line)).map(|(number, line)| {
        (*number, format!("{} characters; wrap the line at {WIDTH}", line.chars().count()))
    }));
    for (number, line) in lines {
        let broken = links(line).into_iter().filter_map(|link| broken(root, file, text, link));
        found.extend(broken.map(|problem| (number, problem)));
    }
    found
}

fn length(file: &Path, text: &str) -> Option<Found> {
    let lines = text.lines().count();
    (file == Path::new(README) && lines > README_LINES).then(|| {
        (README_LINES + 1, format!("{lines} lines; move details to agent/docs, below {README_LINES}"))
    })
}

/// The lines outside fenced blocks, counted from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    });
    lines.map(|(index, line)| (index + 1, line)).collect()
}

fn is_too_wide(line: &str) -> bool {
    let cannot_be_wrapped = ["|", "#", "![", "<"].iter().any(|start| line.starts_with(start));
    // A word of its own, such as a link.
    let is_one_word = !line.trim().contains(' ');
    line.chars().count() > WIDTH && !cannot_be_wrapped && !is_one_word
}

/// Targets of `[text](target)` in a line, without those in code.
fn links(line: &str) -> Vec<&str> {
    let parts = line.split("](").skip(1);
    let before = line.match_indices("](").map(|(at, _)| line[..at].matches('`').count());
    let targets = parts.zip(before).filter(|(_, ticks)| ticks % 2 == 0);
    targets.filter_map(|(part, _)| part.split_once(')').map(|(target, _)| target)).collect()
}

/// What is wrong with a link, if it leads nowhere.
fn broken(root: &Path, file: &Path, text: &str, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = root.join(file).parent()?.join(path);
    if !path.is_empty() && !target.exists() {
        return Some(format!("the link `{link}` leads to no file"));
    }
    let anchor = anchor?;
    let there =
        if path.is_empty() { text.to_owned() } else { fs::read_to_string(target).unwrap_or_default() };
    let headings = prose(&there).into_iter().filter(|(_, line)| line.starts_with('#'));
    let found = headings.map(|(_, line)| anchor_of(line)).any(|heading| heading == anchor);
    (!found).then(|| format!("the link `{link}` leads to no heading"))
}

/// The anchor that hosts of code give to a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    /// A document at the top of the repository.
    fn found(text: &str) -> Vec<Found> {
        check(workspace::root(), Path::new("PAGE.md"), text)
    }

    #[test]
    fn readme_has_at_most_so_many_lines() {
        let lines = "line\n".repeat(README_LINES);
        assert_eq!(length(Path::new(README), &lines), None);
        let long = format!("{lines}one more\n");
        assert_eq!(length(Path::new(README), &long).map(|(line, _)| line), Some(README_LINES + 1));
        assert_eq!(length(Path::new("xtask/README.md"), &long), None);
    }

    #[test]
    fn prose_keeps_to_the_width_and_what_cannot_be_wrapped_need_not() {
        let wide = "word ".repeat(30);
        for (text, lines) in [
            (wide.clone(), vec![1]),
            (format!("ok\n\n* {wide}"), vec![3]),
            (format!("| {wide}|"), vec![]),
            (format!("```text\n{wide}\n```"), vec![]),
            (format!("```text\n```\n{wide}"), vec![3]),
            (format!("# {wide}"), vec![]),
            ("x".repeat(200), vec![]),
        ] {
            let numbers: Vec<usize> = found(&text).into_iter().map(|(line, _)| line).collect();
            assert_eq!(numbers, lines, "{text}");
        }
    }

    #[test]
    fn links_lead_to_files_and_headings_that_exist() {
        for (text, is_broken) in [
            ("[a](README.md) and [b](agent/docs)", false),
            ("[a](README.md), [b](NOWHERE.md)", true),
            ("[a](https://example.org/NOWHERE.md)", false),
            ("`[a](NOWHERE.md)`", false),
            ("```\n[a](NOWHERE.md)\n```", false),
            ("# The `first` one, here\n\n[a](#the-first-one-here)", false),
            ("# One\n\n[a](#two)", true),
            ("[a](agent/docs/threat-model.md#who-attacks)", false),
            ("[a](agent/docs/threat-model.md#who-wins)", true),
        ] {
            assert_eq!(!found(text).is_empty(), is_broken, "{text}: {:?}", found(text));
        }
    }
}
