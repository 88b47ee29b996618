//! What a command prints beside each agent, line by line as it comes.

use futures::{StreamExt as _, stream};

use super::{Session, progress::ProgressLine};
use crate::fleet::{AT_ONCE, Agent, Failure, Fleet, FleetSurvey, Line, other_versions};

/// Hands on each line with its node. Out: which nodes have answered to the end.
pub(super) async fn read_lines(
    session: &Session,
    fleet: &Fleet,
    command: &[String],
    take: impl Fn(&str, Line<'_>),
) -> FleetSurvey<()> {
    let progress = ProgressLine::of(fleet.nodes.len());
    let mut survey = FleetSurvey::<()>::of(fleet);
    let agents = fleet.nodes.iter().filter_map(|(node, agent)| Some((node, agent.as_ref().ok()?)));
    let take = &take;
    let mut asked = stream::iter(agents)
        .map(|(node, agent)| async move {
            (node, of_node(session, agent, command, |line| take(node, line)).await)
        })
        .buffer_unordered(AT_ONCE);
    let answers = async {
        while let Some((node, result)) = asked.next().await {
            match result {
                Ok(()) => survey.answered += 1,
                Err(failure) => {
                    survey.failures.insert(node.clone(), failure);
                }
            }
            progress.show(survey.total(), fleet.nodes.len());
        }
    };
    let versions = other_versions(&session.executor, fleet, session.deadline);
    let ((), versions) = tokio::join!(answers, versions);
    drop(asked);
    survey.versions = versions;
    progress.clear();
    survey
}

async fn of_node(
    session: &Session,
    agent: &Agent,
    command: &[String],
    take: impl FnMut(Line<'_>),
) -> Result<(), Failure> {
    let read = session.executor.lines(agent, command, take);
    match session.deadline {
        None => read.await,
        Some(deadline) => {
            tokio::time::timeout(deadline, read).await.unwrap_or(Err(Failure::TimedOut(deadline)))
        }
    }
}
