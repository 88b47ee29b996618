//! Release notes: a version's section of the changelog.

use anyhow::{Context, Result, ensure};

const UNRELEASED: &str = "Unreleased";

/// The section of a version, without its heading. `dirty`: what has no version yet serves as well.
pub(super) fn of(changelog: &str, version: &str, dirty: bool) -> Result<String> {
    let unreleased = section(changelog, UNRELEASED);
    match unreleased {
        Some(text) if dirty => return Ok(text),
        Some(text) => ensure!(
            text.trim().is_empty(),
            "the changelog has changes under {UNRELEASED}: give them the version of this release, or give --dirty"
        ),
        None => {}
    }
    section(changelog, version).with_context(|| format!("the changelog has no section {version}"))
}

fn section(changelog: &str, title: &str) -> Option<String> {
    let mut lines = changelog.lines();
    lines.find(|line| *line == format!("## {title}"))?;
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    Some(text.trim_matches('\n').to_owned() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    const LOG: &str =
        "# Changelog\n\n## Unreleased\n\n* New.\n\n## 0.2.0\n\n### Fixed\n\n* That.\n\n## 0.1.0\n\nFirst.\n";

    #[test]
    fn the_notes_are_the_section_of_the_version() {
        let log = LOG.replace("* New.\n\n", "");
        assert_eq!(of(&log, "0.2.0", false).unwrap(), "### Fixed\n\n* That.\n");
        assert_eq!(of(&log, "0.1.0", false).unwrap(), "First.\n");
        let missing = of(&log, "0.3.0", false).unwrap_err().to_string();
        assert!(missing.contains("no section 0.3.0"), "{missing}");
    }

    #[test]
    fn changes_without_a_version_are_not_left_out_in_silence() {
        let refusal = of(LOG, "0.2.0", false).unwrap_err().to_string();
        assert!(refusal.contains("Unreleased"), "{refusal}");
        assert_eq!(of(LOG, "0.2.0", true).unwrap(), "* New.\n");
    }

    #[test]
    fn the_changelog_has_what_a_release_needs() {
        let log = std::fs::read_to_string(workspace::root().join(".github/CHANGELOG.md")).unwrap();
        assert!(!of(&log, env!("CARGO_PKG_VERSION"), true).unwrap().trim().is_empty());
        assert!(section(&log, env!("CARGO_PKG_VERSION")).is_some());
    }
}
