//! Addresses and CIDRs, as leniently as the API server has read them.
//!
//! Before its strict mode the API server took leading zeros (`010.0.0.0` is `10.0.0.0`, decimal), host bits
//! (`10.0.0.5/24`) and IPv4-mapped IPv6, and it keeps such objects for ever (`ParseIPSloppy`,
//! `ParseCIDRSloppy`). Out: networks without host bits; mapped ones as IPv4, for that is what they matched.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::field::{Field, Reported, quoted};

/// An address that is there.
pub(super) fn read(field: &Field<'_>) -> Result<IpAddr, Reported> {
    let text = field.required_text()?;
    match parse(text) {
        Some(address) => Ok(address),
        None => Err(field.fault(format!("{} is not an IP address", quoted(text)))),
    }
}

/// An address that is there, and that packets can be sent to through a service (`ValidateNonSpecialIP`).
pub(super) fn read_reachable(field: &Field<'_>) -> Result<IpAddr, Reported> {
    let address = read(field)?;
    match special(&address) {
        None => Ok(address),
        Some(what) => Err(field.fault(format!("{address} is {what}"))),
    }
}

fn special(address: &IpAddr) -> Option<&'static str> {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] & 0xff0f == 0xff02,
    };
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if is_link_local => Some("a link-local address"),
        _ => None,
    }
}

/// A CIDR that is there.
pub(super) fn read_cidr(field: &Field<'_>) -> Result<IpNet, Reported> {
    let text = field.required_text()?;
    parse_cidr(text).map_err(|reason| field.fault(format!("{} is not a CIDR: {reason}", quoted(text))))
}

fn parse_cidr(text: &str) -> Result<IpNet, &'static str> {
    let (address, length) = text.split_once('/').ok_or("it has no prefix length")?;
    let address = parse_address(address).ok_or("its address is not an IP address")?;
    let length = decimal(length).ok_or("its prefix length is not a number")?;
    let network = match address {
        IpAddr::V4(v4) => {
            let length = prefix_length(length, 32).ok_or("its prefix length is above 32")?;
            Ipv4Net::new(v4, length).map(IpNet::V4)
        }
        IpAddr::V6(v6) => {
            let length = prefix_length(length, 128).ok_or("its prefix length is above 128")?;
            // Shorter than 96 it is not within ::ffff:0:0/96: a plain IPv6 network.
            match (v6.to_ipv4_mapped(), length.checked_sub(96)) {
                (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map(IpNet::V4),
                _ => Ipv6Net::new(v6, length).map(IpNet::V6),
            }
        }
    };
    Ok(network.expect("the prefix length was compared with the family's greatest").trunc())
}

fn prefix_length(length: u32, greatest: u8) -> Option<u8> {
    u8::try_from(length).ok().filter(|length| *length <= greatest)
}

/// What is an address, if it is one.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    parse_address(text).map(|address| address.to_canonical())
}

fn parse_address(text: &str) -> Option<IpAddr> {
    if text.contains(':') { parse_v6(text).map(IpAddr::V6) } else { parse_v4(text).map(IpAddr::V4) }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Rust's parser refuses zeros in front of a group or an octet: they are taken off before.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    let mut strict = String::new();
    for (index, group) in text.split(':').enumerate() {
        if index > 0 {
            strict.push(':');
        }
        if group.contains('.') {
            write!(strict, "{}", parse_v4(group)?).ok()?;
        } else {
            let significant = group.trim_start_matches('0');
            strict.push_str(if significant.is_empty() && !group.is_empty() { "0" } else { significant });
        }
    }
    strict.parse().ok()
}

/// Digits only: no sign, no space.
fn decimal(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_are_read_as_leniently_as_the_api_server_does() {
        let table = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("010.000.0.0/08", "10.0.0.0/8"),
            ("10.0.0.5/24", "10.0.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:010.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:0a00:0000/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/90", "::ffc0:0:0/90"),
            ("::/0", "::/0"),
            ("fd00::1/64", "fd00::/64"),
            ("FD00:0000:00001::/48", "fd00:0:1::/48"),
            ("2001:db8::1.2.3.4/128", "2001:db8::102:304/128"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_cidr(text).map(|cidr| cidr.to_string()), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn addresses_that_no_service_can_lead_to_are_known() {
        let table = [
            ("0.0.0.0", "the unspecified address"),
            ("::", "the unspecified address"),
            ("127.1.2.3", "a loopback address"),
            ("::1", "a loopback address"),
            ("169.254.169.254", "a link-local address"),
            ("224.0.0.251", "a link-local address"),
            ("fe80::1", "a link-local address"),
            ("ff02::fb", "a link-local address"),
        ];
        for (text, what) in table {
            assert_eq!(special(&text.parse().unwrap()), Some(what), "{text}");
        }
        for text in ["10.0.0.1", "169.253.0.1", "224.0.1.1", "255.255.255.255", "fd00::1", "::2", "ff05::2"] {
            assert_eq!(special(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_cidr_is_refused_with_the_reason() {
        let table = [
            ("10.0.0.0", "it has no prefix length"),
            ("10.0.0.0/33", "its prefix length is above 32"),
            ("10.0.0.0/256", "its prefix length is above 32"),
            ("fd00::/129", "its prefix length is above 128"),
            ("10.0.0.0/", "its prefix length is not a number"),
            ("10.0.0.0/+8", "its prefix length is not a number"),
            ("10.0.0.0/-1", "its prefix length is not a number"),
            ("10.0.0.0/8/8", "its prefix length is not a number"),
            ("10.0.0.0/99999999999", "its prefix length is not a number"),
            ("10.0.0/8", "its address is not an IP address"),
            ("10.0.0.0.0/8", "its address is not an IP address"),
            ("10.0.0.256/8", "its address is not an IP address"),
            ("10.0.0.0x8/8", "its address is not an IP address"),
            ("10.0..0/8", "its address is not an IP address"),
            (" 10.0.0.0/8", "its address is not an IP address"),
            ("/8", "its address is not an IP address"),
            ("fd00::g/64", "its address is not an IP address"),
            ("fd00::10000/64", "its address is not an IP address"),
            ("fd00::1::/64", "its address is not an IP address"),
            ("fe80::1%eth0/64", "its address is not an IP address"),
            ("1:2:3:4:5:6:7:8:9/64", "its address is not an IP address"),
        ];
        for (text, reason) in table {
            assert_eq!(parse_cidr(text), Err(reason), "{text}");
        }
    }
}
