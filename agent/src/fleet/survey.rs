//! One question to all agents at once, and what came of it.
//!
//! Some nodes hang, others have no agent: what is known of the rest is shown, together with the number of
//! nodes that it stands for.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use futures::{StreamExt as _, stream};
use podgate_core::printable::{make_printable, printable};
use serde::Deserialize;
use serde_json::Value;

use super::{Agent, Executor, Failure, Fleet};
use crate::api::RELEASE;

/// Agents that are asked at once.
pub(crate) const AT_ONCE: usize = 64;

/// Names of nodes in one line.
const NAMES: usize = 8;

/// What one agent said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    pub node: String,
    pub pod: String,
    pub said: T,
}

/// What all of them said, in the order of the nodes' names.
#[derive(Clone, Debug)]
pub struct FleetSurvey<T> {
    answers: Vec<Answer<T>>,
    /// How many nodes have answered.
    pub answered: usize,
    pub failures: BTreeMap<String, Failure>,
    /// Versions other than this program's, and the nodes that run them.
    pub versions: BTreeMap<String, Vec<String>>,
    /// Why it is not known which nodes lack an agent.
    pub unlisted: Option<String>,
}

#[derive(Deserialize)]
struct AgentVersion {
    version: String,
}

/// Runs one command beside each agent.
///
/// `read` takes the JSON that it prints, with control characters escaped. `progress` hears how many nodes are
/// done, out of how many.
pub async fn ask<T>(
    executor: &Executor,
    fleet: &Fleet,
    arguments: &[&str],
    deadline: Option<Duration>,
    read: impl Fn(Value) -> serde_json::Result<T>,
    mut progress: impl FnMut(usize, usize),
) -> FleetSurvey<T> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let total = fleet.nodes.len();
    let mut survey = FleetSurvey::of(fleet);
    let agents: Vec<(&String, &Agent)> =
        fleet.nodes.iter().filter_map(|(node, agent)| Some((node, agent.as_ref().ok()?))).collect();
    let answers = async {
        let asked = stream::iter(agents.iter().enumerate()).map(|(index, (_, agent))| {
            let (read, arguments) = (&read, &arguments);
            async move { (index, answer(executor, agent, arguments, deadline, read).await) }
        });
        let mut asked = asked.buffer_unordered(AT_ONCE);
        let mut answers = Vec::new();
        let mut done = total - agents.len();
        progress(done, total);
        while let Some(answer) = asked.next().await {
            answers.push(answer);
            done += 1;
            progress(done, total);
        }
        answers.sort_by_key(|(index, _)| *index);
        answers
    };
    let (versions, answers) = tokio::join!(other_versions(executor, fleet, deadline), answers);
    survey.versions = versions;
    for (index, answer) in answers {
        let (node, Agent { pod, image: _ }) = agents[index];
        match answer {
            Ok(said) => {
                survey.answered += 1;
                survey.answers.push(Answer { node: node.clone(), pod: pod.clone(), said });
            }
            Err(failure) => survey.fail(node, failure),
        }
    }
    survey
}

async fn answer<T>(
    executor: &Executor,
    agent: &Agent,
    arguments: &[String],
    deadline: Option<Duration>,
    read: impl Fn(Value) -> serde_json::Result<T>,
) -> Result<T, Failure> {
    read_answer(executor.output(agent, arguments, deadline).await?, read)
}

/// `read` takes JSON with control characters escaped.
pub(crate) fn read_answer<T>(
    bytes: Vec<u8>,
    read: impl Fn(Value) -> serde_json::Result<T>,
) -> Result<T, Failure> {
    let unreadable = |error: serde_json::Error| Failure::Unreadable {
        version: None,
        error: printable(&error.to_string()).into_owned(),
    };
    let mut value: Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
    drop(bytes);
    make_printable(&mut value);
    read(value).map_err(unreadable)
}

/// Versions other than this program's, and the nodes that run them. One agent of each image is asked.
pub(crate) async fn other_versions(
    executor: &Executor,
    fleet: &Fleet,
    deadline: Option<Duration>,
) -> BTreeMap<String, Vec<String>> {
    let mut by_image: BTreeMap<&str, (Agent, Vec<String>)> = BTreeMap::new();
    for (node, agent) in &fleet.nodes {
        if let Ok(agent) = agent {
            let (_, nodes) = by_image.entry(&agent.image).or_insert_with(|| (agent.clone(), Vec::new()));
            nodes.push(node.clone());
        }
    }
    let one_of_each: Vec<(Agent, Vec<String>)> = by_image.into_values().collect();
    let asked = stream::iter(one_of_each)
        .map(|(agent, nodes)| async move { (version(executor, &agent, deadline).await, nodes) });
    let mut asked = asked.buffer_unordered(AT_ONCE);
    let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some((version, nodes)) = asked.next().await {
        if let Some(version) = version.filter(|version| version != RELEASE) {
            others.entry(version).or_default().extend(nodes);
        }
    }
    others.values_mut().for_each(|nodes| nodes.sort());
    others
}

/// `None`: it does not say.
async fn version(executor: &Executor, agent: &Agent, deadline: Option<Duration>) -> Option<String> {
    let command = ["version", "-o", "json"].map(str::to_owned);
    let bytes = executor.output(agent, &command, deadline).await.ok()?;
    let AgentVersion { version } = serde_json::from_slice(&bytes).ok()?;
    Some(printable(&version).into_owned())
}

impl<T> FleetSurvey<T> {
    /// Before the first answer: nodes without an agent have failed already.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let failed = |(node, agent): (&String, &Result<Agent, Failure>)| {
            agent.as_ref().err().map(|failure| (node.clone(), failure.clone()))
        };
        Self {
            answers: Vec::new(),
            answered: 0,
            failures: fleet.nodes.iter().filter_map(failed).collect(),
            versions: BTreeMap::new(),
            unlisted: fleet.unlisted.clone(),
        }
    }

    /// A node has not answered. Its version, where it is another one, is part of the reason.
    pub(crate) fn fail(&mut self, node: &str, failure: Failure) {
        let failure = match failure {
            Failure::Unreadable { error, .. } => {
                let is_of = |nodes: &[String]| nodes.iter().any(|of| of == node);
                let version = self.versions.iter().find(|(_, nodes)| is_of(nodes));
                Failure::Unreadable { version: version.map(|(version, _)| version.clone()), error }
            }
            failure => failure,
        };
        self.failures.insert(node.to_owned(), failure);
    }

    /// Nodes that have answered this question, and did not answer a further one, have not answered.
    pub(crate) fn lacks<U>(&mut self, other: &FleetSurvey<U>) {
        for (node, failure) in &other.failures {
            if !self.failures.contains_key(node) {
                self.answered = self.answered.saturating_sub(1);
                self.failures.insert(node.clone(), failure.clone());
            }
        }
    }

    pub fn total(&self) -> usize {
        self.answered + self.failures.len()
    }

    /// Hands the answers on; the rest stays.
    pub fn take_answers(&mut self) -> impl Iterator<Item = Answer<T>> + use<T> {
        std::mem::take(&mut self.answers).into_iter()
    }

    /// Which nodes did not answer and why, which run another version, and in the last line how many answered.
    pub fn conclusion(&self) -> String {
        let mut text = version_notes(&self.versions);
        if let Some(why) = &self.unlisted {
            let _ = writeln!(text, "nodes without an agent are not known: {why}");
        }
        let mut by_reason: BTreeMap<&Failure, Vec<&str>> = BTreeMap::new();
        for (node, failure) in &self.failures {
            by_reason.entry(failure).or_default().push(node);
        }
        for (failure, nodes) in by_reason {
            let _ = writeln!(text, "{}: {failure}", names(&nodes));
        }
        let _ = writeln!(text, "{} of {} nodes answered", self.answered, self.total());
        text
    }
}

/// A line for each version other than this program's.
pub(crate) fn version_notes(versions: &BTreeMap<String, Vec<String>>) -> String {
    let note = |(version, nodes): (&String, &Vec<String>)| {
        format!("podgate {version} runs on {}, this is podgate {RELEASE}\n", names(nodes))
    };
    versions.iter().map(note).collect()
}

/// The first few names, and how many there are.
pub(crate) fn names(nodes: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = nodes.iter().take(NAMES).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match nodes.len() {
        0..=1 => shown,
        count @ ..=NAMES => format!("{count} nodes ({shown})"),
        count => format!("{count} nodes ({shown} and {} more)", count - NAMES),
    }
}
