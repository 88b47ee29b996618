//! One rule of Calico's: all that it says must hold.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    super::{
        Direction,
        object::{items, label, namespace_of, port_numbers, slices},
    },
    ConnectionQuery,
    label::{contains, is_valid, matches, selects},
};

/// What the rule does with the connection; `None`: it does not match.
///
/// podgate does not look at the client's port or into connections. A rule that speaks of these matches
/// nothing if it allows, and denies all that the rest of it matches if it does not.
pub(super) fn action<'a>(
    query: &ConnectionQuery<'_>,
    namespace: Option<&str>,
    rule: &'a Value,
) -> Option<&'a str> {
    let action = rule["action"].as_str()?;
    let services = services(query.direction, namespace, rule);
    let is_own_end_free = rule[own_end(query.direction)]["services"].is_null();
    let is_carried = is_carried(rule) && services.is_some() && is_own_end_free;
    if !is_carried && matches!(action, "Allow" | "Log") {
        return None;
    }
    let connection = query.connection;
    let [source, destination] = [&rule["source"], &rule["destination"]];
    let is_of_family = match rule["ipVersion"].as_u64() {
        Some(4) => connection.source.address.is_ipv4(),
        Some(6) => connection.source.address.is_ipv6(),
        _ => true,
    };
    let denies = action == "Deny";
    let holds = is_of_family
        && entity(query, namespace, denies, source, connection.source.pod, connection.source.address)
        && entity(
            query,
            namespace,
            denies,
            destination,
            connection.destination.pod,
            connection.destination.address,
        )
        && is_of_protocol(rule, connection.protocol, connection.port)
        && is_at_port(query, rule, destination)
        && services.flatten().is_none_or(|service| is_endpoint(query, service));
    match (holds, is_carried) {
        (false, _) => None,
        (true, true) => Some(action),
        (true, false) => Some("Deny"),
    }
}

fn is_carried(rule: &Value) -> bool {
    // "This should only be specified if the Protocol field is set to "ICMP" or "ICMPv6"."
    let has_icmp = matches!(number(&rule["protocol"]), Some(1 | 58));
    (has_icmp || rule["icmp"].is_null() && rule["notICMP"].is_null())
        && rule["http"].is_null()
        && ["ports", "notPorts"].iter().all(|list| items(&rule["source"][list]).is_empty())
        && ["source", "destination"].iter().all(|end| {
            let selectors = ["selector", "notSelector", "namespaceSelector"].map(|field| &rule[end][field]);
            let of_accounts = &rule[end]["serviceAccounts"]["selector"];
            let mut texts = selectors.into_iter().chain([of_accounts]).filter_map(Value::as_str);
            texts.all(is_valid)
        })
}

/// The end of the pod itself, where no Service may stand.
const fn own_end(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "destination",
        Direction::Egress => "source",
    }
}

/// Namespace and name.
type ServiceName<'a> = (&'a str, &'a str);

/// The Service that a rule names. "Services is an optional field that contains options for matching
/// Kubernetes Services. ... Services can only be specified on Egress rules (destination), and Ingress rules
/// (source)." It stands beside no selector, net, service account or port. `None`: it is not valid.
///
/// "Namespace specifies the namespace of the given Service. If left empty, the rule will match within this
/// policy's namespace."
fn services<'a>(
    direction: Direction,
    namespace: Option<&'a str>,
    rule: &'a Value,
) -> Option<Option<ServiceName<'a>>> {
    let peer = match direction {
        Direction::Ingress => "source",
        Direction::Egress => "destination",
    };
    let services = &rule[peer]["services"];
    if services.is_null() {
        return Some(None);
    }
    let is_alone = ["selector", "notSelector", "namespaceSelector"]
        .iter()
        .all(|field| rule[peer][field].as_str().unwrap_or_default().is_empty())
        && ["nets", "notNets", "ports", "notPorts"].iter().all(|list| items(&rule[peer][list]).is_empty())
        && rule[peer]["serviceAccounts"].is_null();
    let text = |field: &str| services[field].as_str().filter(|text| !text.is_empty());
    let name = text("name").filter(|_| is_alone)?;
    Some(Some((text("namespace").or(namespace)?, name)))
}

/// Whether the other end is in a slice of the Service, ready or not. A destination must be at a port of that
/// slice, too.
fn is_endpoint(query: &ConnectionQuery<'_>, (namespace, name): ServiceName<'_>) -> bool {
    let connection = query.connection;
    let of_service = slices(query.objects).filter(|slice| {
        namespace_of(slice) == namespace && label(slice, "kubernetes.io/service-name") == Some(name)
    });
    let mut of_service = of_service.filter(|slice| slice["addressType"] != "FQDN");
    let is_at = |port: &Value| {
        port["protocol"].as_str().unwrap_or("TCP") == connection.protocol
            && port["port"].as_u64() == Some(u64::from(connection.port))
    };
    let has = |slice: &Value, address: IpAddr| {
        items(&slice["endpoints"]).iter().any(|endpoint| {
            items(&endpoint["addresses"]).first().is_some_and(|listed| contains(listed, address))
        })
    };
    match query.direction {
        Direction::Ingress => of_service.any(|slice| has(slice, connection.source.address)),
        Direction::Egress => of_service.any(|slice| {
            items(&slice["ports"]).iter().any(is_at) && has(slice, connection.destination.address)
        }),
    }
}

/// "selector", "namespaceSelector" and "serviceAccounts" are one selector. Of a policy in a namespace it is
/// about that namespace unless it has a "namespaceSelector".
fn entity(
    query: &ConnectionQuery<'_>,
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
        || selects(query.objects, pod, address, &|labels| {
            let is = |key: &str, wanted: &str| labels.get(key).as_deref() == Some(wanted);
            own_namespace.is_none_or(|wanted| is("projectcalico.org/namespace", wanted))
                && matches(text("namespaceSelector"), &|key| labels.get(key), "pcns.")
                && matches(text("selector"), &|key| labels.get(key), "")
                && (names.is_empty() || names.iter().any(|name| is("projectcalico.org/serviceaccount", name)))
                && matches(account_selector, &|key| labels.get(key), "pcsa.")
        });
    let is_excluded = !text("notSelector").is_empty()
        && selects(query.objects, pod, address, &|labels| {
            matches(text("notSelector"), &|key| labels.get(key), "")
        });
    let (nets, not_nets) = (items(&entity["nets"]), items(&entity["notNets"]));
    is_selected
        && !is_excluded
        && (nets.is_empty() || nets.iter().any(|net| contains(net, address)))
        && (not_nets.is_empty() || not_nets.iter().any(|net| is_of_family(net, address)))
        && !not_nets.iter().any(|net| contains(net, address))
}

/// "notNets" of one version of IP alone make the rule one of that version, as Calico's agent renders it.
fn is_of_family(net: &Value, address: IpAddr) -> bool {
    let text = net.as_str().unwrap_or_default();
    let is_mapped = text.starts_with("::ffff:") && text.contains('.');
    (text.contains(':') && !is_mapped) == address.is_ipv6()
}

/// The number of a protocol that a rule names.
fn number(protocol: &Value) -> Option<u64> {
    let names = [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPv6", 58), ("UDPLite", 136)];
    let named = || names.into_iter().find(|(name, _)| protocol.as_str() == Some(name));
    protocol.as_u64().or_else(|| named().map(|(_, number)| number))
}

/// "protocol", "notProtocol", "icmp" and "notICMP". Of a message of ICMP `port` is type times 256, and code;
/// of a protocol that has none of these, its number.
fn is_of_protocol(rule: &Value, protocol: &str, port: u16) -> bool {
    let sent = if protocol == "IP" { Some(port.into()) } else { number(&protocol.into()) };
    let [kind, code] = port.to_be_bytes();
    let is_message = |wanted: &Value| {
        wanted["type"].as_u64().is_none_or(|wanted| wanted == u64::from(kind))
            && wanted["code"].as_u64().is_none_or(|wanted| wanted == u64::from(code))
    };
    let (wanted, not_wanted) = (number(&rule["protocol"]), number(&rule["notProtocol"]));
    let (icmp, not_icmp) = (&rule["icmp"], &rule["notICMP"]);
    let is_about_icmp = matches!(wanted, Some(1 | 58));
    (wanted.is_none() || wanted == sent)
        && (not_wanted.is_none() || not_wanted != sent)
        && (!is_about_icmp || icmp.is_null() || is_message(icmp))
        && (!is_about_icmp || not_icmp.is_null() || !is_message(not_icmp))
}

/// "ports" and "notPorts": numbers, ranges as in "80:90", names of ports of the destination.
fn is_at_port(query: &ConnectionQuery<'_>, rule: &Value, destination: &Value) -> bool {
    let connection = query.connection;
    let is_at = |entry: &Value| {
        if number(&rule["protocol"]) != number(&connection.protocol.into()) {
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
        let pod = match query.direction {
            Direction::Ingress => Some(query.pod),
            Direction::Egress => connection.destination.pod,
        };
        pod.is_some_and(|pod| port_numbers(pod, text, connection.protocol).contains(&connection.port))
    };
    let (ports, not_ports) = (items(&destination["ports"]), items(&destination["notPorts"]));
    (ports.is_empty() || ports.iter().any(is_at)) && !not_ports.iter().any(is_at)
}
