//! One rule of Calico's: all that it says must hold.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    super::{
        Direction,
        object::{items, port_numbers},
    },
    Asked,
    label::{contains, is_valid, matches, selects},
};

/// What the rule does with the connection; `None`: it does not match.
///
/// podgate tells TCP, UDP and SCTP apart, and does not look at the client's port, at types of ICMP or into
/// connections. A rule that speaks of these matches nothing if it allows, and denies all that the rest of it
/// matches if it does not.
pub(super) fn action<'a>(asked: &Asked<'_>, namespace: Option<&str>, rule: &'a Value) -> Option<&'a str> {
    let action = rule["action"].as_str()?;
    let is_carried = is_carried(rule);
    if !is_carried && matches!(action, "Allow" | "Log") {
        return None;
    }
    let connection = asked.connection;
    let [source, destination] = [&rule["source"], &rule["destination"]];
    let is_of_family = match rule["ipVersion"].as_u64() {
        Some(4) => connection.source.address.is_ipv4(),
        Some(6) => connection.source.address.is_ipv6(),
        _ => true,
    };
    let denies = action == "Deny";
    let holds = is_of_family
        && entity(asked, namespace, denies, source, connection.source.pod, connection.source.address)
        && entity(
            asked,
            namespace,
            denies,
            destination,
            connection.destination.pod,
            connection.destination.address,
        )
        && is_of_protocol(rule, connection.protocol)
        && is_at_port(asked, rule, destination);
    match (holds, is_carried) {
        (false, _) => None,
        (true, true) => Some(action),
        (true, false) => Some("Deny"),
    }
}

fn is_carried(rule: &Value) -> bool {
    let is_known = |protocol: &Value| protocol.is_null() || number(protocol).is_some();
    is_known(&rule["protocol"])
        && is_known(&rule["notProtocol"])
        && ["icmp", "notICMP", "http"].iter().all(|field| rule[field].is_null())
        && ["ports", "notPorts"].iter().all(|list| items(&rule["source"][list]).is_empty())
        && ["source", "destination"].iter().all(|end| {
            let selectors = ["selector", "notSelector", "namespaceSelector"].map(|field| &rule[end][field]);
            let of_accounts = &rule[end]["serviceAccounts"]["selector"];
            let mut texts = selectors.into_iter().chain([of_accounts]).filter_map(Value::as_str);
            rule[end]["services"].is_null() && texts.all(is_valid)
        })
}

/// "selector", "namespaceSelector" and "serviceAccounts" are one selector. Of a policy in a namespace it is
/// about that namespace unless it has a "namespaceSelector".
fn entity(
    asked: &Asked<'_>,
    policy_namespace: Option<&str>,
    denies: bool,
    entity: &Value,
    pod: Option<&Value>,
    address: IpAddr,
) -> bool {
    let text = |field: &str| entity[field].as_str().unwrap_or_default();
    let accounts = &entity["serviceAccounts"];
    let names: Vec<&str> = items(&accounts["names"]).iter().filter_map(Value::as_str).collect();
    let account_selector = accounts["selector"].as_str().unwrap_or_default();
    let wants_labels = !text("selector").is_empty()
        || !text("namespaceSelector").is_empty()
        || !names.is_empty()
        || !account_selector.is_empty();
    // The pages do not say that a "notSelector" alone is about the namespace, the programs do: a rule that
    // denies is read as the wider one.
    let is_about_namespace =
        text("namespaceSelector").is_empty() && (wants_labels || !text("notSelector").is_empty() && !denies);
    let own_namespace = policy_namespace.filter(|_| is_about_namespace);
    let is_selected = !wants_labels && own_namespace.is_none()
        || selects(asked.objects, pod, address, &|labels| {
            let is = |key: &str, wanted: &str| labels.get(key).as_deref() == Some(wanted);
            own_namespace.is_none_or(|wanted| is("projectcalico.org/namespace", wanted))
                && matches(text("namespaceSelector"), &|key| labels.get(key), "pcns.")
                && matches(text("selector"), &|key| labels.get(key), "")
                && (names.is_empty() || names.iter().any(|name| is("projectcalico.org/serviceaccount", name)))
                && matches(account_selector, &|key| labels.get(key), "pcsa.")
        });
    let is_excluded = !text("notSelector").is_empty()
        && selects(asked.objects, pod, address, &|labels| {
            matches(text("notSelector"), &|key| labels.get(key), "")
        });
    let (nets, not_nets) = (items(&entity["nets"]), items(&entity["notNets"]));
    is_selected
        && !is_excluded
        && (nets.is_empty() || nets.iter().any(|net| contains(net, address)))
        && !not_nets.iter().any(|net| contains(net, address))
}

/// The protocols that podgate tells apart, as the API of Kubernetes writes them.
fn number(protocol: &Value) -> Option<&'static str> {
    match (protocol.as_u64(), protocol.as_str()) {
        (Some(6), _) | (_, Some("TCP")) => Some("TCP"),
        (Some(17), _) | (_, Some("UDP")) => Some("UDP"),
        (Some(132), _) | (_, Some("SCTP")) => Some("SCTP"),
        _ => None,
    }
}

fn is_of_protocol(rule: &Value, protocol: &str) -> bool {
    let (wanted, not_wanted) = (&rule["protocol"], &rule["notProtocol"]);
    let is_wanted = match number(wanted) {
        Some(wanted) => wanted == protocol,
        // Any other one may be meant by a protocol that is not told apart.
        None => wanted.is_null() || !matches!(protocol, "TCP" | "UDP" | "SCTP"),
    };
    is_wanted && number(not_wanted).is_none_or(|not_wanted| not_wanted != protocol)
}

/// "ports" and "notPorts": numbers, ranges as in "80:90", names of ports of the destination.
fn is_at_port(asked: &Asked<'_>, rule: &Value, destination: &Value) -> bool {
    let connection = asked.connection;
    let is_at = |entry: &Value| {
        if number(&rule["protocol"]) != Some(connection.protocol) {
            return false;
        }
        if let Some(port) = entry.as_u64() {
            return port == u64::from(connection.port);
        }
        let text = entry.as_str().unwrap_or_default();
        if let Some((first, last)) = text.split_once(':') {
            let bound = |text: &str| text.parse::<u16>().expect("a range of ports");
            return (bound(first)..=bound(last)).contains(&connection.port);
        }
        let pod = match asked.direction {
            Direction::Ingress => Some(asked.pod),
            Direction::Egress => connection.destination.pod,
        };
        pod.is_some_and(|pod| port_numbers(pod, text, connection.protocol).contains(&connection.port))
    };
    let (ports, not_ports) = (items(&destination["ports"]), items(&destination["notPorts"]));
    (ports.is_empty() || ports.iter().any(is_at)) && !not_ports.iter().any(is_at)
}
