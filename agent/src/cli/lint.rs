//! `podgate lint`: likely mistakes in policies, for pipelines.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use podgate_core::{
    lint::{LintFinding, LintName, Severity, lint},
    printable::printable,
};
use serde::Serialize;

use super::{
    offline::{self, ReadingOptions},
    output::{FOUND, Format},
    table::TextTable,
};
use crate::source::{ValidationError, manifests::WrittenObjects};

/// Find likely mistakes in policies
#[derive(Debug, Args)]
#[command(after_help = "\
An error is something that was not understood and has no effect. A warning is probably a mistake: a policy or a \
peer that selects nothing, a misspelt label, a rule that another one makes superfluous, egress without DNS. A note \
may be intended. agent/docs/lint.md lists all findings.

The annotation `podgate.io/lint-ignore: NAME,NAME` on an object silences findings about it.

All findings are shown. Exit code 3: there are some of at least the severity of --severity. Nothing is said of pods \
if the manifests hold none (--allow-empty).

Example:
  podgate lint deploy/
  kubectl podgate dump | podgate lint - --severity error")]
pub(super) struct LintOptions {
    /// Files or directories of objects, `-` for standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The least severity that fails
    #[arg(long, value_enum, default_value_t = FailingSeverity::Warning)]
    severity: FailingSeverity,
    #[command(flatten)]
    reading: ReadingOptions,
}

/// As users write severities.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailingSeverity {
    Error,
    Warning,
    Note,
}

/// The answer.
#[derive(Debug, Serialize)]
struct LintReport {
    /// In the order of files and lines.
    findings: Vec<PlacedFinding>,
    errors: usize,
    warnings: usize,
    notes: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct PlacedFinding {
    /// `None`: no object says it, as of a namespace that is only named.
    file: Option<String>,
    /// Where the object begins.
    line: Option<usize>,
    object: String,
    field: String,
    severity: Severity,
    name: LintName,
    message: String,
}

impl LintOptions {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let Self { paths, severity, reading } = self;
        let (read, written, problems) = offline::read_written(&paths, &reading)?;
        let problems = problems.into_iter().map(|problem| PlacedFinding::of_problem(problem, &written));
        let problems = problems.filter(|it| !written.notes.ignores(&it.object, it.name));
        let findings = lint(&read.cluster, &written.notes).into_iter();
        let placed = problems.chain(findings.map(|finding| PlacedFinding::new(finding, &written))).collect();
        let report = LintReport::of(placed);
        format.print(&report, text)?;
        read.understood(reading.strict)?;
        let fails = report.findings.iter().any(|finding| finding.severity >= severity.into());
        Ok(if fails { FOUND.into() } else { ExitCode::SUCCESS })
    }
}

impl PlacedFinding {
    fn of_problem(problem: ValidationError, written: &WrittenObjects) -> Self {
        let ValidationError { file, object, field, message } = problem;
        let line = written.line(&file, &object);
        let finding = LintFinding { object, field, name: LintName::InvalidObject, message };
        Self::at(finding, Some(file).filter(|file| !file.is_empty()), line)
    }

    fn new(finding: LintFinding, written: &WrittenObjects) -> Self {
        let place = written.place(&finding.object);
        let (file, line) = place.map_or((None, None), |(file, line)| (Some(file.to_owned()), line));
        Self::at(finding, file, line)
    }

    fn at(finding: LintFinding, file: Option<String>, line: Option<usize>) -> Self {
        let LintFinding { object, field, name, message } = finding;
        let own = |text: &str| printable(text).into_owned();
        Self {
            file: file.as_deref().map(own),
            line,
            object: own(&object),
            field: own(&field),
            severity: name.severity(),
            name,
            message: own(&message),
        }
    }

    /// As compilers name places.
    fn place(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            (None, _) => "-".into(),
        }
    }
}

impl LintReport {
    fn of(mut findings: Vec<PlacedFinding>) -> Self {
        // What stands nowhere comes last.
        findings.sort_by(|one, other| (one.file.is_none(), one).cmp(&(other.file.is_none(), other)));
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings, notes) =
            (count(Severity::Error), count(Severity::Warning), count(Severity::Note));
        Self { findings, errors, warnings, notes }
    }
}

fn text(report: &LintReport) -> String {
    let LintReport { findings, errors, warnings, notes } = report;
    if findings.is_empty() {
        return "no findings\n".into();
    }
    let mut table = TextTable::with_header(&["PLACE", "SEVERITY", "NAME", "OBJECT", "FIELD", "FINDING"]);
    for finding in findings {
        let PlacedFinding { file: _, line: _, object, field, severity, name, message } = finding;
        table.row([
            finding.place(),
            severity.to_string(),
            name.to_string(),
            object.clone(),
            field.clone(),
            message.clone(),
        ]);
    }
    format!("{table}errors: {errors}, warnings: {warnings}, notes: {notes}\n")
}

impl From<FailingSeverity> for Severity {
    fn from(severity: FailingSeverity) -> Self {
        match severity {
            FailingSeverity::Error => Self::Error,
            FailingSeverity::Warning => Self::Warning,
            FailingSeverity::Note => Self::Note,
        }
    }
}
