//! The resource of the export: its attributes, by OpenTelemetry's names.

use std::env;

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
};
use podgate_core::model::Name;

use super::attributes::{attribute, pairs, text};

pub(super) const VARIABLE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// The attributes of a resource.
pub(super) type Attributes = Vec<KeyValue>;

/// The attributes of this agent, and those of the environment, which override the agent's own.
///
/// # Errors
///
/// When the variable is not a list of pairs.
pub(super) fn attributes(node: &Name) -> Result<Attributes> {
    let given = env::var_os(VARIABLE).unwrap_or_default();
    with_given(node, given.to_str().context("it is not UTF-8")?)
}

fn with_given(node: &Name, given: &str) -> Result<Attributes> {
    let given = pairs(given)?;
    let own = [
        ("service.name", "podgate"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        // There is one agent on a node.
        ("service.instance.id", node),
        ("k8s.node.name", node),
    ];
    let own = own.into_iter().filter(|(name, _)| given.iter().all(|(given, _)| given != name));
    let own = own.map(|(name, value)| attribute(name, text(value)));
    Ok(own.chain(given.iter().map(|(name, value)| attribute(name, text(value.clone())))).collect())
}

pub(super) fn resource(attributes: &Attributes) -> Resource {
    Resource { attributes: attributes.clone(), ..Resource::default() }
}

pub(super) fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: "podgate".to_owned(), version, ..InstrumentationScope::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_the_environment_come_besides_and_count_more() {
        let attributes = with_given(&"n1".into(), "k8s.cluster.name=a%2Cb,service.name=mine").unwrap();
        let expected = [
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("service.instance.id", "n1"),
            ("k8s.node.name", "n1"),
            ("k8s.cluster.name", "a,b"),
            ("service.name", "mine"),
        ];
        assert_eq!(attributes, expected.map(|(name, value)| attribute(name, text(value))));
        assert!(with_given(&"n1".into(), "nothing").is_err());
    }
}
