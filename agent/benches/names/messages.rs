//! Replies of a resolver.

use std::net::IpAddr;

use podgate_common::frames::dns::{labels, reply};

use crate::address;

/// A name that the rules have, and one that they do not have.
pub(crate) const PATTERN: &str = "api.example.com";
pub(crate) const OTHERS: &str = "api.example.org.cluster.local";

/// CNAME, A and IN (RFC 1035, 3.2).
const ALIAS: [u8; 2] = [0, 5];
const IN: [u8; 2] = [0, 1];

/// A message, and the most that it may cost in ns.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) goal: Option<f64>,
    /// The first of its addresses.
    pub(crate) first: Option<IpAddr>,
}

impl Message {
    /// To a question for a name: so many aliases, each of the one before, and so many addresses of the last.
    pub(crate) fn answer(name: &str, aliases: u8, addresses: u8) -> Self {
        // Two messages have no address in common.
        let group = addresses + aliases + u8::try_from(name.len()).expect("a short name");
        let addresses: Vec<IpAddr> = (0..addresses).map(|number| address(group, number)).collect();
        let mut bytes = reply(name, &addresses);
        if addresses.is_empty() {
            // NXDOMAIN
            bytes[3] |= 3;
        }
        let question = 12 + labels(name).len() + 4;
        let records = bytes.split_off(question);
        let mut owner = vec![0xc0, 12];
        for number in 0..aliases {
            let alias = labels(&format!("alias-{number}.cdn.example.net"));
            bytes.extend([&owner[..], &ALIAS, &IN, &[0, 0, 0, 30, 0]].concat());
            bytes.push(u8::try_from(alias.len()).expect("a short name"));
            let at = u16::try_from(bytes.len()).expect("a short message");
            bytes.extend(alias);
            owner = (0xc000 | at).to_be_bytes().to_vec();
        }
        bytes[7] += aliases;
        // An address is of the last alias.
        for record in records.chunks(16) {
            bytes.extend([&owner, &record[2..]].concat());
        }
        Self { name: String::new(), bytes, goal: None, first: addresses.first().copied() }
    }

    /// An answer whose addresses no other number has.
    pub(crate) fn of_new(addresses: u8, number: u8) -> Self {
        let own: Vec<IpAddr> = (0..addresses).map(|at| [198, 51, number, at].into()).collect();
        Self { name: String::new(), bytes: reply(PATTERN, &own), goal: None, first: own.first().copied() }
    }
}
