//! A parser of DNS messages that allocates and recurses, written from the RFCs alone.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::{collections::BTreeSet, vec::Vec};

use super::{
    Address, Entry, Next, may_be_opened,
    patterns::{Name, Patterns},
};

/// What a message says: how reading it ends, what is learnt until then, and addresses that no name may open.
pub(super) fn read(message: &[u8], patterns: &Patterns) -> (Next, Vec<Entry>, u32) {
    let mut found = Found { learnt: Vec::new(), refused: 0, names: Vec::new() };
    let end = match found.message(message, patterns) {
        Some(()) => Next::Done,
        None => Next::Malformed,
    };
    (end, found.learnt, found.refused)
}

struct Found {
    learnt: Vec<Entry>,
    refused: u32,
    names: Vec<super::NameId>,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Found {
    fn message(&mut self, message: &[u8], patterns: &Patterns) -> Option<()> {
        let flags = *message.get(2)?;
        let (questions, answers) = (be16(message, 4)?, be16(message, 6)?);
        if flags & 0xf8 != 0x80 || questions != 1 {
            return None;
        }
        if message.get(3)? & 15 != 0 {
            return Some(());
        }
        let (asked, mut at) = name_at(message, 12, 0)?;
        let (asked_for, class) = (be16(message, at)?, be16(message, at + 2)?);
        at += 4;
        if class != 1 {
            self.note(&asked, patterns);
            return Some(());
        }
        self.note(&asked, patterns);
        let mut aliases = 0;
        for _ in 0..answers {
            at = behind_name(message, at)?;
            let (kind, class) = (be16(message, at)?, be16(message, at + 2)?);
            let ttl = u32::from(be16(message, at + 4)?) << 16 | u32::from(be16(message, at + 6)?);
            let ttl = if ttl >= 1 << 31 { 0 } else { ttl };
            let length = usize::from(be16(message, at + 8)?);
            let (data, end) = (at + 10, at + 10 + length);
            let bytes = message.get(data..end)?;
            match (class, kind) {
                (1, 5) => {
                    aliases += 1;
                    if aliases > 16 {
                        return None;
                    }
                    let (target, behind) = name_at(message, data, data)?;
                    if behind != end {
                        return None;
                    }
                    self.note(&target, patterns);
                }
                (1, kind) if kind != asked_for => {}
                (1, 1) => {
                    let bytes: [u8; 4] = bytes.try_into().ok()?;
                    if self.names.is_empty() {
                        return Some(());
                    }
                    self.address(Address::from_v4(bytes), ttl);
                }
                (1, 28) => {
                    let bytes: [u8; 16] = bytes.try_into().ok()?;
                    if self.names.is_empty() {
                        return Some(());
                    }
                    self.v6(bytes, ttl);
                }
                (1, 64 | 65) => {
                    let goes_on = self.binding(bytes, ttl)?;
                    if !goes_on {
                        return Some(());
                    }
                }
                _ => {}
            }
            at = end;
        }
        Some(())
    }

    fn note(&mut self, name: &Name, patterns: &Patterns) {
        if let Some(number) = patterns.number(name)
            && !self.names.contains(&number)
            && self.names.len() < 4
        {
            self.names.push(number);
        }
    }

    fn v6(&mut self, bytes: [u8; 16], ttl: u32) {
        if Ipv6Addr::from(bytes).to_ipv4_mapped().is_some() {
            self.refused += 1;
        } else {
            self.address(Address::from_v6(bytes), ttl);
        }
    }

    fn address(&mut self, address: Address, ttl: u32) {
        if !may_be_opened(&address) {
            self.refused += 1;
            return;
        }
        self.learnt.extend(self.names.iter().map(|name| (address, *name, ttl)));
    }

    /// False: addresses came before any name that rules have.
    fn binding(&mut self, data: &[u8], ttl: u32) -> Option<bool> {
        if be16(data, 0)? == 0 {
            return Some(true);
        }
        let mut at = 2;
        loop {
            let length = usize::from(*data.get(at)?);
            at += 1 + length;
            match length {
                0 => break,
                1..=63 => {}
                _ => return None,
            }
        }
        while at < data.len() {
            let (key, length) = (be16(data, at)?, usize::from(be16(data, at + 2)?));
            let value = data.get(at + 4..at + 4 + length)?;
            at += 4 + length;
            let size = match key {
                4 => 4,
                6 => 16,
                _ => continue,
            };
            let parts = value.chunks_exact(size);
            let is_torn = !parts.remainder().is_empty();
            for part in parts {
                if self.names.is_empty() {
                    return Some(false);
                }
                match <[u8; 4]>::try_from(part) {
                    Ok(v4) => self.address(Ipv4Addr::from(v4).octets().into_address(), ttl),
                    Err(_) => self.v6(part.try_into().ok()?, ttl),
                }
            }
            if is_torn {
                return None;
            }
        }
        (at == data.len()).then_some(true)
    }
}

trait IntoAddress {
    fn into_address(self) -> Address;
}

impl IntoAddress for [u8; 4] {
    fn into_address(self) -> Address {
        Address::from_v4(self)
    }
}

/// A name, and where what follows it begins. Pointers lead before `before`, and before where they led last.
fn name_at(message: &[u8], at: usize, before: usize) -> Option<(Name, usize)> {
    let (mut name, mut at, mut before) = (Name::new(), at, before);
    let (mut behind, mut seen) = (None, BTreeSet::new());
    let mut bytes = 1;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((name, behind.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..=at + usize::from(length))?;
                at += 1 + usize::from(length);
                bytes += label.len() + 1;
                if bytes > 255 || at >= message.len() {
                    return None;
                }
                name.push(label.to_ascii_lowercase());
            }
            64..=191 => return None,
            192.. => {
                let to = usize::from(be16(message, at)? & 0x3fff);
                if to < 12 || to >= before {
                    return None;
                }
                assert!(seen.insert(to), "pointers end");
                behind = behind.or(Some(at + 2));
                (at, before) = (to, to);
            }
        }
    }
}

/// Where what follows an owner begins: pointers are not followed.
fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            64..=191 => return None,
            192.. => return Some(at + 2),
        }
    }
}
