//! Questions of the DNS and what their replies say, as bytes (RFC 1035, 4).
//!
//! Replies are read by the walk of the packet path itself, over a tree of names that has one: so the agent
//! takes from a reply neither more nor less than a pod's own look-up would. A library would be a second
//! reading of the same bytes. What is left to write is a header and a name.

use std::{cell::RefCell, net::IpAddr};

use podgate_common::{Address, LabelKey, Learnt, MAX_STEPS, NameId, NameNode, NameTables, Walk};
use podgate_core::compiler::NamePlace;

/// Addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum AddressKind {
    /// Record type A.
    V4,
    /// Record type AAAA.
    V6,
}

impl AddressKind {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The type of record (RFC 1035, 3.2.2; RFC 3596).
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// A query for the addresses of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DnsQuery(Vec<u8>);

/// What a message that has arrived is to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DnsReply {
    /// Of another question, or none at all.
    Foreign,
    /// The server cannot or will not answer (SERVFAIL, REFUSED): another one may.
    Failed,
    /// Its rest comes over TCP.
    Truncated,
    Addresses(Vec<TimedAddress>),
}

/// An address, and for how many seconds it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimedAddress {
    pub(super) address: IpAddr,
    pub(super) seconds: u32,
}

/// Addresses of one reply. The API of domain names asks for 100 to be supported.
const MOST: usize = 128;

const HEADER: usize = 12;
const NO_SUCH_NAME: u8 = 3;

impl DnsQuery {
    /// Over TCP, and where a reply is truncated; there is no room for more without EDNS, which some servers
    /// and what stands before them do not understand.
    pub(super) const LONGEST_DATAGRAM: usize = 512;

    /// `id`: no one can guess it.
    pub(super) fn new(id: u16, (labels, _): &NamePlace, kind: AddressKind) -> Self {
        let [high, low] = id.to_be_bytes();
        // Recursion desired, one question.
        let mut bytes = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            // A pattern's label has at most 63 bytes.
            bytes.push(u8::try_from(label.len()).unwrap_or(0));
            bytes.extend(label);
        }
        bytes.extend([0, 0, kind.number(), 0, 1]);
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What a message is to this query for a name.
    pub(super) fn reply(&self, message: &[u8], name: &NamePlace) -> DnsReply {
        const IS_REPLY: u8 = 0x80;
        const OPCODE: u8 = 0x78;
        const TRUNCATED: u8 = 2;
        let Some([id_high, id_low, flags, more, 0, 1, ..]) = message.first_chunk::<HEADER>() else {
            return DnsReply::Foreign;
        };
        // Some servers answer in lower case.
        let question = message.get(HEADER..self.0.len());
        let is_ours = [*id_high, *id_low] == self.0[..2]
            && flags & (IS_REPLY | OPCODE) == IS_REPLY
            && question.is_some_and(|question| question.eq_ignore_ascii_case(&self.0[HEADER..]));
        if !is_ours {
            return DnsReply::Foreign;
        }
        match more & 0xf {
            _ if flags & TRUNCATED != 0 => DnsReply::Truncated,
            0 => DnsReply::Addresses(addresses(message, name)),
            NO_SUCH_NAME => DnsReply::Addresses(Vec::new()),
            _ => DnsReply::Failed,
        }
    }
}

/// The addresses that a reply has for a name, and that a name may have.
fn addresses(message: &[u8], (labels, _): &NamePlace) -> Vec<TimedAddress> {
    // The walk looks at two bytes at a time, of which the first may stand before the message.
    let bytes = [&[0], message].concat();
    let tree = OneName { labels, found: RefCell::default() };
    let mut walk = Walk::EMPTY;
    walk.over(&&bytes[..], 1, 0);
    // What a message has before it contradicts itself counts in the packet path, too.
    let _ = (0..MAX_STEPS).find(|_| !walk.step(&&bytes[..], &tree));
    tree.found.into_inner()
}

/// The tree of one name, which notes its addresses. A node's number is its depth.
struct OneName<'a> {
    /// The leftmost first.
    labels: &'a [Box<[u8]>],
    found: RefCell<Vec<TimedAddress>>,
}

impl OneName<'_> {
    fn node_at(&self, depth: u32) -> NameNode {
        let is_whole = depth as usize == self.labels.len();
        NameNode::new(depth, [is_whole, false, false])
    }
}

impl NameTables for OneName<'_> {
    fn node(&self, key: &LabelKey) -> NameNode {
        let depth = key.parent;
        let label = self.labels.len().checked_sub(depth as usize + 1).map(|at| &self.labels[at]);
        match label.and_then(|label| LabelKey::new(depth, label)) {
            Some(own) if own == *key => self.node_at(depth + 1),
            _ => NameNode::ROOT,
        }
    }

    fn learn(&self, _: u32, address: &Address, name: NameId, seconds: u32) -> Option<Learnt> {
        let depth = u32::try_from(self.labels.len()).unwrap_or(0);
        let mut found = self.found.borrow_mut();
        if name == NameId::new(self.node_at(depth), 0) && found.len() < MOST {
            found.push(TimedAddress { address: (*address).into(), seconds });
        }
        Some(Learnt::New)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use podgate_common::frames::dns;

    use super::*;

    pub(in super::super) fn place(name: &str) -> NamePlace {
        (name.split('.').map(|label| label.as_bytes().into()).collect(), 0)
    }

    /// A reply of a server to a query.
    pub(in super::super) fn reply_to(query: &[u8], name: &str, addresses: &[&str]) -> Vec<u8> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let mut reply = dns::reply(name, &addresses);
        reply[..2].copy_from_slice(&query[..2]);
        // Also where there is no address that says which it is.
        let kind = HEADER + dns::labels(name).len() + 1;
        reply[kind] = query[kind];
        reply
    }

    fn found(reply: &DnsReply) -> Vec<(String, u32)> {
        let DnsReply::Addresses(found) = reply else { panic!("{reply:?}") };
        found.iter().map(|it| (it.address.to_string(), it.seconds)).collect()
    }

    #[test]
    fn a_reply_has_the_addresses_of_the_name_that_was_asked() {
        let name = place("api.example.com");
        for (kind, addresses) in
            [(AddressKind::V4, ["192.0.2.1", "192.0.2.2"]), (AddressKind::V6, ["2001:db8::1", "2001:db8::2"])]
        {
            let query = DnsQuery::new(7, &name, kind);
            let reply = reply_to(query.bytes(), "API.example.COM", &addresses);
            assert_eq!(found(&query.reply(&reply, &name)), addresses.map(|at| (at.to_owned(), 30)));
        }
    }

    #[test]
    fn an_address_behind_an_alias_is_the_names_and_glue_is_not() {
        let name = place("api.example.com");
        let query = DnsQuery::new(7, &name, AddressKind::V4);
        let mut reply = query.bytes().to_vec();
        (reply[2], reply[3], reply[7], reply[11]) = (0x81, 0x80, 2, 1);
        reply.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 5, 3, b'c', b'd', b'n', 0]);
        reply.extend([3, b'c', b'd', b'n', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
        reply.extend([3, b'c', b'd', b'n', 0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 99]);
        assert_eq!(found(&query.reply(&reply, &name)), [("192.0.2.1".to_owned(), 9)]);
    }

    #[test]
    fn special_addresses_are_left_out() {
        let name = place("evil.test");
        let query = DnsQuery::new(7, &name, AddressKind::V4);
        let special =
            ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "192.0.2.1", "100.100.100.200"];
        let reply = reply_to(query.bytes(), "evil.test", &special);
        assert_eq!(found(&query.reply(&reply, &name)), [("192.0.2.1".to_owned(), 30)]);
    }

    #[test]
    fn what_answers_another_question_is_foreign() {
        let name = place("api.example.com");
        let query = DnsQuery::new(0x1234, &name, AddressKind::V4);
        let good = reply_to(query.bytes(), "api.example.com", &["192.0.2.1"]);
        assert_eq!(found(&query.reply(&good, &name)).len(), 1);
        for (what, at, byte) in [
            ("the id", 1, 0x35),
            ("it is a query", 2, 0x01),
            ("the operation", 2, 0xa1),
            ("two questions", 5, 2),
            ("another name", 14, b'x'),
            ("another type", HEADER + 18, 28),
            ("another class", HEADER + 20, 3),
        ] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(query.reply(&bad, &name), DnsReply::Foreign, "{what}");
        }
        for short in 0..query.bytes().len() {
            assert_eq!(query.reply(&good[..short], &name), DnsReply::Foreign, "{short} bytes");
        }
        // The name asked stands in the answer of another question as an alias.
        let other = DnsQuery::new(0x1234, &place("evil.test"), AddressKind::V4);
        assert_eq!(
            query.reply(&reply_to(other.bytes(), "evil.test", &["192.0.2.1"]), &name),
            DnsReply::Foreign
        );
    }

    #[test]
    fn errors_and_truncated_replies_are_known() {
        let name = place("api.example.com");
        let query = DnsQuery::new(1, &name, AddressKind::V4);
        let with = |at: usize, byte: u8| {
            let mut reply = reply_to(query.bytes(), "api.example.com", &["192.0.2.1"]);
            reply[at] = byte;
            query.reply(&reply, &name)
        };
        assert_eq!(with(3, 0x82), DnsReply::Failed);
        assert_eq!(with(3, 0x85), DnsReply::Failed);
        assert_eq!(with(3, 0x83), DnsReply::Addresses(Vec::new()));
        assert_eq!(with(2, 0x83), DnsReply::Truncated);
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        let name = place("api.example.com");
        let query = DnsQuery::new(1, &name, AddressKind::V4);
        let reply = reply_to(query.bytes(), "api.example.com", &["192.0.2.1", "192.0.2.2"]);
        for at in HEADER..reply.len() {
            for byte in 0..=u8::MAX {
                let mut changed = reply.clone();
                changed[at] = byte;
                let _ = query.reply(&changed, &name);
            }
            let _ = query.reply(&reply[..at], &name);
        }
        let many: Vec<String> = (0..200).map(|last| format!("192.0.2.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            found(&query.reply(&reply_to(query.bytes(), "api.example.com", &many), &name)).len(),
            MOST
        );
    }
}
