//! What the agents of the nodes in question say, and which do not.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use podgate_core::explain::{Explanation, Question};
use serde::Deserialize;

use super::{super::Session, agent_on};
use crate::{
    api::UnenforcedPod,
    fleet::{AT_ONCE, Agent, Failure, Fleet, FleetSurvey, other_versions, read_answer},
};

/// What each agent is asked.
#[derive(Debug)]
pub(super) struct NodeQuestion {
    pub(super) question: Question,
    /// What is changed in the cluster before the answer, as agents read it.
    pub(super) change: Option<Vec<u8>>,
}

/// Of one agent.
#[derive(Debug)]
pub(super) struct NodeAnswer {
    pub(super) explanation: Explanation,
    pub(super) status: AgentState,
}

/// The part of [`crate::api::Status`] that a verdict depends on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AgentState {
    pub(super) ready: bool,
    pub(super) last_error: Option<String>,
    pub(super) unenforced: Vec<UnenforcedPod>,
}

/// Of all nodes that were asked.
#[derive(Debug)]
pub(super) struct NodeAnswers {
    by_node: BTreeMap<String, NodeAnswer>,
    pub(super) survey: FleetSurvey<()>,
}

impl Default for NodeAnswers {
    fn default() -> Self {
        Self { by_node: BTreeMap::new(), survey: FleetSurvey::of(&Fleet::default()) }
    }
}

impl NodeAnswers {
    /// Asks the agents of more nodes.
    pub(super) async fn ask(&mut self, session: &Session, nodes: BTreeSet<String>, asked: &NodeQuestion) {
        let found = stream::iter(nodes)
            .map(|node| async move { (agent_on(session, &node).await, node) })
            .buffer_unordered(AT_ONCE);
        let nodes = found.map(|(agent, node)| (node, agent)).collect().await;
        let fleet = Fleet { nodes, unlisted: None };
        let agents = fleet.nodes.iter().filter_map(|(node, agent)| Some((node, agent.as_ref().ok()?)));
        let asked = stream::iter(agents)
            .map(|(node, agent)| async move { (node, answer(session, agent, asked).await) })
            .buffer_unordered(AT_ONCE);
        let versions = other_versions(&session.executor, &fleet, session.deadline);
        let (versions, answers) = tokio::join!(versions, asked.collect::<Vec<_>>());
        for (version, nodes) in versions {
            self.survey.versions.entry(version).or_default().extend(nodes);
        }
        for (node, answer) in answers {
            match answer {
                Ok(answer) => {
                    self.survey.answered += 1;
                    self.by_node.insert(node.clone(), answer);
                }
                Err(failure) => self.survey.fail(node, failure),
            }
        }
        self.survey.failures.extend(FleetSurvey::<()>::of(&fleet).failures);
    }

    /// Forgets that they did not answer: others have, whom anyone could have asked instead.
    pub(super) fn excuse(&mut self, nodes: &[String]) {
        for node in nodes {
            self.survey.failures.remove(node);
        }
    }

    pub(super) fn has_asked(&self, node: &str) -> bool {
        self.by_node.contains_key(node) || self.survey.failures.contains_key(node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    pub(super) fn of(&self, node: &str) -> Option<&NodeAnswer> {
        self.by_node.get(node)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &NodeAnswer)> {
        self.by_node.iter()
    }

    pub(super) fn explanations(&self) -> impl Iterator<Item = &Explanation> {
        self.by_node.values().map(|answer| &answer.explanation)
    }

    /// What is wrong with the question, where all agents that could be asked say the same of it.
    pub(super) fn refusal(&self) -> Option<&str> {
        let mut reasons = self.survey.failures.values().map(|failure| match failure {
            Failure::Failed(message) => Some(&**message),
            _ => None,
        });
        let first = reasons.next()??;
        (self.is_empty() && reasons.all(|reason| reason == Some(first))).then_some(first)
    }
}

async fn answer(session: &Session, agent: &Agent, asked: &NodeQuestion) -> Result<NodeAnswer, Failure> {
    let NodeQuestion { question: Question { from, to, port }, change } = asked;
    let explain =
        ["explain".into(), format!("--from={from}"), format!("--to={to}"), format!("--port={port}")];
    let sent = change.as_ref().map(|change| format!("--what-if-stdin={}", change.len()));
    let explain: Vec<String> = explain.into_iter().chain(["-o".into(), "json".into()]).chain(sent).collect();
    let bytes = session.executor.answer(agent, &explain, change.as_deref(), session.deadline).await?;
    let explanation = read_answer(bytes, serde_json::from_value)?;
    let status = ["status", "-o", "json"].map(str::to_owned);
    let bytes = session.executor.output(agent, &status, session.deadline).await?;
    let status = read_answer(bytes, serde_json::from_value)?;
    Ok(NodeAnswer { explanation, status })
}
