//! Selectors of Calico's as those of Kubernetes: all of some requirements, on the labels of pods and of their
//! namespaces.

use super::NoEqual;
use crate::model::{
    LabelExpression, LabelTest, LabelValues, NAMESPACE_NAME_LABEL, Name, Requirement, label_keys,
    syntax::{label_key, label_value},
};

/// What an expression wants of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct PodTerms {
    /// Of the labels of its namespace.
    pub(super) namespaces: Vec<Requirement>,
    /// Of its own.
    pub(super) pods: Vec<Requirement>,
}

/// The same of an expression: it matches the same pods.
pub(super) fn terms(expression: &LabelExpression) -> Result<PodTerms, NoEqual> {
    let mut terms = PodTerms::default();
    terms.add(expression)?;
    Ok(terms)
}

impl PodTerms {
    /// The one namespace that it is about, if its name is all that it wants of it.
    pub(super) fn namespace(&self) -> Option<&Name> {
        match &self.namespaces[..] {
            [Requirement::In(key, values)] if key.as_str() == NAMESPACE_NAME_LABEL => match &values[..] {
                [namespace] => Some(namespace),
                _ => None,
            },
            _ => None,
        }
    }

    fn add(&mut self, expression: &LabelExpression) -> Result<(), NoEqual> {
        match expression {
            LabelExpression::All(parts) => parts.iter().try_for_each(|part| self.add(part)),
            LabelExpression::Label(key, test) => self.add_label(expression, key, test, false),
            LabelExpression::Not(inner) => match &**inner {
                LabelExpression::Label(key, test) => self.add_label(expression, key, test, true),
                LabelExpression::Not(inner) => self.add(inner),
                LabelExpression::All(_) | LabelExpression::Any(_) => Err(no_equal(expression)),
            },
            LabelExpression::Any(parts) => match &parts[..] {
                [part] => self.add(part),
                _ => Err(no_equal(expression)),
            },
        }
    }

    fn add_label(
        &mut self,
        expression: &LabelExpression,
        key: &Name,
        test: &LabelTest,
        is_negated: bool,
    ) -> Result<(), NoEqual> {
        let of_accounts = [label_keys::ACCOUNT, label_keys::ORCHESTRATOR];
        if of_accounts.contains(&key.as_str()) || key.starts_with(label_keys::ACCOUNT_PREFIX) {
            return Err(no_equal(expression));
        }
        let of_namespace = key.strip_prefix(label_keys::NAMESPACE_PREFIX);
        let is_name = *key == *label_keys::NAMESPACE || of_namespace == Some(label_keys::NAME);
        let (list, key) = match of_namespace {
            _ if is_name => (&mut self.namespaces, Name::from(NAMESPACE_NAME_LABEL)),
            Some(key) => (&mut self.namespaces, Name::from(key)),
            None => (&mut self.pods, key.clone()),
        };
        let values = |values: &LabelValues| {
            let are_valid = values.iter().all(|value| label_value(value).is_ok());
            if are_valid && !values.is_empty() { Ok(values.clone()) } else { Err(no_equal(expression)) }
        };
        if label_key(&key).is_err() {
            return Err(no_equal(expression));
        }
        let requirement = match (test, is_negated) {
            // Every pod is in a namespace.
            (LabelTest::Exists, false) if is_name => return Ok(()),
            (LabelTest::Exists, false) => Requirement::Exists(key),
            (LabelTest::Exists, true) if is_name => return Err(no_equal(expression)),
            (LabelTest::Exists, true) => Requirement::DoesNotExist(key),
            (LabelTest::In(wanted), false) | (LabelTest::NotIn(wanted), true) => {
                Requirement::In(key, values(wanted)?)
            }
            (LabelTest::NotIn(wanted), false) | (LabelTest::In(wanted), true) => {
                Requirement::NotIn(key, values(wanted)?)
            }
            (LabelTest::Contains(_) | LabelTest::StartsWith(_) | LabelTest::EndsWith(_), _) => {
                return Err(no_equal(expression));
            }
        };
        list.push(requirement);
        Ok(())
    }
}

fn no_equal(expression: &LabelExpression) -> NoEqual {
    NoEqual::new("", format!("{expression} is no selector of Kubernetes"))
}
