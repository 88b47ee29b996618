//! Manifests that a verb reads once, without an agent, and what its answer is worth.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use podgate_core::model::{Cluster, Name};
use serde::Serialize;

use super::output::say;
use crate::source::{
    ClusterSnapshot, Unread, ValidationError,
    manifests::{self, Change, ReadOptions, WrittenObjects},
};

/// How manifests are read, and how much of them must be understood.
#[derive(Clone, Debug, Args)]
pub(super) struct ReadingOptions {
    /// Namespace of objects that do not name one [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Accept manifests without any pod, and a path without any object
    #[arg(long)]
    allow_empty: bool,
    /// Exit with code 1, after the answer, if anything was not fully understood
    #[arg(long)]
    pub(super) strict: bool,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Manifests {
    pub(super) cluster: Cluster,
    /// Objects, and files, that were not fully understood.
    faulty: usize,
    unread: Vec<Unread>,
}

/// An answer, and why it may be another one. As JSON a field beside those of the answer, if there is anything
/// to say.
#[derive(Debug, Serialize)]
pub(super) struct OfflineAnswer<T> {
    #[serde(flatten)]
    pub(super) answer: T,
    /// Policies that could not be read and may change the answer, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uncertain: Vec<String>,
}

/// What is changed in a cluster before the answer, and how many objects of it were not fully understood. Each
/// thing in it that is wrong is one line on stderr.
///
/// # Errors
///
/// When a part of it cannot be read, when it stands on standard input as the manifests do, and, unless that
/// is meant, when it changes nothing: what should have written it may have failed.
pub(super) fn read_change(
    paths: &[PathBuf],
    manifests: &[PathBuf],
    reading: &ReadingOptions,
) -> anyhow::Result<(Change, usize)> {
    if [paths, manifests].iter().all(|paths| paths.iter().any(|path| path == Path::new("-"))) {
        bail!("standard input can be read only once");
    }
    let (change, changed) = read_change_of(paths, reading.namespace())?;
    if let Some(path) = paths.first().filter(|_| !change.has_objects() && !reading.allow_empty) {
        let path = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        bail!("{path}: the change holds no object (--allow-empty if that is meant)");
    }
    Ok((change, changed))
}

/// The same, whether it changes anything or not. `namespace`: of objects that name none.
///
/// # Errors
///
/// When a part of it cannot be read.
pub(super) fn read_change_of(paths: &[PathBuf], namespace: &str) -> anyhow::Result<(Change, usize)> {
    let (change, problems) = Change::read_in(paths, Some(namespace))?;
    Ok((change, print_problems(&problems)))
}

/// The same, as `podgate cluster explain` sends it on standard input.
///
/// # Errors
///
/// When it ends before `length` bytes, and as [`read_change_of`].
pub(super) fn read_sent_change(length: u64) -> anyhow::Result<(Change, usize)> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(length).read_to_end(&mut bytes).context("standard input")?;
    ensure!(read as u64 == length, "standard input ended after {read} of {length} bytes");
    let (change, problems) = Change::of_json(&bytes)?;
    Ok((change, print_problems(&problems)))
}

/// The cluster that the files describe. Each object that is not understood is one line on stderr, then what
/// was read.
///
/// # Errors
///
/// When a path is not there, and, unless that is meant, when one holds no object, or all of them no pod.
pub(super) fn read(paths: &[PathBuf], reading: &ReadingOptions) -> anyhow::Result<Manifests> {
    all_exist(paths)?;
    let (snapshot, problems) = without_missing(manifests::read_with(paths, reading.to_read()));
    print_problems(&problems);
    Manifests::of(snapshot, &problems, reading)
}

/// The same with how the objects are written. What is not understood is an answer here, and not printed.
///
/// # Errors
///
/// As [`read`].
pub(super) fn read_written(
    paths: &[PathBuf],
    reading: &ReadingOptions,
) -> anyhow::Result<(Manifests, WrittenObjects, Vec<ValidationError>)> {
    all_exist(paths)?;
    let (snapshot, written) = manifests::read_written(paths, reading.to_read());
    let (snapshot, problems) = without_missing(snapshot);
    Ok((Manifests::of(snapshot, &problems, reading)?, written, problems))
}

fn all_exist(paths: &[PathBuf]) -> anyhow::Result<()> {
    for path in paths.iter().filter(|path| *path != Path::new("-")) {
        fs::metadata(path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The problems, without the missing inputs: these become the error.
fn without_missing(mut snapshot: ClusterSnapshot) -> (ClusterSnapshot, Vec<ValidationError>) {
    let problems = std::mem::take(&mut snapshot.problems).into_iter();
    let problems = problems.filter(|problem| !snapshot.missing.contains(problem)).collect();
    (snapshot, problems)
}

/// Those that have pods.
pub(super) fn namespaces(cluster: &Cluster) -> BTreeSet<Name> {
    cluster.pods.keys().map(|pod| pod.namespace.clone()).collect()
}

/// Out: how many objects, and files, they are about.
fn print_problems(problems: &[ValidationError]) -> usize {
    for problem in problems {
        say(format_args!("{problem}\n"));
    }
    count_objects(problems)
}

/// How many objects, and files, problems are about.
fn count_objects(problems: &[ValidationError]) -> usize {
    let objects: BTreeSet<_> = problems.iter().map(|problem| (&problem.file, &problem.object)).collect();
    objects.len()
}

/// How many objects there are, of each kind also that there are none: what a dump left out is seen here.
fn counted(cluster: &Cluster) -> String {
    let Cluster { namespaces, pods, policies, cluster_policies, calico, nodes, services, slices } = cluster;
    let calico = calico.policies().count();
    let kinds = [
        ("pods", pods.len()),
        ("namespaces", namespaces.len()),
        ("nodes", nodes.len()),
        ("NetworkPolicies", policies.len()),
        ("cluster-wide policies", cluster_policies.len()),
        ("services", services.len()),
        ("EndpointSlices", slices.len()),
    ];
    let of_calico = (calico > 0).then_some(("policies of Calico's", calico));
    let kinds: Vec<(&str, usize)> = kinds.into_iter().chain(of_calico).collect();
    let all: usize = kinds.iter().map(|(_, count)| count).sum();
    let each: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("{all} objects: {}", each.join(", "))
}

/// What makes a strict answer fail.
pub(super) fn faulty(objects: usize) -> anyhow::Error {
    anyhow!("objects that were not fully understood: {objects}")
}

impl ReadingOptions {
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    fn to_read(&self) -> ReadOptions {
        ReadOptions { namespace: Some(self.namespace().into()), allow_empty: self.allow_empty }
    }
}

impl Manifests {
    /// Says what was read.
    fn of(
        snapshot: ClusterSnapshot,
        problems: &[ValidationError],
        reading: &ReadingOptions,
    ) -> anyhow::Result<Self> {
        let ClusterSnapshot {
            cluster,
            problems: _,
            missing,
            unread,
            lacking: _,
            cluster_id: _,
            policy_objects: _,
        } = snapshot;
        let faulty = count_objects(problems);
        say(format_args!("read {}; {faulty} with problems\n", counted(&cluster)));
        if let Some(missing) = missing.into_iter().next() {
            return Err(missing.into());
        }
        if cluster.pods.is_empty() && !reading.allow_empty {
            bail!(
                "the manifests hold no pod, so there is nothing to answer about (--allow-empty if that is intended)"
            );
        }
        Ok(Self { cluster: Arc::unwrap_or_clone(cluster), faulty, unread })
    }

    /// Fails if all must be understood, and something was not. To be asked after the answer was printed.
    pub(super) fn understood(&self, is_strict: bool) -> anyhow::Result<()> {
        match self.faulty {
            objects @ 1.. if is_strict => Err(faulty(objects)),
            _ => Ok(()),
        }
    }

    /// `namespaces`: those of the pods that the answer is about.
    pub(super) fn answer<T>(&self, answer: T, namespaces: &BTreeSet<Name>) -> OfflineAnswer<T> {
        let may_change = |unread: &&Unread| match &unread.namespace {
            Some(namespace) => namespaces.contains(namespace),
            None => true,
        };
        let uncertain = self.unread.iter().filter(may_change).map(|unread| unread.problem.to_string());
        OfflineAnswer { answer, uncertain: uncertain.collect() }
    }

    /// To be asked after the answer was printed. `changed`: objects of a change that were not fully
    /// understood.
    ///
    /// # Errors
    ///
    /// When the answer is uncertain, and, if all must be understood, when anything was not.
    pub(super) fn verdict<T>(
        &self,
        answer: &OfflineAnswer<T>,
        changed: usize,
        is_strict: bool,
    ) -> anyhow::Result<()> {
        if !answer.uncertain.is_empty() {
            let count = answer.uncertain.len();
            bail!(
                "the answer is uncertain: objects that could not be read, and are or may be policies: {count}"
            );
        }
        let faulty = self.faulty + changed;
        if is_strict && faulty > 0 {
            return Err(self::faulty(faulty));
        }
        Ok(())
    }
}

impl<T> OfflineAnswer<T> {
    /// What people see before the answer.
    pub(super) fn caution(&self) -> String {
        let lines =
            self.uncertain.iter().map(|line| format!("UNCERTAIN, a policy could not be read: {line}\n"));
        lines.collect()
    }
}
