//! Specs of NetworkPolicies that several tests apply.

use xtask::lab::Addresses;

/// Pods with `app=closed` let nothing in.
pub(crate) const DENY_INGRESS: &str =
    "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress]\n";

/// Pods with `app=closed` let nothing in and nothing out.
pub(crate) const DENY_ALL: &str =
    "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress, Egress]\n";

/// The same, but for those with `role=friend`, who come in.
pub(crate) const DENY_ALL_BUT_FRIENDS: &str = "  podSelector: {matchLabels: {app: closed}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
                                               - from: [{podSelector: {matchLabels: {role: friend}}}]\n";

/// No pod lets anything in.
pub(crate) const DENY_INGRESS_OF_ALL: &str = "  podSelector: {}\n  policyTypes: [Ingress]\n";

/// No pod lets anything out.
pub(crate) const DENY_EGRESS_OF_ALL: &str = "  podSelector: {}\n  policyTypes: [Egress]\n";

/// No pod lets anything in or out.
pub(crate) const DENY_ALL_OF_ALL: &str = "  podSelector: {}\n  policyTypes: [Ingress, Egress]\n";

/// Pods with this label let in what `rule` says, and nothing else.
pub(crate) fn ingress(app: &str, rule: &str) -> String {
    format!(
        "  podSelector: {{matchLabels: {{app: {app}}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - {rule}\n"
    )
}

/// Pods with this label may open what `rule` says, and nothing else.
pub(crate) fn egress(app: &str, rule: &str) -> String {
    format!(
        "  podSelector: {{matchLabels: {{app: {app}}}}}\n  policyTypes: [Egress]\n  egress:\n  - {rule}\n"
    )
}

/// The peers of a rule: pods with this label.
pub(crate) fn pods(app: &str) -> String {
    format!("[{{podSelector: {{matchLabels: {{app: {app}}}}}}}]")
}

/// The peers of a rule: these addresses.
pub(crate) fn blocks(Addresses { v4, v6 }: Addresses) -> String {
    format!("[{{ipBlock: {{cidr: {v4}/32}}}}, {{ipBlock: {{cidr: '{v6}/128'}}}}]")
}
