//! What verbs ask the agent, and how each question is answered.

use std::time::Duration;

use podgate_core::{
    explain::{EndpointRef, Question},
    model::{ObjectName, Uid},
    port_spec::PortSpec,
};
use serde::{Deserialize, Serialize};

use super::{
    BUSY, Later, Server,
    await_pod::AwaitedPod,
    flows::{self, FlowReplies},
    line, names, report, rollout,
    trace::WantedTrace,
};
use crate::{
    api::{FlowFilter, PeerVersion, Reply, Request},
    observe::FlowWindow,
    source::manifests::Change,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Ask {
    /// Answered by [`crate::api::Status`].
    Status,
    /// Answered by a list of [`crate::api::EndpointStatus`].
    Endpoints,
    /// Answered by [`crate::api::PolicyReport`].
    Policies,
    /// Answered by a list of [`crate::api::PodNames`].
    Names {
        /// Only this pod, `namespace/name`, and all that it has learnt.
        #[serde(default)]
        pod: Option<ObjectName>,
    },
    /// Answered by [`crate::api::RolloutReport`].
    Rollout {
        /// Only the policy that is printed so.
        #[serde(default)]
        policy: Option<String>,
    },
    /// Answered by nothing, then by a line of [`crate::api::FlowLine`] for each flow.
    Flows {
        #[serde(default)]
        filter: FlowFilter,
        /// How old the last packet of each may be.
        #[serde(default)]
        since_seconds: Option<u64>,
        /// How old the first packet of each must be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_seconds: Option<u64>,
        /// How many of those that are there.
        #[serde(default)]
        last: Option<usize>,
        /// Go on with what comes.
        #[serde(default)]
        follow: bool,
        /// A pod that the filter names and that neither the cluster nor a flow has is an error.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pod_must_exist: bool,
    },
    /// Answered by [`podgate_core::explain::Explanation`].
    Explain {
        from: EndpointRef,
        to: EndpointRef,
        port: PortSpec,
        /// What is changed in the cluster before the answer.
        #[serde(default, skip_serializing_if = "Change::is_empty")]
        what_if: Change,
    },
    /// Answered by [`crate::api::TraceSetup`]; when who asks has done what that says, and has written a line,
    /// by nothing, then by a line of [`crate::api::TraceLine`] for each packet, and one at the end.
    Trace {
        /// `namespace/name`
        pod: ObjectName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<EndpointRef>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<EndpointRef>,
        /// The number of an IP protocol.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// Packets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
        seconds: u64,
    },
    /// Asked by the CNI plugin. Answered by nothing, once the policies of a pod are enforced at its
    /// interface, or by an error that says what is missing.
    AwaitPod {
        /// `namespace/name`.
        pod: String,
        /// Empty where the container runtime does not say it.
        #[serde(default)]
        uid: String,
        /// The host side.
        interface: String,
        ifindex: u32,
        /// How long to wait.
        milliseconds: u64,
    },
}

impl Server {
    /// One line of JSON for another, and what follows it.
    pub(super) async fn answer(&self, request: &[u8]) -> (String, Option<Later>) {
        let ask = match read_request(request) {
            Ok(ask) => ask,
            Err(error) => return (line(Reply::<()>::Error(error)), None),
        };
        let answer = match ask {
            Ask::Flows { filter, since_seconds, until_seconds, last, follow, pod_must_exist } => {
                let [since, until] = [since_seconds, until_seconds].map(|age| age.map(Duration::from_secs));
                let unknown = filter.pod.clone().filter(|pod| pod_must_exist && !self.has_pod(pod));
                return match (self.flows(filter, FlowWindow { since, until }, last, follow).await, unknown) {
                    (Some(flows), Some(pod)) if flows.past.is_empty() => {
                        let error =
                            format!("no pod {pod}: the cluster does not have it, and no flow here is of it");
                        (line(Reply::<()>::Error(error)), None)
                    }
                    (Some(flows), _) => (line(Reply::Ok(())), Some(Later::FlowReplies(flows))),
                    (None, _) => (line(Reply::<()>::Error("too many follow flows already".into())), None),
                };
            }
            Ask::Trace { pod, from, to, protocol, port, count, seconds } => {
                return match self.trace(&WantedTrace { pod, from, to, protocol, port, count, seconds }) {
                    Ok((setup, replies)) => (line(Reply::Ok(setup)), Some(Later::Trace(Box::new(replies)))),
                    Err(error) => (line(Reply::<()>::Error(format!("{error:#}"))), None),
                };
            }
            Ask::AwaitPod { pod, uid, interface, ifindex, milliseconds } => {
                let wanted = AwaitedPod { pod, uid: Uid::parse(&uid), interface, ifindex };
                return match self.await_pod(wanted, Duration::from_millis(milliseconds)) {
                    Some(wait) => (String::new(), Some(Later::Pod(wait))),
                    None => (line(Reply::<()>::Error("too many wait for pods already".into())), None),
                };
            }
            Ask::Status => match self.full_status().await {
                Some(status) => line(Reply::Ok(status)),
                None => line(Reply::<()>::Error(BUSY.into())),
            },
            Ask::Policies => {
                let hits = self.inputs.hits.newest().await;
                line(Reply::Ok(report::policies(&hits, &self.snapshot().versions)))
            }
            Ask::Rollout { policy } => {
                let snapshot = self.snapshot();
                match self.work(move || rollout::rollout(&snapshot, policy.as_deref())).await {
                    Some(report) => line(Reply::Ok(report)),
                    None => line(Reply::<()>::Error(BUSY.into())),
                }
            }
            Ask::Names { pod } => {
                let (snapshot, source) = (self.snapshot(), self.inputs.names.clone());
                match self.work(move || names::names(&snapshot, &source, pod.as_ref())).await {
                    Some(Ok(names)) => line(Reply::Ok(names)),
                    Some(Err(error)) => line(Reply::<()>::Error(format!("{error:#}"))),
                    None => line(Reply::<()>::Error(BUSY.into())),
                }
            }
            Ask::Endpoints => line(Reply::Ok(report::endpoints(&self.snapshot()))),
            Ask::Explain { from, to, port, what_if } => {
                match self.explain(Question { from, to, port }, what_if).await {
                    Ok(explanation) => line(Reply::Ok(explanation)),
                    Err(error) => line(Reply::<()>::Error(format!("{error:#}"))),
                }
            }
        };
        (answer, None)
    }

    /// `namespace/name`
    fn has_pod(&self, pod: &str) -> bool {
        let name = pod.split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name));
        name.is_some_and(|name| self.snapshot().cluster.pods.contains_key(&name))
    }

    /// `None`: there is no place.
    async fn flows(
        &self,
        filter: FlowFilter,
        window: FlowWindow,
        last: Option<usize>,
        follow: bool,
    ) -> Option<FlowReplies> {
        let place = self.followers.clone().try_acquire_owned().ok()?;
        let (history, wanted) = (self.inputs.flows.clone(), filter.clone());
        let follow_from = move || {
            let (past, live) = history.follow(window);
            (flows::wanted(past, &wanted, last), live)
        };
        let (past, live) = self.work(follow_from).await?;
        Some(FlowReplies { past, live: follow.then_some(live), filter, _place: place })
    }
}

fn read_request(request: &[u8]) -> Result<Ask, String> {
    let peer_version: PeerVersion =
        serde_json::from_slice(request).map_err(|error| format!("not a request: {error}"))?;
    peer_version.check("who asks")?;
    let request: Request<Ask> =
        serde_json::from_slice(request).map_err(|error| format!("not a request: {error}"))?;
    Ok(request.ask)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::PROTOCOL;

    #[test]
    fn requests_have_a_fixed_form() {
        let ask = Ask::Explain {
            from: "x/a".parse().unwrap(),
            to: "node/n1".parse().unwrap(),
            port: "TCP/80".parse().unwrap(),
            what_if: Change::default(),
        };
        let wait = Ask::AwaitPod {
            pod: "x/a".into(),
            uid: "u1".into(),
            interface: "veth1".into(),
            ifindex: 7,
            milliseconds: 5_000,
        };
        for (ask, form) in [
            (
                wait,
                json!({
                    "version": 3, "podgate": "0.9", "verb": "await-pod", "pod": "x/a", "uid": "u1", "interface": "veth1",
                    "ifindex": 7, "milliseconds": 5000,
                }),
            ),
            (Ask::Status, json!({"version": 3, "podgate": "0.9", "verb": "status"})),
            (
                Ask::Rollout { policy: Some("x/p".into()) },
                json!({"version": 3, "podgate": "0.9", "verb": "rollout", "policy": "x/p"}),
            ),
            (
                Ask::Names { pod: Some(ObjectName::new("x", "a")) },
                json!({"version": 3, "podgate": "0.9", "verb": "names", "pod": "x/a"}),
            ),
            (
                Ask::Trace {
                    pod: ObjectName::new("x", "a"),
                    from: Some("node/n1".parse().unwrap()),
                    to: None,
                    protocol: Some(6),
                    port: Some(80),
                    count: None,
                    seconds: 30,
                },
                json!({
                    "version": 3, "podgate": "0.9", "verb": "trace", "pod": "x/a", "from": "node/n1", "protocol": 6,
                    "port": 80, "seconds": 30,
                }),
            ),
            (Ask::Endpoints, json!({"version": 3, "podgate": "0.9", "verb": "endpoints"})),
            (
                ask,
                json!({"version": 3, "podgate": "0.9", "verb": "explain", "from": "x/a", "to": "node/n1", "port": "TCP/80"}),
            ),
        ] {
            let request = Request { version: PROTOCOL, podgate: "0.9".into(), ask };
            assert_eq!(serde_json::to_value(&request).unwrap(), form);
            assert_eq!(serde_json::from_value::<Request<Ask>>(form).unwrap(), request);
        }
    }
}
