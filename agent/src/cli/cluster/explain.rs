//! `podgate cluster explain`: why a connection is allowed or denied, each side by the agent that enforces it.
//!
//! In: the pods of both ends as the API server has them, and the answer of `podgate explain` on their nodes.
//! Out: one verdict. Of each side counts what the agent of its own node says; the agent at the other end
//! knows the same policies, and is quoted where that one does not answer. Where an end is a service or an
//! address, the first answer names the pods there, whose nodes are asked then.
//!
//! With a change, each agent answers for the cluster that it enforces with the change in it. The objects of
//! the cluster stay where they are: who asks needs no right to list them, and what the agents have learnt
//! (addresses of names) and cannot do (pods that are not enforced) stays part of the answer.

mod connection;
mod node_answer;
mod place;
mod side;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures::{StreamExt as _, stream};
use podgate_core::{
    explain::{EndpointRef, Explanation, Question, Verdict},
    model::ObjectName,
    port_spec::PortSpec,
    printable::printable,
};

use self::{
    connection::ConnectionReport,
    node_answer::{NodeAnswers, NodeQuestion},
    place::{PodPlace, node_exists},
};
use super::{
    super::{offline::read_change_of, output::FOUND},
    NoLabels, NoNodes, Session,
};
use crate::{
    api::LONGEST_REQUEST,
    fleet::{self, AT_ONCE, Failure},
};

/// Pods behind a service whose nodes are asked.
const MOST_BACKENDS: usize = 256;

/// Agents that are asked, one after the other, where it is not known yet which pods a connection is about.
const GUIDES: usize = 3;

/// Of a change, in bytes: what is left of a request beside the question.
const LONGEST_CHANGE: usize = LONGEST_REQUEST - (4 << 10);

/// Explain why a connection is allowed or denied, by the agents of both ends
#[derive(Debug, Args)]
#[command(after_help = "\
X and Y are POD, NAMESPACE/POD, svc:SERVICE, NAMESPACE/svc:SERVICE, node/NAME or an address; the address of a pod means \
that pod. Y may also be name:DOMAIN. Without a namespace it is that of -n, or of the context.

Egress is shown from the agent of the source's node, ingress from that of the destination's: its rules, whether the \
tables in its kernel say the same, and whether the pod is enforced. Where nothing enforces an end, the answer says why: \
no agent on its node, a pod on the host network, a pod that cannot be enforced, an address that is no pod's. What \
policies say there is not what happens. An agent that does not answer goes on enforcing what it last knew: its side is \
quoted from the other agent, and the verdict is uncertain.

--what-if answers for the cluster with a change, which is not applied: its objects are added, or replace those of the \
same kind and name. An object with the annotation `podgate.io/what-if: remove`, or with kustomize's `$patch: delete`, \
is removed. It is sent to the agents that are asked, and may have 1 MiB; objects that name no namespace are in that of \
-n, or of the context. For all pairs of pods: `kubectl podgate dump | podgate matrix --manifests - --diff FILE`.

You need to list pods in the namespaces of both ends, in addition to what other verbs need. Exit code 1: the answer is \
uncertain; 3 with --exit-code: the connection is denied; 4: an agent did not answer.

Example:
  kubectl podgate explain --from production/frontend --to development/backend --port TCP/80
  kubectl podgate explain -n production --from frontend --to svc:backend --port 80 --exit-code
  kubectl podgate explain -n production --from frontend --to api --port 80 --what-if new-policy.yaml")]
pub(super) struct ClusterExplainOptions {
    /// Source of the connection
    #[arg(long, value_name = "X")]
    from: String,
    /// Destination of the connection
    #[arg(long, value_name = "Y")]
    to: String,
    /// Port of the destination: [PROTOCOL/]NUMBER or [PROTOCOL/]NAME, of TCP unless it says otherwise; or
    /// ICMP/TYPE, ICMPv6/TYPE/CODE, IP/PROTOCOL
    #[arg(long, value_name = "PORT")]
    port: PortSpec,
    /// File or directory of objects to add, change or remove before answering, `-` for standard input
    /// (repeatable)
    #[arg(long, value_name = "PATH")]
    what_if: Vec<PathBuf>,
    /// Exit with code 3, after the answer, if the connection is denied
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    no_labels: NoLabels,
    #[command(flatten)]
    no_nodes: NoNodes,
}

/// What is known of the pods in question, and what their agents say.
struct ExplainSession<'a> {
    session: &'a Session,
    asked: NodeQuestion,
    places: BTreeMap<ObjectName, PodPlace>,
    answers: NodeAnswers,
}

impl ClusterExplainOptions {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let Self { from, to, port, what_if, exit_code, no_labels, no_nodes } = self;
        ensure!(
            no_nodes.nodes.is_empty()
                && no_labels.selector.is_none()
                && session.agents.nodes.is_empty()
                && session.selector.is_none(),
            "--node and -l choose nothing here: the ends of the connection say which nodes are asked"
        );
        let from = end(session, "--from", &from)?;
        let to = end(session, "--to", &to)?;
        let asked =
            NodeQuestion { question: Question { from, to, port }, change: change(session, &what_if)? };
        let mut search =
            ExplainSession { session, asked, places: BTreeMap::new(), answers: NodeAnswers::default() };
        search.find_named_ends().await?;
        search.ask_known_nodes().await;
        if search.needs_a_guide() {
            search.ask_a_guide().await?;
        }
        // An answer may name pods of other nodes, whose answers name the same ones.
        if search.find_pods_of_answers().await? {
            search.ask_known_nodes().await;
        }
        let ExplainSession { asked, places, answers, .. } = search;
        if let Some(refusal) = answers.refusal() {
            bail!("the agents say: {refusal}");
        }
        let report = ConnectionReport::of(&asked, &places, &answers);
        let (verdict, is_certain) = (report.verdict, report.uncertain_because.is_empty());
        let code = session.conclude(&answers.survey, report, |report, _| text::text(report))?;
        if exit_code && verdict == Some(Verdict::Deny) && is_certain {
            return Ok(FOUND.into());
        }
        if answers.survey.failures.is_empty() {
            ensure!(is_certain, "the answer is uncertain");
        }
        Ok(code)
    }
}

/// As agents read it. `None`: the cluster is as it is.
fn change(session: &Session, paths: &[PathBuf]) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(first) = paths.first() else { return Ok(None) };
    let (change, _) = read_change_of(paths, session.namespace.as_deref().unwrap_or("default"))?;
    ensure!(change.has_objects(), "--what-if {}: the change holds no object", first.display());
    let bytes = change.to_json().context("--what-if")?;
    ensure!(
        bytes.len() <= LONGEST_CHANGE,
        "--what-if: the change has {} bytes as JSON, of which agents take {LONGEST_CHANGE}",
        bytes.len()
    );
    Ok(Some(bytes))
}

/// As `explain` on a node reads it; without a namespace, a pod or a service is in the one that is shown.
fn end(session: &Session, option: &str, text: &str) -> anyhow::Result<EndpointRef> {
    let is_bare =
        !text.contains('/') && !text.starts_with("name:") && text.parse::<std::net::IpAddr>().is_err();
    let parsed = match &session.namespace {
        Some(namespace) if is_bare => format!("{namespace}/{text}").parse(),
        None if is_bare => bail!("{option} {}: -A does not say which namespace is meant", printable(text)),
        Some(_) | None => text.parse(),
    };
    parsed.map_err(|error: podgate_core::explain::BadEndpointRef| anyhow::anyhow!("{option}: {error}"))
}

impl ExplainSession<'_> {
    const fn ends(&self) -> [&EndpointRef; 2] {
        [&self.asked.question.from, &self.asked.question.to]
    }

    /// Looks for the pods and nodes that the question names.
    async fn find_named_ends(&mut self) -> anyhow::Result<()> {
        for end in self.ends().map(Clone::clone) {
            match end {
                EndpointRef::Pod(name) => {
                    let place = PodPlace::find(self.session, &name).await?;
                    let place =
                        place.with_context(|| format!("no pod {name}: the API server does not have it"))?;
                    if let PodPlace::Finished = place {
                        bail!("pod {name} has finished: it opens and takes no connection");
                    }
                    self.places.insert(name, place);
                }
                EndpointRef::Node(name) => {
                    ensure!(
                        node_exists(self.session, &name).await?,
                        "no node {name}: the API server does not have it"
                    );
                }
                EndpointRef::Service(_) | EndpointRef::Name(_) | EndpointRef::Address(_) => {}
            }
        }
        Ok(())
    }

    /// Asks the nodes of pods that are known, unless they were asked before.
    async fn ask_known_nodes(&mut self) {
        let nodes = self.places.values().filter_map(|place| match place {
            PodPlace::OnNode(node) => Some(node.clone()),
            PodPlace::HostNetwork(_) | PodPlace::Unscheduled | PodPlace::Finished => None,
        });
        let nodes: BTreeSet<String> = nodes.filter(|node| !self.answers.has_asked(node)).collect();
        self.answers.ask(self.session, nodes, &self.asked).await;
    }

    /// Only an agent knows where a service leads, and whose an address is.
    fn needs_a_guide(&self) -> bool {
        let is_known = |end: &EndpointRef| match end {
            EndpointRef::Pod(_) | EndpointRef::Node(_) | EndpointRef::Name(_) => true,
            EndpointRef::Service(_) | EndpointRef::Address(_) => false,
        };
        self.answers.is_empty() && !self.ends().into_iter().all(is_known)
    }

    async fn ask_a_guide(&mut self) -> anyhow::Result<()> {
        let fleet = self.session.find(&self.session.agents).await?;
        let healthy =
            fleet.nodes.iter().filter(|(node, agent)| agent.is_ok() && !self.answers.has_asked(node));
        let guides: Vec<String> = healthy.map(|(node, _)| node.clone()).take(GUIDES).collect();
        for guide in &guides {
            self.answers.ask(self.session, BTreeSet::from([guide.clone()]), &self.asked).await;
            if !self.answers.is_empty() {
                self.answers.excuse(&guides);
                break;
            }
        }
        Ok(())
    }

    /// Looks for the pods that the answers are about. False: there are no others.
    async fn find_pods_of_answers(&mut self) -> anyhow::Result<bool> {
        let pods = self.answers.explanations().flat_map(pods).collect::<BTreeSet<ObjectName>>();
        let unknown: Vec<ObjectName> =
            pods.into_iter().filter(|pod| !self.places.contains_key(pod)).take(MOST_BACKENDS).collect();
        if unknown.is_empty() {
            return Ok(false);
        }
        let session = self.session;
        let found = stream::iter(unknown)
            .map(|pod| async move { (PodPlace::find(session, &pod).await, pod) })
            .buffer_unordered(AT_ONCE);
        let mut found = std::pin::pin!(found);
        while let Some((place, pod)) = found.next().await {
            // One that is gone by now has no node that could be asked.
            if let Some(place) = place? {
                self.places.insert(pod, place);
            }
        }
        Ok(true)
    }
}

/// The pods whose policies an answer evaluates.
fn pods(explanation: &Explanation) -> Vec<ObjectName> {
    let ends = connection::ends(explanation).into_iter().flatten().cloned();
    ends.chain(explanation.backends.iter().flatten().flat_map(pods)).collect()
}

/// The agent on a node, within the time that it may take to answer.
async fn agent_on(session: &Session, node: &str) -> Result<fleet::Agent, Failure> {
    let find = fleet::find_on(&session.client, &session.agents.namespace, node);
    match session.deadline {
        None => find.await,
        Some(deadline) => {
            tokio::time::timeout(deadline, find).await.unwrap_or(Err(Failure::TimedOut(deadline)))
        }
    }
}
