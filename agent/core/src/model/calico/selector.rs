//! Calico's selectors: expressions over labels.
//!
//! Beside its own labels a pod has those of its namespace, with `pcns.` before their keys, those of its
//! service account, with `pcsa.`, and a few that Calico gives it. So one expression says what a rule's
//! `selector`, `namespaceSelector` and `serviceAccounts` want together.

use std::{collections::BTreeMap, fmt};

use super::NetworkSet;
use crate::model::{LabelValues, Labels, Name, ObjectName, Pod};

/// An expression over labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelExpression {
    /// What one label has to be.
    Label(Name, LabelTest),
    /// All of them; without any, everything.
    All(Vec<LabelExpression>),
    /// Any of them; without any, nothing.
    Any(Vec<LabelExpression>),
    /// What it does not match.
    Not(Box<LabelExpression>),
}

/// What a label has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelTest {
    /// There, with any value.
    Exists,
    /// There, with one of these values.
    In(LabelValues),
    /// Not there, or there with another value than these.
    NotIn(LabelValues),
    /// There, and this is in its value.
    Contains(Name),
    /// There, and its value begins so.
    StartsWith(Name),
    /// There, and its value ends so.
    EndsWith(Name),
}

/// The labels of a pod, a host endpoint or a network set as an expression sees them.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLabels<'a> {
    own: &'a BTreeMap<Name, Name>,
    /// Name and labels; `None`: it is in none.
    namespace: Option<(&'a Name, &'a BTreeMap<Name, Name>)>,
    /// Of a pod: name, and labels if the account is known.
    account: Option<(&'a Name, Option<&'a BTreeMap<Name, Name>>)>,
    is_pod: bool,
}

/// Keys of the labels that Calico gives pods and network sets.
pub mod label_keys {
    /// Before the keys of labels of the namespace.
    pub const NAMESPACE_PREFIX: &str = "pcns.";
    /// Before the keys of labels of the service account.
    pub const ACCOUNT_PREFIX: &str = "pcsa.";
    /// The namespace's name.
    pub const NAMESPACE: &str = "projectcalico.org/namespace";
    /// The service account's name.
    pub const ACCOUNT: &str = "projectcalico.org/serviceaccount";
    /// Of everything that Kubernetes runs.
    pub const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
    /// Of a namespace and of a service account: its own name.
    pub const NAME: &str = "projectcalico.org/name";
}

impl<'a> EndpointLabels<'a> {
    /// The labels of a pod, given those of its namespace and of its service account by name; of a host
    /// endpoint only its own.
    pub(super) fn of_pod(
        pod: &'a Pod,
        namespace: &'a Labels,
        account: impl FnOnce(&ObjectName) -> Option<&'a Labels>,
    ) -> Self {
        if pod.host.is_some() {
            return Self { own: &pod.labels, namespace: None, account: None, is_pod: false };
        }
        let account = pod.service_account.as_ref().map(|name| {
            let labels = account(&ObjectName::new(pod.name.namespace.clone(), name.clone()));
            (name, labels.map(|labels| &**labels))
        });
        Self { own: &pod.labels, namespace: Some((&pod.name.namespace, namespace)), account, is_pod: true }
    }

    /// Of a network set, given the labels of its namespace if it has one.
    pub fn of_set(set: &'a NetworkSet, namespace: Option<&'a Labels>) -> Self {
        let namespace = set.namespace.as_ref().zip(namespace.map(|labels| &**labels));
        Self { own: &set.labels, namespace, account: None, is_pod: false }
    }

    /// The value of a label. What a pod says of itself never stands for its namespace or service account.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let namespace = || self.namespace.map(|(name, _)| name.as_str());
        let account = || self.account.map(|(name, _)| name.as_str());
        match key {
            label_keys::NAMESPACE => return namespace(),
            label_keys::ACCOUNT => return account(),
            label_keys::ORCHESTRATOR => return self.is_pod.then_some("k8s"),
            _ => {}
        }
        let (labels, key) = if let Some(key) = key.strip_prefix(label_keys::NAMESPACE_PREFIX) {
            if key == label_keys::NAME {
                return namespace();
            }
            (self.namespace.map(|(_, labels)| labels), key)
        } else if let Some(key) = key.strip_prefix(label_keys::ACCOUNT_PREFIX) {
            if key == label_keys::NAME {
                return account();
            }
            (self.account.and_then(|(_, labels)| labels), key)
        } else {
            (Some(self.own), key)
        };
        labels?.get(key).map(Name::as_str)
    }
}

impl LabelExpression {
    /// Matches everything with labels.
    pub const EVERYTHING: Self = Self::All(Vec::new());
    /// Matches nothing.
    pub const NOTHING: Self = Self::Any(Vec::new());

    /// What is in one namespace.
    pub fn in_namespace(namespace: &Name) -> Self {
        Self::Label(label_keys::NAMESPACE.into(), LabelTest::In([namespace.clone()].into()))
    }

    /// All of these together.
    pub fn all_of(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::new();
        for part in parts {
            match part {
                Self::All(parts) => all.extend(parts),
                Self::Label(..) | Self::Any(_) | Self::Not(_) => all.push(part),
            }
        }
        match all.len() {
            1 => all.remove(0),
            _ => Self::All(all),
        }
    }

    /// Whether it matches what has these labels.
    pub fn matches(&self, labels: &EndpointLabels<'_>) -> bool {
        match self {
            Self::Label(key, test) => test.holds(labels.get(key)),
            Self::All(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(labels)),
            Self::Not(part) => !part.matches(labels),
        }
    }

    /// Whether it may match a pod of a namespace with these labels: `false` is certain whatever the pod's own
    /// labels are, and those of its service account.
    pub fn may_match_in(&self, namespace: &Name, labels: &Labels) -> bool {
        self.holds_in(&EndpointLabels {
            own: &BTreeMap::new(),
            namespace: Some((namespace, labels)),
            account: None,
            is_pod: true,
        }) != Some(false)
    }

    /// What the namespace alone decides, if it does.
    fn holds_in(&self, namespace: &EndpointLabels<'_>) -> Option<bool> {
        let decided = |parts: &[Self], by: bool| {
            let mut rest = Some(!by);
            for part in parts {
                match part.holds_in(namespace) {
                    Some(holds) if holds == by => return Some(by),
                    Some(_) => {}
                    None => rest = None,
                }
            }
            rest
        };
        match self {
            Self::Label(key, test) => {
                let is_of_namespace =
                    **key == *label_keys::NAMESPACE || key.starts_with(label_keys::NAMESPACE_PREFIX);
                is_of_namespace.then(|| test.holds(namespace.get(key)))
            }
            Self::All(parts) => decided(parts, false),
            Self::Any(parts) => decided(parts, true),
            Self::Not(part) => part.holds_in(namespace).map(|holds| !holds),
        }
    }

    /// The one namespace of all that it can match; `None`: there may be several.
    pub fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Label(key, LabelTest::In(values)) if **key == *label_keys::NAMESPACE => match &values[..] {
                [namespace] => Some(namespace),
                _ => None,
            },
            Self::All(parts) => parts.iter().find_map(Self::namespace),
            Self::Label(..) | Self::Any(_) | Self::Not(_) => None,
        }
    }

    /// The labels that it looks at, each once, in the order in which they stand.
    pub fn keys(&self) -> Vec<&Name> {
        fn add<'e>(expression: &'e LabelExpression, keys: &mut Vec<&'e Name>) {
            match expression {
                LabelExpression::Label(key, _) if keys.contains(&key) => {}
                LabelExpression::Label(key, _) => keys.push(key),
                LabelExpression::All(parts) | LabelExpression::Any(parts) => {
                    parts.iter().for_each(|part| add(part, keys));
                }
                LabelExpression::Not(part) => add(part, keys),
            }
        }
        let mut keys = Vec::new();
        add(self, &mut keys);
        keys
    }

    /// How many labels it looks at.
    pub fn size(&self) -> usize {
        match self {
            Self::Label(..) => 1,
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::size).sum(),
            Self::Not(part) => part.size(),
        }
    }
}

impl LabelTest {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_among = |values: &LabelValues| {
            value.is_some_and(|value| values.binary_search_by(|known| known.as_str().cmp(value)).is_ok())
        };
        match self {
            Self::Exists => value.is_some(),
            Self::In(values) => is_among(values),
            Self::NotIn(values) => !is_among(values),
            Self::Contains(part) => value.is_some_and(|value| value.contains(part.as_str())),
            Self::StartsWith(part) => value.is_some_and(|value| value.starts_with(part.as_str())),
            Self::EndsWith(part) => value.is_some_and(|value| value.ends_with(part.as_str())),
        }
    }
}

/// As Calico reads it.
impl fmt::Display for LabelExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], between: &str| {
            for (place, part) in parts.iter().enumerate() {
                f.write_str(if place > 0 { between } else { "" })?;
                match part {
                    Self::Label(..) | Self::Not(_) => write!(f, "{part}")?,
                    Self::All(inner) | Self::Any(inner) if inner.len() < 2 => write!(f, "{part}")?,
                    Self::All(_) | Self::Any(_) => write!(f, "({part})")?,
                }
            }
            Ok(())
        };
        match self {
            Self::Label(key, test) => match test {
                LabelTest::Exists => write!(f, "has({key})"),
                LabelTest::In(values) => write_values(f, key, ["==", "in"], values),
                LabelTest::NotIn(values) => write_values(f, key, ["!=", "not in"], values),
                LabelTest::Contains(part) => write!(f, "{key} contains {}", Quoted(part)),
                LabelTest::StartsWith(part) => write!(f, "{key} starts with {}", Quoted(part)),
                LabelTest::EndsWith(part) => write!(f, "{key} ends with {}", Quoted(part)),
            },
            Self::All(parts) if parts.is_empty() => f.write_str("all()"),
            Self::Any(parts) if parts.is_empty() => f.write_str("!all()"),
            Self::All(parts) => list(f, parts, " && "),
            Self::Any(parts) => list(f, parts, " || "),
            Self::Not(part) => write!(f, "!({part})"),
        }
    }
}

fn write_values(
    f: &mut fmt::Formatter<'_>,
    key: &Name,
    [single, several]: [&str; 2],
    values: &LabelValues,
) -> fmt::Result {
    if let [value] = &values[..] {
        return write!(f, "{key} {single} {}", Quoted(value));
    }
    let values: Vec<String> = values.iter().map(|value| Quoted(value).to_string()).collect();
    write!(f, "{key} {several} {{{}}}", values.join(", "))
}

/// Between quotes that are not in it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{labels, pod};

    #[test]
    fn a_namespace_is_passed_over_only_where_no_pod_of_it_can_match() {
        use LabelExpression::{All, Any, Label, Not};
        let is = |key: &str, value: &str| Label(key.into(), LabelTest::In([value.into()].into()));
        let (team, other) = (is("pcns.team", "a"), || is("pcns.team", "b"));
        let (web, account) = (is("app", "web"), Label("pcsa.tier".into(), LabelTest::Exists));
        let in_y = LabelExpression::in_namespace(&"y".into());
        for (expression, may_match) in [
            (team.clone(), true),
            (other(), false),
            (in_y.clone(), false),
            (web.clone(), true),
            (account.clone(), true),
            (Not(Box::new(team.clone())), false),
            (Not(Box::new(web.clone())), true),
            (All(vec![team.clone(), web.clone()]), true),
            (All(vec![other(), web.clone()]), false),
            (All(vec![web.clone(), Not(Box::new(team.clone()))]), false),
            (Any(vec![other(), web.clone()]), true),
            (Any(vec![other(), in_y.clone()]), false),
            (Not(Box::new(Any(vec![team.clone(), web.clone()]))), false),
            (Not(Box::new(All(vec![team, web]))), true),
            (LabelExpression::EVERYTHING, true),
            (LabelExpression::NOTHING, false),
        ] {
            let of_namespace = labels(&[("team", "a")]);
            assert_eq!(expression.may_match_in(&"x".into(), &of_namespace), may_match, "{expression}");
            for own in [&[][..], &[("app", "web")], &[("app", "db")]] {
                let pod = pod("x/a", "n1", &["10.0.0.1"], own);
                let labels = EndpointLabels::of_pod(&pod, &of_namespace, |_| None);
                assert!(may_match || !expression.matches(&labels), "{expression}: {own:?}");
            }
        }
    }
}
