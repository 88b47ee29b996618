//! Records of the answer section: addresses, aliases, and service bindings with hints of addresses.

use super::{
    LabelKey, Learnt, NameTables, Next, Walk, may_be_opened,
    walk::{HEADER, POINTER},
};
use crate::{
    Address, Packet,
    packet::{forget, overwrite},
};

/// Types of records (RFC 1035, 3596, 9460).
mod kind {
    pub(super) const A: u16 = 1;
    pub(super) const CNAME: u16 = 5;
    pub(super) const AAAA: u16 = 28;
    pub(super) const SVCB: u16 = 64;
    pub(super) const HTTPS: u16 = 65;
}

/// Parameters of a service binding (RFC 9460, 7.3).
mod parameter {
    pub(super) const IPV4_HINT: u16 = 4;
    pub(super) const IPV6_HINT: u16 = 6;
}

/// More aliases in a row have no answer from resolvers.
const MAX_ALIASES: u32 = 16;

const V4: u32 = 4;
const V6: u32 = 16;

impl Walk {
    /// Goes on behind a record.
    #[inline(always)]
    pub(super) fn next_record(&mut self) -> Next {
        let end = forget(&self.data_end);
        overwrite(&mut self.at, end);
        Next::Record
    }

    /// One label of a record's owner; behind the last one, the record.
    #[inline(always)]
    pub(super) fn record(&mut self, packet: &impl Packet) -> Option<Next> {
        let records = forget(&self.records);
        if records == 0 {
            return Some(Next::Done);
        }
        let at = forget(&self.at);
        let length = self.byte(packet, at)?;
        let after = match length {
            POINTER.. => at + 2,
            0 => at + 1,
            _ => {
                overwrite(&mut self.at, at + 1 + u32::from(length));
                return (usize::from(length) <= LabelKey::MAX_LABEL).then_some(Next::Record);
            }
        };
        let [kind, more, class_high, class_low, a, b, c, d, length @ ..] = self.read::<10>(packet, after)?;
        let data = after + 10;
        let length = u32::from(u16::from_be_bytes(length));
        if data + length > forget(&self.end) {
            return None;
        }
        overwrite(&mut self.records, records - 1);
        overwrite(&mut self.data_end, data + length);
        // Of 2^31 and more it is 0 (RFC 2181, 8).
        let ttl = u32::from_be_bytes([a, b, c, d]);
        overwrite(&mut self.ttl, if ttl >> 31 == 0 { ttl } else { 0 });
        overwrite(&mut self.hint, 0);
        if [class_high, class_low] != [0, 1] {
            return Some(self.next_record());
        }
        // Only what was asked for: then the answer is a chain of aliases and what its end has, which the
        // resolver has taken from where each belongs. To who asks for all types at once (RFC 8482) it gives
        // what the server of the name says: an alias to any name, beside addresses.
        match u16::from_be_bytes([kind, more]) {
            kind::CNAME => self.alias(data),
            other if u32::from(other) != forget(&self.asked) => Some(self.next_record()),
            kind::A if length == V4 => self.address(packet, data, V4),
            kind::AAAA if length == V6 => self.address(packet, data, V6),
            kind::A | kind::AAAA => None,
            kind::SVCB | kind::HTTPS => self.binding(packet, data),
            _ => Some(self.next_record()),
        }
    }

    /// The name that an alias leads to is looked up as the one that was asked.
    #[inline(always)]
    fn alias(&mut self, data: u32) -> Option<Next> {
        let aliases = forget(&self.aliases);
        if aliases >= MAX_ALIASES {
            return None;
        }
        overwrite(&mut self.aliases, aliases + 1);
        let (before, end) = (data - forget(&self.message), forget(&self.data_end));
        // Behind the header, the question and the record's own.
        if before < HEADER {
            return None;
        }
        self.name_at(data, before, end);
        Some(Next::Label)
    }

    /// A service binding that names a service: one that is an alias has no parameters (RFC 9460, 2.4.2).
    #[inline(always)]
    fn binding(&mut self, packet: &impl Packet, data: u32) -> Option<Next> {
        if data + 2 > forget(&self.data_end) {
            return None;
        }
        let priority = self.read::<2>(packet, data)?;
        if priority == [0, 0] {
            return Some(self.next_record());
        }
        overwrite(&mut self.at, data + 2);
        Some(Next::Target)
    }

    /// One label of its target, which has no pointers (RFC 9460, 2.2).
    #[inline(always)]
    pub(super) fn target(&mut self, packet: &impl Packet) -> Option<Next> {
        let at = forget(&self.at);
        if at >= forget(&self.data_end) {
            return None;
        }
        let length = self.byte(packet, at)?;
        overwrite(&mut self.at, at + 1 + u32::from(length));
        match length {
            0 => Some(Next::Parameter),
            _ => (usize::from(length) <= LabelKey::MAX_LABEL).then_some(Next::Target),
        }
    }

    /// A parameter: hints are read, others are stepped over.
    #[inline(always)]
    pub(super) fn parameter(&mut self, packet: &impl Packet) -> Option<Next> {
        let (at, data_end) = (forget(&self.at), forget(&self.data_end));
        if at >= data_end {
            return (at == data_end).then(|| self.next_record());
        }
        let [key_high, key_low, length @ ..] = self.read::<4>(packet, at)?;
        let end = at + 4 + u32::from(u16::from_be_bytes(length));
        if end > data_end {
            return None;
        }
        overwrite(&mut self.hint_end, end);
        let (size, at) = match u16::from_be_bytes([key_high, key_low]) {
            parameter::IPV4_HINT => (V4, at + 4),
            parameter::IPV6_HINT => (V6, at + 4),
            _ => (0, end),
        };
        overwrite(&mut self.hint, size);
        overwrite(&mut self.at, at);
        Some(if size == 0 { Next::Parameter } else { Next::Hint })
    }

    /// An address of a hint.
    #[inline(always)]
    pub(super) fn hint(&mut self, packet: &impl Packet) -> Option<Next> {
        let (at, size) = (forget(&self.at), forget(&self.hint));
        let end = forget(&self.hint_end);
        if at == end {
            return Some(Next::Parameter);
        }
        if at + size > end {
            return None;
        }
        overwrite(&mut self.at, at + size);
        self.address(packet, at, size)
    }

    /// An address of so many bytes.
    #[inline(always)]
    fn address(&mut self, packet: &impl Packet, at: u32, size: u32) -> Option<Next> {
        // Names come before their addresses.
        if forget(&self.known) == 0 {
            return Some(Next::Done);
        }
        let address = match size {
            V4 => Address::from_v4(self.read::<4>(packet, at)?),
            _ => Address::from_v6(self.read::<16>(packet, at)?),
        };
        // A mapped address in 16 bytes would pass for the IPv4 address: none is on a wire (RFC 4942, 2.2).
        if !may_be_opened(&address) || (size != V4 && address.is_v4()) {
            let refused = forget(&self.refused) + 1;
            overwrite(&mut self.refused, refused);
            return Some(self.behind_address());
        }
        overwrite(&mut self.address, address);
        overwrite(&mut self.turn, 0);
        Some(Next::Learn)
    }

    #[inline(always)]
    fn behind_address(&mut self) -> Next {
        if forget(&self.hint) == 0 { self.next_record() } else { Next::Hint }
    }

    /// The address is learnt for one more of the names.
    #[inline(always)]
    pub(super) fn learn<T: NameTables>(&mut self, tables: &T) -> Next {
        let turn = forget(&self.turn);
        let Some(name) = self.names.get(turn as usize).map(forget) else { return self.behind_address() };
        if turn >= forget(&self.known) {
            return self.behind_address();
        }
        overwrite(&mut self.turn, turn + 1);
        let learnt = tables.learn(forget(&self.table), &self.address, name, forget(&self.ttl));
        let Some(learnt) = learnt else { return Next::Unlearnt };
        let of_it = match learnt {
            Learnt::New | Learnt::Longer => &mut self.learnt,
            Learnt::Instead => &mut self.evicted,
        };
        let count = forget(of_it) + 1;
        overwrite(of_it, count);
        if turn + 1 < forget(&self.known) { Next::Learn } else { self.behind_address() }
    }
}
