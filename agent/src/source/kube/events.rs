//! Kubernetes Events on policies that were not fully understood, and on policies and Services that exceed a
//! limit, where their authors look: `kubectl describe`.
//!
//! In: the problems of objects. Out: one Event for each such object and each change of its problems, reported
//! by one agent of the cluster, so that a thousand nodes do not say the same thing a thousand times. A report
//! is a courtesy: what cannot be reported is logged, and nothing waits for it.

use std::collections::BTreeMap;

use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use podgate_core::{model::Name, printable::printable};
use tokio::sync::mpsc;

use super::{
    ValidationError,
    decode::ObjectId,
    store::{Noted, ObjectStore},
};

/// In `kubectl get events`.
pub(super) const CONTROLLER: &str = "podgate.io/agent";
const NOT_UNDERSTOOD: &str = "NotFullyUnderstood";
const OVER_LIMIT: &str = "LimitExceeded";
const ACTION: &str = "Decode";

/// Objects that wait to be reported; beyond that their problems stand in the log and in `podgate status`
/// alone.
const WAITING: usize = 256;

/// `note` of an Event may have a kilobyte (validation of events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

#[derive(Debug)]
pub(super) struct ObjectEvents {
    node: Name,
    /// Of each object that has any, the problems that were reported last.
    reported: BTreeMap<ObjectId, Vec<ValidationError>>,
    queue: mpsc::Sender<PendingEvent>,
}

/// What to report about one object.
#[derive(Debug)]
struct PendingEvent {
    object: ObjectId,
    uid: Option<String>,
    reason: &'static str,
    note: String,
}

impl ObjectEvents {
    /// `node`: where this agent runs.
    pub(super) fn new(client: Client, node: Name) -> Self {
        let (queue, pending) = mpsc::channel(WAITING);
        let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(node.to_string()) };
        tokio::spawn(publish(Recorder::new(client, reporter), pending));
        Self { node, reported: BTreeMap::new(), queue }
    }

    /// Tells what is new since it was called last.
    pub(super) fn report(&mut self, store: &ObjectStore) {
        let mut reported = BTreeMap::new();
        for (object, Noted { uid, problems, is_over_limit }) in store.problems() {
            if !object.kind().info().is_policy && !is_over_limit {
                continue;
            }
            let is_new = self.reported.get(&object).is_none_or(|before| *before != problems);
            if is_new && reporting_node(store.nodes(), &object) == Some(&self.node) {
                let pending = PendingEvent {
                    object: object.clone(),
                    uid,
                    reason: reason(is_over_limit),
                    note: note(&problems),
                };
                if self.queue.try_send(pending).is_err() {
                    tracing::debug!(%object, "no Event: too many wait");
                }
            }
            reported.insert(object, problems);
        }
        self.reported = reported;
    }
}

const fn reason(is_over_limit: bool) -> &'static str {
    if is_over_limit { OVER_LIMIT } else { NOT_UNDERSTOOD }
}

/// Which node's agent reports an object: every agent answers the same, and the work is spread over all of
/// them.
fn reporting_node<'a>(nodes: impl Iterator<Item = &'a Name>, object: &ObjectId) -> Option<&'a Name> {
    nodes.min_by_key(|node| mixed(fnv(&format!("{node} {object}"))))
}

/// FNV-1a. Agents of different releases must agree, and the standard library's hash may change between
/// releases.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

async fn publish(recorder: Recorder, mut pending: mpsc::Receiver<PendingEvent>) {
    while let Some(PendingEvent { object, uid, reason, note }) = pending.recv().await {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(note),
            action: ACTION.into(),
            secondary: None,
        };
        let regarding = k8s_openapi::api::core::v1::ObjectReference {
            api_version: object.kind().info().api_versions.first().map(|&version| version.into()),
            kind: Some(object.kind().info().name.to_owned()),
            namespace: object.namespace().map(ToString::to_string),
            name: Some(object.name().to_string()),
            uid,
            ..Default::default()
        };
        if let Err(error) = recorder.publish(&event, &regarding).await {
            tracing::warn!(%object, error = format!("{:#}", anyhow::Error::from(error)), "no Event");
        }
    }
}

/// The problems, one a line, cut where there is no more room.
fn note(problems: &[ValidationError]) -> String {
    let lines = problems.iter().map(|ValidationError { field, message, .. }| match field.is_empty() {
        true => printable(message).into_owned(),
        false => printable(&format!("{field}: {message}")).into_owned(),
    });
    let mut note = lines.collect::<Vec<_>>().join("\n");
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE - ELLIPSIS.len()).rev().find(|end| note.is_char_boundary(*end));
        note.truncate(end.unwrap_or(0));
        note.push_str(ELLIPSIS);
    }
    note
}

const ELLIPSIS: &str = "…";

/// The last step of MurmurHash3: FNV-1a alone hardly mixes the first bytes into the order of the results.
const fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::decode::Kind;
    use podgate_core::model::ObjectName;

    #[test]
    fn one_node_speaks_for_a_policy_and_all_share_the_work() {
        let nodes: Vec<Name> = ["n1", "n2", "n3", "n4"].map(Name::from).into();
        let mut spoken = BTreeMap::new();
        for number in 0..400 {
            let policy =
                ObjectId::of_namespace(Kind::NetworkPolicy, ObjectName::new("x", number.to_string()));
            let chosen = reporting_node(nodes.iter(), &policy).unwrap();
            assert_eq!(reporting_node(nodes.iter().rev(), &policy), Some(chosen));
            *spoken.entry(chosen).or_insert(0) += 1;
        }
        assert!(spoken.len() == 4 && spoken.values().all(|count| *count > 50), "{spoken:?}");
        assert_eq!(reporting_node([].iter(), &ObjectId::of_cluster(Kind::Node, "n".into())), None);
    }

    #[test]
    fn the_hash_is_fnv_1a_in_every_release() {
        // From the reference implementation's test vectors.
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(fnv(text), hash, "{text:?}");
        }
    }

    #[test]
    fn a_note_has_a_line_for_each_problem_and_no_more_than_a_kilobyte() {
        let problem = |field: &str, message: &str| ValidationError {
            file: String::new(),
            object: "NetworkPolicy x/p".into(),
            field: field.into(),
            message: message.into(),
        };
        let problems = [problem("spec.ingress[0]", "bad"), problem("", "worse")];
        assert_eq!(note(&problems), "spec.ingress[0]: bad\nworse");
        let hostile = note(&[problem("spec.a\u{1b}[31m", "a\nforged line")]);
        assert!(!hostile.contains(['\u{1b}', '\n']), "{hostile:?}");
        let long = note(&[problem("spec", &"ü".repeat(1000))]);
        assert!(long.len() <= LONGEST_NOTE && long.ends_with("üü…"), "{}", long.len());
    }
}
