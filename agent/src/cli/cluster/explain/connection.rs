//! A connection with each side from where it is enforced, and what follows for the whole.

use std::collections::BTreeMap;

use podgate_common::Direction;
use podgate_core::{
    explain::{
        AddressPair, DirectionResult, EndpointRef, Explanation, KernelCheck, KnownAddress, Question, Verdict,
        VerdictReason,
    },
    model::ObjectName,
    port_spec::PortSpec,
};
use serde::Serialize;

use super::{
    node_answer::{NodeAnswer, NodeAnswers, NodeQuestion},
    place::PodPlace,
    side::{SideEnforcement, SideReport, side_of},
};
use crate::fleet::Failure;

/// The whole answer. Its JSON is a contract.
#[derive(Debug, Serialize)]
pub(super) struct ConnectionReport {
    /// What happens; `None`: it is not known.
    pub(super) verdict: Option<Verdict>,
    pub(super) from: EndpointRef,
    pub(super) to: EndpointRef,
    pub(super) port: PortSpec,
    /// The answer is for the cluster with a change that is not applied.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) what_if: bool,
    /// Why it may be otherwise, one line each.
    pub(super) uncertain_because: Vec<String>,
    pub(super) pairs: Vec<AddressPair>,
    /// `None`: see `backends`.
    pub(super) egress: Option<SideReport>,
    pub(super) ingress: Option<SideReport>,
    /// Where a service leads, each as a destination of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backends: Option<Vec<ConnectionReport>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learnt: Option<Vec<KnownAddress>>,
    /// By node, whether the tables in its kernel say what its agent says.
    pub(super) kernel: BTreeMap<String, KernelCheck>,
    /// What most of this was taken from.
    #[serde(skip)]
    pub(super) explanation: Option<Explanation>,
}

/// What all parts of one answer are made of.
struct ConnectionFacts<'a> {
    asked: &'a NodeQuestion,
    places: &'a BTreeMap<ObjectName, PodPlace>,
    answers: &'a NodeAnswers,
}

/// The pods at both ends.
pub(super) fn ends(explanation: &Explanation) -> [Option<&ObjectName>; 2] {
    let Explanation { from, to, from_pod, to_pod, .. } = explanation;
    [from.pod().or(from_pod.as_ref()), to.pod().or(to_pod.as_ref())]
}

impl ConnectionReport {
    pub(super) fn of(
        asked: &NodeQuestion,
        places: &BTreeMap<ObjectName, PodPlace>,
        answers: &NodeAnswers,
    ) -> Self {
        let facts = ConnectionFacts { asked, places, answers };
        let mut report = match facts.best(&asked.question) {
            Some(explanation) => facts.connection(explanation),
            None => facts.unanswered(&asked.question),
        };
        report.kernel = answers
            .all()
            .filter_map(|(node, answer)| Some((node.clone(), answer.explanation.kernel.clone()?)))
            .collect();
        report
    }

    /// What follows from both sides.
    fn conclude(&mut self) {
        let sides = [&self.egress, &self.ingress].map(|side| side.as_ref().and_then(|side| side.verdict));
        self.verdict = match sides {
            [Some(Verdict::Deny), _] | [_, Some(Verdict::Deny)] => Some(Verdict::Deny),
            [Some(Verdict::Allow), Some(Verdict::Allow)] => Some(Verdict::Allow),
            [None, _] | [_, None] => None,
        };
        // What is denied for certain on one side is denied, whatever the other says.
        let is_settled = [&self.egress, &self.ingress]
            .into_iter()
            .flatten()
            .any(|side| side.enforcement == SideEnforcement::Enforced && side.verdict == Some(Verdict::Deny));
        for (direction, side) in [(Direction::Egress, &self.egress), (Direction::Ingress, &self.ingress)] {
            let Some(SideReport { enforcement: SideEnforcement::Unknown, because: Some(because), .. }) = side
            else {
                continue;
            };
            if !is_settled {
                self.uncertain_because.push(format!("{direction}: {because}"));
            }
        }
    }
}

impl ConnectionFacts<'_> {
    /// The answer of the source's agent, else of the destination's, else of any.
    fn best(&self, question: &Question) -> Option<&Explanation> {
        let of_pod = |end: &EndpointRef| self.answer_for(end.pod()?);
        let of_ends = [&question.from, &question.to].into_iter().find_map(of_pod);
        let of_address = || {
            let [from, to] = ends(self.answers.explanations().next()?);
            [from, to].into_iter().flatten().find_map(|pod| self.answer_for(pod))
        };
        let best = of_ends.or_else(of_address).map(|answer| &answer.explanation);
        best.or_else(|| self.answers.explanations().next())
    }

    fn answer_for(&self, pod: &ObjectName) -> Option<&NodeAnswer> {
        self.answers.of(self.node_of(pod)?)
    }

    fn node_of(&self, pod: &ObjectName) -> Option<&str> {
        match self.places.get(pod)? {
            PodPlace::OnNode(node) => Some(node),
            PodPlace::HostNetwork(_) | PodPlace::Unscheduled | PodPlace::Finished => None,
        }
    }

    fn connection(&self, explanation: &Explanation) -> ConnectionReport {
        let Explanation {
            from, to, port, pairs, egress, ingress, backends, uncertain_because, learnt, ..
        } = explanation;
        let mut report = ConnectionReport {
            verdict: None,
            from: from.clone(),
            to: to.clone(),
            port: port.clone(),
            what_if: self.asked.change.is_some(),
            uncertain_because: uncertain_because.iter().map(ToString::to_string).collect(),
            pairs: pairs.clone(),
            egress: None,
            ingress: None,
            backends: None,
            learnt: learnt.clone(),
            kernel: BTreeMap::new(),
            explanation: Some(explanation.clone()),
        };
        let leads_nowhere = [egress, ingress].into_iter().any(|side| side.reason == VerdictReason::NoBackend);
        if let Some(backends) = backends.as_ref().filter(|backends| !backends.is_empty()) {
            let backends: Vec<ConnectionReport> =
                backends.iter().map(|backend| self.connection(backend)).collect();
            let verdicts = || backends.iter().map(|backend| backend.verdict);
            report.verdict = if leads_nowhere || verdicts().any(|verdict| verdict == Some(Verdict::Deny)) {
                Some(Verdict::Deny)
            } else {
                verdicts().all(|verdict| verdict.is_some()).then_some(Verdict::Allow)
            };
            for backend in &backends {
                let unknown = backend.uncertain_because.iter();
                let lines = unknown
                    .map(|line| format!("{} -> {} {}: {line}", backend.from, backend.to, backend.port));
                report.uncertain_because.extend(lines);
            }
            report.backends = Some(backends);
            return report;
        }
        let [source, destination] = ends(explanation);
        report.egress = Some(self.side(Direction::Egress, source, explanation));
        report.ingress = Some(self.side(Direction::Ingress, destination, explanation));
        report.conclude();
        // Addresses of a name are not known before they are looked up.
        let is_name = matches!(to, EndpointRef::Name(_));
        if leads_nowhere || (pairs.is_empty() && !is_name) {
            report.verdict = Some(Verdict::Deny);
        }
        report
    }

    /// Where no agent has said anything: what follows from the places of the pods alone.
    fn unanswered(&self, question: &Question) -> ConnectionReport {
        let Question { from, to, port } = question;
        let side = |end: &EndpointRef| match end.pod() {
            Some(pod) => self.place(pod, None),
            None => SideReport::not_enforced(None, None, format!("{end} is no pod, so no policy selects it")),
        };
        let mut report = ConnectionReport {
            verdict: None,
            from: from.clone(),
            to: to.clone(),
            port: port.clone(),
            what_if: self.asked.change.is_some(),
            uncertain_because: Vec::new(),
            pairs: Vec::new(),
            egress: Some(side(from)),
            ingress: Some(side(to)),
            backends: None,
            learnt: None,
            kernel: BTreeMap::new(),
            explanation: None,
        };
        // Whose an address is, and where a service leads, only agents know.
        for end in [from, to] {
            if let EndpointRef::Service(_) | EndpointRef::Address(_) = end {
                report.uncertain_because.push(format!("{end}: no agent says which pods are there"));
            }
        }
        report.conclude();
        report
    }

    fn side(&self, direction: Direction, pod: Option<&ObjectName>, explanation: &Explanation) -> SideReport {
        let quoted = side_of(explanation, direction);
        if let VerdictReason::TranslatedElsewhere | VerdictReason::Masqueraded = quoted.reason {
            return SideReport {
                pod: pod.map(ToString::to_string),
                node: None,
                enforcement: SideEnforcement::Elsewhere,
                because: Some(quoted.reason.to_string()),
                verdict: Some(quoted.verdict),
                policies: Some(quoted.clone()),
                quoted_from: None,
                notes: Vec::new(),
            };
        }
        let Some(pod) = pod else {
            let side = SideReport::not_enforced(None, None, quoted.reason.to_string());
            if quoted.host_endpoint.is_none() {
                return side;
            }
            return SideReport {
                enforcement: SideEnforcement::Enforced,
                because: None,
                verdict: Some(quoted.verdict),
                policies: Some(quoted.clone()),
                notes: vec![
                    "by the node's host endpoint; whether its agent enforces it was not asked".into(),
                ],
                ..side
            };
        };
        self.place(pod, Some((direction, explanation)))
    }

    /// The side of a pod. `quoted`: what some agent says of it.
    fn place(&self, pod: &ObjectName, quoted: Option<(Direction, &Explanation)>) -> SideReport {
        let name = Some(pod.to_string());
        let node = match self.places.get(pod) {
            Some(PodPlace::OnNode(node)) => node,
            Some(PodPlace::HostNetwork(node)) => {
                let of = node.as_ref().map_or_else(|| "a node".to_owned(), Clone::clone);
                let because = format!("it is on the host network of {of}, so no policy selects it");
                return SideReport::not_enforced(name, node.clone(), because);
            }
            Some(PodPlace::Unscheduled) => {
                return SideReport::unknown(name, None, "it is on no node yet".into(), quoted);
            }
            Some(PodPlace::Finished) => {
                return SideReport::unknown(name, None, "it has finished".into(), quoted);
            }
            None => {
                let because = "it is gone, or one of too many: no agent was asked for it";
                return SideReport::unknown(name, None, because.into(), quoted);
            }
        };
        let node_name = Some(node.clone());
        match (self.answers.of(node), self.answers.survey.failures.get(node)) {
            (Some(answer), _) => self.enforced(pod, node, answer, quoted),
            (None, Some(Failure::NoAgent)) => {
                let because =
                    "no agent runs there; only what an earlier one has left in the kernel is in force";
                let policies = quoted.map(|(direction, quoted)| side_of(quoted, direction).clone());
                let quoted_from = policies.is_some().then(|| self.who_said(quoted)).flatten();
                let side = SideReport::not_enforced(name, node_name, because.into());
                SideReport { policies, quoted_from, ..side }
            }
            (None, Some(failure)) => {
                let side = SideReport::unknown(name, node_name, failure.to_string(), quoted);
                SideReport { quoted_from: self.who_said(quoted), ..side }
            }
            (None, None) => SideReport::unknown(name, node_name, "it was not asked".into(), quoted),
        }
    }

    /// The node whose agent gave this answer.
    fn who_said(&self, quoted: Option<(Direction, &Explanation)>) -> Option<String> {
        let (_, quoted) = quoted?;
        let has = |explanation: &Explanation| leg(explanation, quoted).is_some_and(|leg| leg == quoted);
        self.answers.all().find(|(_, answer)| has(&answer.explanation)).map(|(node, _)| node.clone())
    }

    /// The agent of the pod's own node has answered.
    fn enforced(
        &self,
        pod: &ObjectName,
        node: &str,
        answer: &NodeAnswer,
        quoted: Option<(Direction, &Explanation)>,
    ) -> SideReport {
        let name = Some(pod.to_string());
        let own = quoted.and_then(|(direction, quoted)| {
            leg(&answer.explanation, quoted).map(|leg| side_of(leg, direction))
        });
        let Some(own) = own else {
            let because = "its agent does not know this leg of the connection".to_owned();
            return SideReport::unknown(name, Some(node.into()), because, quoted);
        };
        let unenforced = answer.status.unenforced.iter().find(|it| Some(&it.pod) == name.as_ref());
        if let Some(unenforced) = unenforced {
            let because = format!("{}: {}", unenforced.reason, unenforced.detail);
            let side = SideReport::not_enforced(name, Some(node.into()), because);
            return SideReport { policies: Some(own.clone()), ..side };
        }
        if !answer.status.ready {
            let error = answer.status.last_error.as_ref().map(|error| format!(" ({error})"));
            let because = format!("its agent is not ready{}", error.unwrap_or_default());
            let side = SideReport::unknown(name, Some(node.into()), because, quoted);
            return SideReport { policies: Some(own.clone()), verdict: Some(own.verdict), ..side };
        }
        let mut notes = Vec::new();
        let is_asked = answer.explanation.kernel.as_ref().is_some_and(|kernel| kernel.asked > 0);
        // There is none where addresses are not known, and none has a change in it.
        if !is_asked
            && self.asked.change.is_none()
            && quoted.is_some_and(|(_, quoted)| !quoted.pairs.is_empty())
        {
            notes.push(
                "not compared with the tables in its kernel: they change, or no interface of the pod is known"
                    .into(),
            );
        }
        for (other, answer) in self.answers.all().filter(|(other, _)| *other != node) {
            let theirs = quoted.and_then(|(direction, quoted)| {
                leg(&answer.explanation, quoted).map(|leg| side_of(leg, direction))
            });
            if let Some(theirs) = theirs.filter(|theirs| theirs.verdict != own.verdict) {
                let DirectionResult { verdict, reason, .. } = theirs;
                notes.push(format!(
                    "the agent of {other} says {verdict} ({reason}): one of the two has not seen a change yet"
                ));
            }
        }
        SideReport {
            pod: name,
            node: Some(node.into()),
            enforcement: SideEnforcement::Enforced,
            because: None,
            verdict: Some(own.verdict),
            policies: Some(own.clone()),
            quoted_from: None,
            notes,
        }
    }
}

/// The part of an answer that is about the same ends.
fn leg<'a>(explanation: &'a Explanation, wanted: &Explanation) -> Option<&'a Explanation> {
    let ends = |of: &Explanation| (of.from.clone(), of.to.clone(), of.port.clone());
    if ends(explanation) == ends(wanted) && explanation.backends.is_none() == wanted.backends.is_none() {
        return Some(explanation);
    }
    explanation.backends.iter().flatten().find_map(|backend| leg(backend, wanted))
}
