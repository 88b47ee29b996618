//! The chains of iptables' legacy tables, which netlink does not report.
//!
//! Source: include/uapi/linux/netfilter_ipv4/ip_tables.h. A user's chain begins with an entry that holds its
//! name as text; so all text in a table's entries is taken, and engines are recognised by it.

use std::{fs, io, net::UdpSocket, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; IPv6 has the same numbers.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;

/// `struct ipt_getinfo`: the name, then eleven numbers, then the number of entries and their size in bytes.
const INFO: usize = NAME + 13 * 4;

/// Shorter text is not a chain's name but chance.
const SHORTEST: usize = 4;

/// (what lists the tables, level of socket options, address of a socket of the family)
const FAMILIES: [(&str, libc::c_int, &str); 2] = [
    ("/proc/net/ip_tables_names", libc::IPPROTO_IP, "127.0.0.1:0"),
    ("/proc/net/ip6_tables_names", libc::IPPROTO_IPV6, "[::1]:0"),
];

pub(super) fn chains() -> Result<Vec<String>> {
    let mut chains = Vec::new();
    for (tables, level, address) in FAMILIES {
        // Without the file there are no tables. One that is not in use is not listed, and asking would load
        // it.
        for table in fs::read_to_string(tables).unwrap_or_default().lines() {
            let entries = entries(table, level, address);
            let entries = entries.with_context(|| format!("cannot read iptables' table {table}"))?;
            chains.extend(texts(&entries));
        }
    }
    Ok(chains)
}

/// The entries of one table. They may change between the two questions; then the kernel answers EAGAIN.
fn entries(table: &str, level: libc::c_int, address: &str) -> io::Result<Vec<u8>> {
    const ATTEMPTS: usize = 8;
    let socket = UdpSocket::bind(address)?;
    let mut last = io::Error::from_raw_os_error(libc::EAGAIN);
    for _ in 0..ATTEMPTS {
        let mut info = named(table, INFO)?;
        get(&socket, level, GET_INFO, &mut info)?;
        let size = info.last_chunk::<4>().copied().map(u32::from_ne_bytes).unwrap_or_default();
        // `struct ipt_get_entries`: the name, the size, and the entries where they are aligned.
        const HEAD: usize = (NAME + 4).next_multiple_of(align_of::<u64>());
        let mut entries = named(table, HEAD + size as usize)?;
        entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        match get(&socket, level, GET_ENTRIES, &mut entries) {
            Ok(()) => return Ok(entries.split_off(HEAD)),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// A buffer that begins with the name of a table.
fn named(table: &str, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let name = buffer.get_mut(..table.len()).filter(|_| table.len() < NAME);
    name.ok_or(io::ErrorKind::InvalidData)?.copy_from_slice(table.as_bytes());
    Ok(buffer)
}

fn get(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which the buffer has.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs of printable bytes.
fn texts(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    let runs = bytes.split(|byte| !byte.is_ascii_graphic());
    runs.filter(|run| run.len() >= SHORTEST).map(|run| String::from_utf8_lossy(run).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_among_the_bytes_of_entries() {
        let bytes = b"\0\x01AZURE-NPM\0\0\xffab\0cali-FORWARD";
        assert_eq!(texts(bytes).collect::<Vec<_>>(), ["AZURE-NPM", "cali-FORWARD"]);
        assert_eq!(texts(b"").count(), 0);
    }

    #[test]
    fn a_table_with_too_long_a_name_is_refused() {
        assert!(named(&"x".repeat(NAME), 100).is_err());
        assert!(named("filter", 3).is_err());
        assert_eq!(named("nat", 5).unwrap(), b"nat\0\0");
    }
}
