//! Addresses in text, each replaced by a word that stands for it wherever it appears.
//!
//! `10.0.0.1` becomes `v4-1`, the next one `v4-2`, and `fd00::/64` something like `v6-1/64`. Loopback and
//! unspecified addresses tell nothing of a cluster and stay.

use std::{collections::HashMap, net::IpAddr};

#[derive(Debug, Default)]
pub(super) struct AddressMap {
    words: HashMap<IpAddr, String>,
    /// How many of each family are known.
    v4: usize,
    v6: usize,
}

impl AddressMap {
    pub(super) fn replace(&mut self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        // What stands before decides whether a run of such characters is a word of its own.
        let mut before = ' ';
        while let Some(first) = rest.chars().next() {
            let length = rest.find(|c| !may_be_of_address(c)).unwrap_or(rest.len());
            if length == 0 {
                replaced.push(first);
                before = first;
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (run, after) = rest.split_at(length);
            let is_word = !continues_word(before) && !after.starts_with(continues_word);
            replaced.push_str(&if is_word { self.run(run) } else { run.to_owned() });
            before = run.chars().next_back().unwrap_or(before);
            rest = after;
        }
        replaced
    }

    /// `10.0.0.1`, `fd00::1`, `10.0.0.1:80`, or one of them before a colon or a full stop.
    fn run(&mut self, run: &str) -> String {
        let bare = run.trim_end_matches(['.', ':']);
        let candidates = [run, bare, bare.rsplit_once(':').map_or("", |(host, _port)| host)];
        let found = candidates.into_iter().find_map(|text| Some((text, text.parse::<IpAddr>().ok()?)));
        match found {
            Some((text, address)) if !is_of_no_cluster(address) => {
                format!("{}{}", self.word(address.to_canonical()), &run[text.len()..])
            }
            _ => run.to_owned(),
        }
    }

    fn word(&mut self, address: IpAddr) -> &str {
        let Self { words, v4, v6 } = self;
        words.entry(address).or_insert_with(|| {
            let (family, count) = if address.is_ipv4() { ("v4", v4) } else { ("v6", v6) };
            *count += 1;
            format!("{family}-{count}")
        })
    }
}

fn may_be_of_address(c: char) -> bool {
    c.is_ascii_hexdigit() || c == '.' || c == ':'
}

/// `%` begins the zone of an address, which may be replaced before it.
fn continues_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

fn is_of_no_cluster(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_the_same_word_wherever_it_stands() {
        let mut addresses = AddressMap::default();
        for (text, replaced) in [
            ("10.0.0.1 and 10.0.0.2, again 10.0.0.1", "v4-1 and v4-2, again v4-1"),
            (r#"{"addresses": ["10.0.0.2", "fd00::1"]}"#, r#"{"addresses": ["v4-2", "v6-1"]}"#),
            ("10.0.0.1: refused. It is at 10.0.0.1.", "v4-1: refused. It is at v4-1."),
            ("from 10.0.0.1:9177 to [fd00::1]:80", "from v4-1:9177 to [v6-1]:80"),
            ("10.1.0.0/16 and fd00:1::/64", "v4-3/16 and v6-2/64"),
            ("::ffff:10.0.0.1 fe80::1%eth0 FD00::1", "v4-1 v6-3%eth0 v6-1"),
            ("127.0.0.1:9177 ::1 0.0.0.0/0 ::/0", "127.0.0.1:9177 ::1 0.0.0.0/0 ::/0"),
        ] {
            assert_eq!(addresses.replace(text), replaced, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_stays() {
        let mut addresses = AddressMap::default();
        for text in [
            "6.1.0-13-amd64 v1.2.3.4-rc 12:30:45 aa:bb:cc:dd:ee:ff",
            "shop/backend-1: TCP/80, revision 12, 256.0.0.1, dead:beef",
            "node x10.0.0.1 10.0.0.1_x façade: ",
            "",
        ] {
            assert_eq!(addresses.replace(text), text);
        }
    }
}
