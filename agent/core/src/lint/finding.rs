//! What a finding is, and the names that findings have. Names are a contract: annotations and pipelines hold
//! them.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use thiserror::Error;

/// One likely mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LintFinding {
    /// As in `NetworkPolicy shop/web`, or where it stands if that is not known. Empty: a file.
    pub object: String,
    /// As in `spec.ingress[0].from[1].podSelector`. Empty: the object itself.
    pub field: String,
    /// Which kind of finding it is.
    pub name: LintName,
    /// One plain sentence.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It may be intended.
    Note,
    /// Probably a mistake.
    Warning,
    /// Something has no effect because it was not understood.
    Error,
}

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LintName {
    /// Something of an object was not understood.
    InvalidObject,
    /// A policy is for no pod.
    PolicySelectsNoPod,
    /// Selectors of a peer match no pod.
    PeerMatchesNoPod,
    /// The selector of a peer matches no node.
    PeerMatchesNoNode,
    /// A selector matches nothing, and asks for a label that differs by one letter from one that is there.
    MisspeltLabel,
    /// No container that a rule is about has a port of this name.
    UndeclaredPortName,
    /// No container that a rule is about declares this port.
    UndeclaredPortNumber,
    /// Another rule says all that a rule says.
    ShadowedRule,
    /// Rules of a direction that `policyTypes` does not name.
    RulesOutsidePolicyTypes,
    /// Pods of a namespace are not isolated for ingress unless a policy names them.
    NoDefaultDenyIngress,
    /// Pods of a namespace are not isolated for egress unless a policy names them.
    NoDefaultDenyEgress,
    /// Pods may connect to something, but to no resolver.
    DnsUnreachable,
    /// Pods may ask resolvers over UDP alone.
    DnsTcpUnreachable,
    /// The annotation that ignores findings names one that does not exist.
    UnknownIgnoredName,
}

/// Text that names no finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no finding has this name")]
pub struct UnknownLintName;

impl Severity {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl LintName {
    /// Every kind of finding.
    pub const ALL: [Self; 14] = [
        Self::InvalidObject,
        Self::PolicySelectsNoPod,
        Self::PeerMatchesNoPod,
        Self::PeerMatchesNoNode,
        Self::MisspeltLabel,
        Self::UndeclaredPortName,
        Self::UndeclaredPortNumber,
        Self::ShadowedRule,
        Self::RulesOutsidePolicyTypes,
        Self::NoDefaultDenyIngress,
        Self::NoDefaultDenyEgress,
        Self::DnsUnreachable,
        Self::DnsTcpUnreachable,
        Self::UnknownIgnoredName,
    ];

    /// As users write it.
    pub const fn as_str(self) -> &'static str {
        self.info().0
    }

    /// How bad such a finding is.
    pub const fn severity(self) -> Severity {
        self.info().1
    }

    const fn info(self) -> (&'static str, Severity) {
        match self {
            Self::InvalidObject => ("invalid-object", Severity::Error),
            Self::PolicySelectsNoPod => ("policy-selects-no-pod", Severity::Warning),
            Self::PeerMatchesNoPod => ("peer-matches-no-pod", Severity::Warning),
            Self::PeerMatchesNoNode => ("peer-matches-no-node", Severity::Warning),
            Self::MisspeltLabel => ("misspelt-label", Severity::Warning),
            Self::UndeclaredPortName => ("undeclared-port-name", Severity::Warning),
            Self::UndeclaredPortNumber => ("undeclared-port-number", Severity::Note),
            Self::ShadowedRule => ("shadowed-rule", Severity::Warning),
            Self::RulesOutsidePolicyTypes => ("rules-outside-policy-types", Severity::Warning),
            Self::NoDefaultDenyIngress => ("no-default-deny-ingress", Severity::Warning),
            Self::NoDefaultDenyEgress => ("no-default-deny-egress", Severity::Note),
            Self::DnsUnreachable => ("dns-unreachable", Severity::Warning),
            Self::DnsTcpUnreachable => ("dns-tcp-unreachable", Severity::Note),
            Self::UnknownIgnoredName => ("unknown-ignored-name", Severity::Warning),
        }
    }
}

impl FromStr for LintName {
    type Err = UnknownLintName;

    fn from_str(text: &str) -> Result<Self, UnknownLintName> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(UnknownLintName)
    }
}

impl fmt::Display for LintName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Serialize for LintName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_is_kebab_case_and_stands_for_one_finding() {
        let names: BTreeSet<&str> = LintName::ALL.iter().map(|name| name.as_str()).collect();
        assert_eq!(names.len(), LintName::ALL.len());
        for name in LintName::ALL {
            assert!(name.as_str().chars().all(|it| it.is_ascii_lowercase() || it == '-'), "{name}");
            assert_eq!(name.as_str().parse(), Ok(name));
        }
        assert_eq!("shadowed".parse::<LintName>(), Err(UnknownLintName));
    }
}
