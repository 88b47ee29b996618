//! Names of findings that objects want to be ignored, but that do not exist.

use super::{LintFinding, LintName, ObjectNotes};
use crate::printable::printable;

/// Where objects name them.
const FIELD: &str = "metadata.annotations[podgate.io/lint-ignore]";

pub(super) fn find(notes: &ObjectNotes, findings: &mut Vec<LintFinding>) {
    for (object, names) in &notes.ignored {
        for name in names.iter().filter(|name| name.parse::<LintName>().is_err()) {
            findings.push(LintFinding {
                object: object.clone(),
                field: FIELD.into(),
                name: LintName::UnknownIgnoredName,
                message: format!("no finding has the name {}", printable(name)),
            });
        }
    }
}
