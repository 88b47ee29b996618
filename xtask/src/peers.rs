//! The rules that other systems write for the same policies: to compare answers with, and speed.
//!
//! In: policies. Out: text for ipset and iptables-restore. Left out: loading it, which `Place::feed` does.

pub mod calico;
pub mod npm;
pub mod objects;

/// What their rules are loaded with, and the packages that have it.
pub(crate) const PROGRAMS: [(&str, &str); 3] =
    [("iptables-nft-restore", "iptables"), ("iptables-legacy-restore", "iptables"), ("ipset", "ipset")];
