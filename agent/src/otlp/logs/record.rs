//! One denied packet as a log record: attributes by OpenTelemetry's names where these exist, and as its body
//! the same record that the deny log has.

use std::net::IpAddr;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
};
use podgate_common::Direction;

use super::super::attributes::{attribute, list, of_json, text};
use crate::{
    api::{FlowEnd, FlowRecord, FlowVerdict},
    observe::DecisionEvent,
};

/// The event name of these records.
const EVENT: &str = "podgate.flow";

pub(super) fn log_record(event: &DecisionEvent) -> LogRecord {
    let flow = FlowRecord::from(event);
    let time = u64::try_from(event.time.as_nanosecond()).unwrap_or(0);
    let severity = match flow.verdict {
        FlowVerdict::Denied => SeverityNumber::Warn,
        // Such packets have passed.
        FlowVerdict::WouldDeny | FlowVerdict::Allowed => SeverityNumber::Info,
    };
    let json = serde_json::to_value(&flow).expect("a flow has string keys and no failing parts");
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity.into(),
        severity_text: flow.verdict.to_string(),
        body: Some(of_json(json)),
        attributes: attributes(event, &flow),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

fn attributes(event: &DecisionEvent, flow: &FlowRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        attribute("podgate.verdict", text(flow.verdict.to_string())),
        attribute("podgate.reason", text(flow.reason.to_string())),
        attribute("podgate.direction", text(flow.direction.to_string())),
        attribute("podgate.policies", policies(flow)),
        attribute("podgate.packets", Value::IntValue(i64::try_from(flow.packets).unwrap_or(i64::MAX))),
        attribute("network.transport", text(flow.protocol.to_lowercase())),
    ];
    let address = flow.source.address.or(flow.destination.address);
    if let Some(address) = address {
        attributes.push(attribute("network.type", text(if is_v4(address) { "ipv4" } else { "ipv6" })));
    }
    add_end(&mut attributes, "source", &flow.source);
    add_end(&mut attributes, "destination", &flow.destination);
    // The pod that has the deciding policies.
    let evaluated = match flow.direction {
        Direction::Egress => &event.source,
        Direction::Ingress => &event.destination,
    };
    if let Some(pod) = evaluated.pod() {
        attributes.push(attribute("k8s.namespace.name", text(&*pod.name.namespace)));
        attributes.push(attribute("k8s.pod.name", text(&*pod.name.name)));
    }
    attributes
}

fn add_end(attributes: &mut Vec<KeyValue>, side: &str, end: &FlowEnd) {
    let FlowEnd { address, port, pod, service, node, labels: _ } = end;
    let mut add = |name: &str, value: Value| attributes.push(attribute(&format!("{side}.{name}"), value));
    if let Some(address) = address {
        add("address", text(address.to_string()));
    }
    if let Some(port) = port {
        add("port", Value::IntValue((*port).into()));
    }
    for (kind, name) in [("pod", pod), ("service", service)] {
        if let Some((namespace, name)) = name.as_ref().and_then(|name| name.split_once('/')) {
            add("k8s.namespace.name", text(namespace));
            add(&format!("k8s.{kind}.name"), text(name));
        }
    }
    if let Some(node) = node {
        add("k8s.node.name", text(node.clone()));
    }
}

fn policies(flow: &FlowRecord) -> Value {
    let names = flow.policies.iter().map(|of| AnyValue { value: Some(text(of.policy.clone())) });
    list(names.collect())
}

fn is_v4(address: IpAddr) -> bool {
    address.to_canonical().is_ipv4()
}
