//! The chains of nf_tables (those of iptables-nft, too) and the sets of ipset, by netlink.
//!
//! Source: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h and ipset/ip_set.h.

use anyhow::{Context as _, Result};
use netlink_packet_core::{NetlinkSerializable, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::netlink::Requests;

/// `NFNL_SUBSYS_IPSET` and `IPSET_CMD_LIST`.
const LIST_SETS: u16 = 6 << 8 | 7;
/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETCHAIN`.
const GET_CHAINS: u16 = 10 << 8 | 4;

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_GETTABLE`.
const GET_TABLES: u16 = 10 << 8 | 1;

const IPSET_ATTR_PROTOCOL: u16 = 1;
const IPSET_ATTR_SETNAME: u16 = 2;
/// What every kernel since 2.6.39 speaks.
const IPSET_PROTOCOL: u8 = 6;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_TABLE_NAME: u16 = 1;

/// `struct nfgenmsg`: of no family, version 0, without a resource.
const NFGENMSG: [u8; 4] = [0; 4];

/// A request for all there is.
#[derive(Clone)]
struct DumpRequest {
    message_type: u16,
    /// Behind `NFGENMSG`; a multiple of four bytes.
    attributes: Vec<u8>,
}

pub(super) fn chains() -> Result<Vec<String>> {
    let request = DumpRequest { message_type: GET_CHAINS, attributes: Vec::new() };
    names(request, NFTA_CHAIN_NAME).context("cannot list the chains of nf_tables")
}

pub(super) fn tables() -> Result<Vec<String>> {
    let request = DumpRequest { message_type: GET_TABLES, attributes: Vec::new() };
    names(request, NFTA_TABLE_NAME).context("cannot list the tables of nf_tables")
}

pub(super) fn sets() -> Result<Vec<String>> {
    let [low, high] = IPSET_ATTR_PROTOCOL.to_ne_bytes();
    let [five, nought] = 5_u16.to_ne_bytes();
    let attributes = vec![five, nought, low, high, IPSET_PROTOCOL, 0, 0, 0];
    names(DumpRequest { message_type: LIST_SETS, attributes }, IPSET_ATTR_SETNAME)
        .context("cannot list the sets of ipset")
}

/// The names in the answer. None where the kernel has not got the subsystem: then no one uses it.
fn names(request: DumpRequest, attribute: u16) -> Result<Vec<String>> {
    let mut requests = Requests::open(NETLINK_NETFILTER).context("cannot open a netfilter socket")?;
    match requests.dump(request, |payload| name(payload, attribute)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        names => Ok(names?),
    }
}

fn name(payload: &[u8], attribute: u16) -> Option<String> {
    let attributes = NlasIterator::new(payload.get(NFGENMSG.len()..)?);
    let found = attributes.flatten().find(|found| found.kind() == attribute)?;
    let text = found.value().split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

impl NetlinkSerializable for DumpRequest {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG.len() + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (head, rest) = buffer.split_at_mut(NFGENMSG.len());
        head.copy_from_slice(&NFGENMSG);
        rest.copy_from_slice(&self.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_an_answer_and_from_nothing_else() {
        let chain = [
            NFGENMSG.as_slice(),
            &[8, 0, 1, 0, b't', 0, 0, 0, 9, 0, 3, 0, b'c', b'a', b'l', b'i', 0, 0, 0, 0],
        ];
        assert_eq!(name(&chain.concat(), NFTA_CHAIN_NAME).as_deref(), Some("cali"));
        for hostile in
            [&[][..], &[0; 3], &[0; 4], &[0, 0, 0, 0, 200, 0, 3, 0, b'x'], &[0, 0, 0, 0, 1, 0, 3, 0]]
        {
            assert_eq!(name(hostile, NFTA_CHAIN_NAME), None, "{hostile:?}");
        }
    }
}
