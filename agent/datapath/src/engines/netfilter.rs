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
const NFTA_CHAIN_HOOK: u16 = 4;
/// Of a chain's hook: the device, and all of them.
const NFTA_HOOK_DEV: u16 = 3;
const NFTA_HOOK_DEVS: u16 = 4;
const NFTA_TABLE_NAME: u16 = 1;

/// Bytes of `struct nfgenmsg`: family, version 0, no resource.
const NFGENMSG: usize = 4;
/// `NFPROTO_UNSPEC`: of all families.
const ALL_FAMILIES: u8 = 0;
/// `NFPROTO_INET` and `NFPROTO_NETDEV`: those of which chains can be at the hooks of single devices.
const WITH_DEVICES: [u8; 2] = [1, 5];

/// A request for all there is.
#[derive(Clone)]
struct DumpRequest {
    message_type: u16,
    family: u8,
    /// Behind `struct nfgenmsg`; a multiple of four bytes.
    attributes: Vec<u8>,
}

pub(super) fn chains() -> Result<Vec<String>> {
    let request = DumpRequest { message_type: GET_CHAINS, family: ALL_FAMILIES, attributes: Vec::new() };
    names(request, NFTA_CHAIN_NAME).context("cannot list the chains of nf_tables")
}

/// Chains at the hooks of single devices, before and behind the programs of TC.
pub(crate) fn device_chains() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for family in WITH_DEVICES {
        let request = DumpRequest { message_type: GET_CHAINS, family, attributes: Vec::new() };
        found.extend(dump(request, device_chain).context("cannot list the chains of nf_tables")?);
    }
    Ok(found)
}

pub(super) fn tables() -> Result<Vec<String>> {
    let request = DumpRequest { message_type: GET_TABLES, family: ALL_FAMILIES, attributes: Vec::new() };
    names(request, NFTA_TABLE_NAME).context("cannot list the tables of nf_tables")
}

pub(super) fn sets() -> Result<Vec<String>> {
    let [low, high] = IPSET_ATTR_PROTOCOL.to_ne_bytes();
    let [five, nought] = 5_u16.to_ne_bytes();
    let attributes = vec![five, nought, low, high, IPSET_PROTOCOL, 0, 0, 0];
    names(DumpRequest { message_type: LIST_SETS, family: ALL_FAMILIES, attributes }, IPSET_ATTR_SETNAME)
        .context("cannot list the sets of ipset")
}

/// The names in the answer.
fn names(request: DumpRequest, attribute: u16) -> Result<Vec<String>> {
    dump(request, |payload| name(payload, attribute))
}

/// What is read of an answer. Nothing where the kernel has not got the subsystem: then no one uses it.
fn dump(request: DumpRequest, entry: impl FnMut(&[u8]) -> Option<String>) -> Result<Vec<String>> {
    let mut requests = Requests::open(NETLINK_NETFILTER).context("cannot open a netfilter socket")?;
    match requests.dump(request, entry) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        entries => Ok(entries?),
    }
}

/// The name of a chain that is at the hook of a device.
fn device_chain(payload: &[u8]) -> Option<String> {
    let mut attributes = NlasIterator::new(payload.get(NFGENMSG..)?).flatten();
    let hook = attributes.find(|found| found.kind() == NFTA_CHAIN_HOOK)?;
    let mut of_hook = NlasIterator::new(hook.value()).flatten();
    of_hook.find(|found| matches!(found.kind(), NFTA_HOOK_DEV | NFTA_HOOK_DEVS))?;
    name(payload, NFTA_CHAIN_NAME)
}

fn name(payload: &[u8], attribute: u16) -> Option<String> {
    let attributes = NlasIterator::new(payload.get(NFGENMSG..)?);
    let found = attributes.flatten().find(|found| found.kind() == attribute)?;
    let text = found.value().split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

impl NetlinkSerializable for DumpRequest {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (head, rest) = buffer.split_at_mut(NFGENMSG);
        head.copy_from_slice(&[self.family, 0, 0, 0]);
        rest.copy_from_slice(&self.attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_an_answer_and_from_nothing_else() {
        let chain = [
            &[0; NFGENMSG][..],
            &[8, 0, 1, 0, b't', 0, 0, 0, 9, 0, 3, 0, b'c', b'a', b'l', b'i', 0, 0, 0, 0],
        ];
        assert_eq!(name(&chain.concat(), NFTA_CHAIN_NAME).as_deref(), Some("cali"));
        for hostile in
            [&[][..], &[0; 3], &[0; 4], &[0, 0, 0, 0, 200, 0, 3, 0, b'x'], &[0, 0, 0, 0, 1, 0, 3, 0]]
        {
            assert_eq!(name(hostile, NFTA_CHAIN_NAME), None, "{hostile:?}");
        }
    }

    #[test]
    fn a_chain_is_at_a_device_when_its_hook_names_one() {
        let name = [6, 0, 3, 0, b'c', 0, 0, 0];
        let number = [8, 0, 1, 0, 0, 0, 0, 5];
        let device = [6, 0, 3, 0, b'd', 0, 0, 0];
        let hook = |attributes: &[u8]| {
            let length = u8::try_from(4 + attributes.len()).unwrap();
            [&[0; NFGENMSG][..], &name, &[length, 0, 4, 0x80], attributes].concat()
        };
        let at_device = hook(&[number, device].concat());
        assert_eq!(device_chain(&at_device).as_deref(), Some("c"));
        assert_eq!(device_chain(&hook(&number)), None, "a hook of the node");
        assert_eq!(device_chain(&[&[0; NFGENMSG][..], &name].concat()), None, "no hook");
    }
}
