//! How an object is written, beside what a cluster keeps of it: for `lint`.
//!
//! In: the object as JSON, and what was read of it. Out: where it stands, what it wants to be ignored, and
//! what has no effect on any verdict. Nothing is reported here: what is wrong with it has been.

use std::collections::BTreeSet;

use podgate_common::{Direction, Protocol};
use podgate_core::{
    model::ObjectName,
    name_check::{DnsPolicy, PodDns},
};
use serde_json::Value;

use super::{Decoded, port};

/// One object of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenObject {
    /// As faults name it.
    pub(crate) label: String,
    /// As in `NetworkPolicy shop/web`; `None`: it could not be read.
    pub(crate) object: Option<String>,
    /// Counted from 1; 0: not known.
    pub(crate) line: usize,
    /// Findings that it does not want to hear of, by their names.
    pub(crate) ignored: Vec<String>,
    pub(crate) part: WrittenPart,
}

/// What only some kinds say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WrittenPart {
    /// Directions with a list of rules that `policyTypes` leaves out.
    Policy(ObjectName, BTreeSet<Direction>),
    /// Ports that containers declare, those without a name too, and what it says of its resolvers.
    Pod(ObjectName, BTreeSet<(Protocol, u16)>, Option<PodDns>),
    Other,
}

/// The annotation that names findings, separated by commas.
const IGNORED: &str = "podgate.io/lint-ignore";

impl WrittenObject {
    /// Of what could not be read.
    pub(crate) const fn unknown(label: String, line: usize) -> Self {
        Self { label, object: None, line, ignored: Vec::new(), part: WrittenPart::Other }
    }

    pub(super) fn of(value: &Value, decoded: Option<&Decoded>, label: String, line: usize) -> Self {
        let part = match decoded {
            Some(Decoded::Policy(policy)) => {
                let is_given = |direction: Direction| {
                    value
                        .get("spec")
                        .and_then(|spec| spec.get(direction.name()))
                        .is_some_and(|it| !it.is_null())
                };
                let left_out =
                    |direction: &Direction| policy.rules(*direction).is_none() && is_given(*direction);
                let left_out = Direction::ALL.into_iter().filter(left_out).collect();
                WrittenPart::Policy(policy.name.clone(), left_out)
            }
            Some(Decoded::Pod(pod)) => WrittenPart::Pod(pod.name.clone(), container_ports(value), dns(value)),
            Some(
                Decoded::Namespace(..)
                | Decoded::Node(..)
                | Decoded::FinishedPod(_)
                | Decoded::ClusterPolicy(_)
                | Decoded::Service(_)
                | Decoded::UnservedService(_)
                | Decoded::Slice(_)
                | Decoded::UnservedSlice(_)
                | Decoded::Tier(..)
                | Decoded::CalicoPolicy(..)
                | Decoded::NetworkSet(..)
                | Decoded::HostEndpoint(..)
                | Decoded::ServiceAccount(..)
                | Decoded::Removed(_),
            )
            | None => WrittenPart::Other,
        };
        let object = decoded.map(|decoded| decoded.id().to_string());
        Self { label, object, line, ignored: ignored(value), part }
    }
}

fn ignored(value: &Value) -> Vec<String> {
    let annotations = value.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let names = match annotations.and_then(|annotations| annotations.get(IGNORED)) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::String(text)) => text.clone(),
        // It names no finding, and is reported as such.
        Some(other) => return vec![other.to_string()],
    };
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Of the containers that live as long as the pod.
fn container_ports(value: &Value) -> BTreeSet<(Protocol, u16)> {
    let containers = |list: &str| {
        let containers = value.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        containers.into_iter().flatten()
    };
    let sidecars = containers("initContainers").filter(|container| container["restartPolicy"] == "Always");
    let ports = containers("containers")
        .chain(sidecars)
        .filter_map(|container| container.get("ports").and_then(Value::as_array))
        .flatten();
    let port = |port: &Value| {
        let number = port.get("containerPort").and_then(Value::as_u64)?;
        Some((
            port::named_protocol(port.get("protocol").and_then(Value::as_str))?,
            u16::try_from(number).ok()?,
        ))
    };
    ports.filter_map(port).collect()
}

/// `None`: as a pod that says nothing.
fn dns(value: &Value) -> Option<PodDns> {
    let spec = value.get("spec")?;
    let policy = match spec.get("dnsPolicy").and_then(Value::as_str) {
        Some("Default") => DnsPolicy::Node,
        Some("None") => DnsPolicy::Listed,
        Some(_) | None => DnsPolicy::Cluster,
    };
    let servers = spec.pointer("/dnsConfig/nameservers").and_then(Value::as_array).into_iter().flatten();
    let nameservers: Vec<String> = servers.filter_map(Value::as_str).map(str::to_owned).collect();
    let says_nothing = policy == DnsPolicy::Cluster && nameservers.is_empty();
    (!says_nothing).then_some(PodDns { policy, nameservers })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::*, *};

    fn written(value: &Value) -> WrittenObject {
        let place = ObjectLocation { origin: "a.yaml".into(), position: "document 1".into() };
        let contents = Decoder::default().keeping_written().decode_at(value, &place, &ObjectLines::at(7));
        contents.written.into_iter().next().unwrap()
    }

    fn policy(metadata: &Value, spec: &Value) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
    }

    #[test]
    fn directions_that_policy_types_leave_out_are_noted() {
        for (spec, expected) in [
            (json!({"policyTypes": ["Ingress"], "egress": [{}]}), vec![Direction::Egress]),
            (json!({"policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]}), vec![Direction::Ingress]),
            (json!({"egress": []}), vec![Direction::Egress]),
            (json!({"egress": [{}]}), vec![]),
            (json!({"policyTypes": ["Ingress"], "egress": null}), vec![]),
            (json!({"policyTypes": ["Ingress", "Egress"], "egress": [{}]}), vec![]),
        ] {
            let WrittenPart::Policy(_, left_out) = written(&policy(&json!({"name": "web"}), &spec)).part
            else {
                panic!("{spec}")
            };
            assert_eq!(left_out.into_iter().collect::<Vec<_>>(), expected, "{spec}");
        }
    }

    #[test]
    fn names_to_ignore_are_separated_by_commas() {
        for (annotation, expected) in [
            (json!("shadowed-rule"), vec!["shadowed-rule"]),
            (json!(" shadowed-rule ,, x"), vec!["shadowed-rule", "x"]),
            (json!(""), vec![]),
            (json!(null), vec![]),
            (json!([1]), vec!["[1]"]),
        ] {
            let metadata = json!({"name": "web", "annotations": {IGNORED: annotation}});
            let object = written(&policy(&metadata, &json!({})));
            assert_eq!((object.line, object.object.as_deref()), (7, Some("NetworkPolicy default/web")));
            assert_eq!(object.ignored, expected, "{annotation}");
        }
    }

    #[test]
    fn ports_of_containers_and_sidecars_count_with_and_without_a_name() {
        let spec = json!({
            "containers": [{"ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}, {}],
            "initContainers": [
                {"ports": [{"containerPort": 81}]},
                {"restartPolicy": "Always", "ports": [{"name": "x", "containerPort": 82}, {"containerPort": "no"}]},
            ],
        });
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec});
        let WrittenPart::Pod(_, ports, _) = written(&pod).part else { panic!() };
        assert_eq!(ports, [(Protocol::Tcp, 80), (Protocol::Tcp, 82), (Protocol::Udp, 53)].into());
    }

    #[test]
    fn what_a_pod_says_of_its_resolvers_is_noted_unless_it_is_the_default() {
        let dns = |spec: Value| {
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec});
            let WrittenPart::Pod(_, _, dns) = written(&pod).part else { panic!() };
            dns
        };
        let says = |policy, nameservers: &[&str]| {
            let nameservers = nameservers.iter().map(|&text| text.to_owned()).collect();
            Some(PodDns { policy, nameservers })
        };
        assert_eq!(dns(json!({})), None);
        assert_eq!(dns(json!({"dnsPolicy": "ClusterFirst", "dnsConfig": {"searches": ["a"]}})), None);
        assert_eq!(dns(json!({"dnsPolicy": "Default"})), says(DnsPolicy::Node, &[]));
        let servers = json!({"nameservers": ["192.0.2.1", 7]});
        assert_eq!(
            dns(json!({"dnsPolicy": "None", "dnsConfig": servers})),
            says(DnsPolicy::Listed, &["192.0.2.1"])
        );
        assert_eq!(dns(json!({"dnsConfig": servers})), says(DnsPolicy::Cluster, &["192.0.2.1"]));
    }
}
