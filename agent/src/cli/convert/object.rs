//! Policies of the model as the objects that users apply.

use std::fmt::Debug;

use anyhow::{Result, bail};
use podgate_common::Protocol;
use podgate_core::model::{
    Action, ClusterNetworkPolicy, ClusterRule, ClusterSubject, IpBlock, LabelValues, NetworkPolicy, Peer,
    Peers, PortRule, Ports, Requirement, Rule, Selector, Tier,
};
use serde_json::{Map, Value, json};

/// `policyTypes` are those of its lists.
pub(in crate::cli) fn network_policy(policy: &NetworkPolicy) -> Result<Value> {
    let NetworkPolicy { name, subject, ingress, egress, audit: _ } = policy;
    let mut spec = json!({"podSelector": selector(subject)?});
    let lists = [("Ingress", "ingress", "from", ingress), ("Egress", "egress", "to", egress)];
    let types: Vec<&str> =
        lists.iter().filter(|(.., rules)| rules.is_some()).map(|(direction, ..)| *direction).collect();
    spec["policyTypes"] = types.into();
    for (_, list, peers, rules) in lists {
        if let Some(rules) = rules {
            spec[list] = rules.iter().map(|rule| network_policy_rule(rule, peers)).collect::<Result<_>>()?;
        }
    }
    Ok(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": name.namespace, "name": name.name},
        "spec": spec,
    }))
}

/// At the version that most clusters have.
pub(in crate::cli) fn cluster_policy(policy: &ClusterNetworkPolicy) -> Result<Value> {
    let ClusterNetworkPolicy { name, tier, priority, subject, ingress, egress, audit: _ } = policy;
    let ClusterSubject { namespaces, pods } = subject;
    let tier = match tier {
        Tier::Admin => "Admin",
        Tier::Baseline => "Baseline",
    };
    let subject = match is_everything(pods) {
        true => json!({"namespaces": selector(namespaces)?}),
        false => json!({"pods": pods_object(Some(namespaces), pods)?}),
    };
    let mut spec = json!({"tier": tier, "priority": priority, "subject": subject});
    for (list, peers, rules) in [("ingress", "from", ingress), ("egress", "to", egress)] {
        if !rules.is_empty() {
            spec[list] = rules.iter().map(|rule| cluster_rule(rule, peers)).collect::<Result<_>>()?;
        }
    }
    Ok(json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name.name},
        "spec": spec,
    }))
}

fn network_policy_rule(Rule { peers, ports }: &Rule, list: &str) -> Result<Value> {
    let mut rule = Map::new();
    if let Peers::Listed(peers) = peers {
        let peers = peers.iter().map(|peer| match peer {
            Peer::Pods { namespaces, pods } => pods_object(namespaces.as_ref(), pods),
            Peer::Block(block) => Ok(json!({"ipBlock": ip_block(block)})),
            Peer::Nodes(_) | Peer::Name(_) | Peer::Nothing => no_form(peer),
        });
        rule.insert(list.to_owned(), peers.collect::<Result<_>>()?);
    }
    if let Ports::Listed(ports) = ports {
        rule.insert("ports".to_owned(), ports.iter().map(port).collect::<Result<_>>()?);
    }
    Ok(Value::Object(rule))
}

fn cluster_rule(ClusterRule { action, matches }: &ClusterRule, list: &str) -> Result<Value> {
    let action_text = match action {
        Action::Accept => "Accept",
        Action::Deny => "Deny",
        Action::Pass => "Pass",
        Action::Log => return no_form(action),
    };
    let mut peers = Vec::new();
    let mut networks = Vec::new();
    if let Peers::Listed(listed) = &matches.peers {
        for peer in listed {
            match peer {
                Peer::Pods { namespaces: Some(namespaces), pods } if is_everything(pods) => {
                    peers.push(json!({"namespaces": selector(namespaces)?}));
                }
                Peer::Pods { namespaces, pods } => {
                    peers.push(json!({"pods": pods_object(namespaces.as_ref(), pods)?}));
                }
                Peer::Block(block) => networks.push(block.cidr.to_string()),
                Peer::Nodes(_) | Peer::Name(_) | Peer::Nothing => return no_form(peer),
            }
        }
    }
    if !networks.is_empty() {
        peers.push(json!({"networks": networks}));
    }
    let mut rule = json!({"action": action_text, list: peers});
    if let Ports::Listed(ports) = &matches.ports {
        rule["protocols"] = ports.iter().map(protocol).collect::<Result<_>>()?;
    }
    Ok(rule)
}

fn pods_object(namespaces: Option<&Selector>, pods: &Selector) -> Result<Value> {
    let mut object = json!({"podSelector": selector(pods)?});
    if let Some(namespaces) = namespaces {
        object["namespaceSelector"] = selector(namespaces)?;
    }
    Ok(object)
}

fn ip_block(IpBlock { cidr, except }: &IpBlock) -> Value {
    let mut object = json!({"cidr": cidr.to_string()});
    if !except.is_empty() {
        object["except"] = except.iter().map(ToString::to_string).collect();
    }
    object
}

fn port(port: &PortRule) -> Result<Value> {
    Ok(match port {
        PortRule::Protocol(protocol) => json!({"protocol": protocol.to_string()}),
        PortRule::Range { protocol, first, last } if first == last => {
            json!({"protocol": protocol.to_string(), "port": first})
        }
        PortRule::Range { protocol, first, last } => {
            json!({"protocol": protocol.to_string(), "port": first, "endPort": last})
        }
        PortRule::Named(Some(protocol), name) => json!({"protocol": protocol.to_string(), "port": name}),
        PortRule::Named(None, _) | PortRule::Number(_) | PortRule::Icmp { .. } | PortRule::Nothing => {
            return no_form(port);
        }
    })
}

fn protocol(port: &PortRule) -> Result<Value> {
    let of = |protocol: &Protocol, ports: Value| json!({protocol.to_string().to_lowercase(): ports});
    Ok(match port {
        PortRule::Protocol(protocol) => of(protocol, json!({})),
        PortRule::Range { protocol, first, last } if first == last => {
            of(protocol, json!({"destinationPort": {"number": first}}))
        }
        PortRule::Range { protocol, first, last } => {
            of(protocol, json!({"destinationPort": {"range": {"start": first, "end": last}}}))
        }
        PortRule::Named(..) | PortRule::Number(_) | PortRule::Icmp { .. } | PortRule::Nothing => {
            return no_form(port);
        }
    })
}

/// What is left out of a list may leave it empty, and an empty list matches everything.
fn no_form<T>(part: &impl Debug) -> Result<T> {
    bail!("{part:?} has no form in an object of Kubernetes")
}

fn is_everything(selector: &Selector) -> bool {
    matches!(selector, Selector::All(requirements) if requirements.is_empty())
}

/// Labels with one value each where that says it all.
fn selector(selector: &Selector) -> Result<Value> {
    let requirements = match selector {
        Selector::All(requirements) => requirements,
        Selector::Nothing => return no_form(selector),
    };
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for requirement in requirements {
        match requirement {
            Requirement::In(key, values) if values.len() == 1 && !labels.contains_key(key.as_str()) => {
                labels.insert(key.to_string(), json!(values[0]));
            }
            Requirement::In(key, values) => expressions.push(expression(key, "In", Some(values))),
            Requirement::NotIn(key, values) => expressions.push(expression(key, "NotIn", Some(values))),
            Requirement::Exists(key) => expressions.push(expression(key, "Exists", None)),
            Requirement::DoesNotExist(key) => expressions.push(expression(key, "DoesNotExist", None)),
        }
    }
    let mut object = json!({});
    if !labels.is_empty() {
        object["matchLabels"] = Value::Object(labels);
    }
    if !expressions.is_empty() {
        object["matchExpressions"] = expressions.into();
    }
    Ok(object)
}

fn expression(key: &str, operator: &str, values: Option<&LabelValues>) -> Value {
    let mut object = json!({"key": key, "operator": operator});
    if let Some(values) = values {
        object["values"] = values.iter().map(|value| Value::from(value.as_str())).collect();
    }
    object
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use podgate_core::convert::convert;
    use podgate_testkit::{
        generate::{Entries, cluster, with_plain_calico},
        manifest::{Form, write},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::source::manifests;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_printed_is_what_was_converted(objects in with_plain_calico(cluster(Entries::Valid))) {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("objects.yaml");
            fs::write(&file, write(&objects, Form::YamlDocuments)).unwrap();
            let read = manifests::read(&[file]);
            let conversion = convert(&read.cluster, &BTreeMap::new());
            let file = directory.path().join("converted.yaml");
            let printed = conversion.network_policies.iter().map(network_policy);
            let printed = printed.chain(conversion.cluster_policies.iter().map(cluster_policy));
            let printed: Vec<String> =
                printed.map(|object| format!("---\n{}", serde_saphyr::to_string(&object.unwrap()).unwrap())).collect();
            fs::write(&file, printed.concat()).unwrap();
            let read = manifests::read(&[file]);
            let problems = read.problems.iter().filter(|problem| !problem.object.is_empty());
            prop_assert_eq!(problems.count(), 0, "{:?}\n{}", read.problems, printed.concat());
            prop_assert_eq!(read.cluster.policies.len(), conversion.network_policies.len());
            prop_assert_eq!(read.cluster.cluster_policies.len(), conversion.cluster_policies.len());
            for policy in &conversion.network_policies {
                let (mut seen, mut policy) = ((*read.cluster.policies[&policy.name]).clone(), policy.clone());
                for policy in [&mut seen, &mut policy] {
                    sort(&mut policy.subject);
                    policy.ingress.iter_mut().flatten().for_each(sort_rule);
                }
                prop_assert_eq!(seen, policy);
            }
            for policy in &conversion.cluster_policies {
                let seen = &read.cluster.cluster_policies[&policy.name];
                let (mut seen, mut policy) = (ClusterNetworkPolicy::clone(seen), policy.clone());
                for policy in [&mut seen, &mut policy] {
                    sort(&mut policy.subject.namespaces);
                    sort(&mut policy.subject.pods);
                    let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
                    rules.for_each(|rule| sort_rule(&mut rule.matches));
                }
                prop_assert_eq!(seen, policy);
            }
        }
    }

    #[test]
    fn what_has_no_form_is_an_error_and_never_left_out_of_a_list() {
        let rule = |peers, ports| Rule { peers: Peers::Listed(peers), ports };
        let (peer, any) = (vec![Peer::Nothing], Ports::Any);
        let pods = || Peer::Pods { namespaces: None, pods: Selector::EVERYTHING };
        for rule in [
            rule(peer, any),
            rule(vec![pods()], Ports::Listed(vec![PortRule::Nothing])),
            rule(vec![Peer::Pods { namespaces: None, pods: Selector::Nothing }], Ports::Any),
        ] {
            assert!(network_policy_rule(&rule, "from").is_err(), "{rule:?}");
            let accept = ClusterRule { action: Action::Accept, matches: rule };
            assert!(cluster_rule(&accept, "from").is_err(), "{accept:?}");
        }
        let log = ClusterRule { action: Action::Log, matches: rule(vec![pods()], Ports::Any) };
        assert!(cluster_rule(&log, "to").is_err());
    }

    /// Labels are written before expressions.
    fn sort(selector: &mut Selector) {
        if let Selector::All(requirements) = selector {
            requirements.sort();
        }
    }

    fn sort_rule(rule: &mut Rule) {
        let Peers::Listed(peers) = &mut rule.peers else { return };
        for peer in peers {
            if let Peer::Pods { namespaces, pods } = peer {
                namespaces.iter_mut().for_each(sort);
                sort(pods);
            }
        }
    }
}
