//! One file of libcni's result cache: the record of one CNI ADD.
//!
//! In: the bytes of a file. Out: the pod, its addresses and the names of the node's ends; `None` for what is
//! no pod's. Read are the result formats 0.1 to 1.1 (cni/SPEC.md), inside the record that libcni wraps around
//! them (`cachedInfo` in libcni/api.go). The files are root's; still nothing in them is taken on trust.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use podgate_core::model::{Name, ObjectName, syntax::dns_subdomain};
use serde::Deserialize;

/// What the container runtimes call a pod's first interface (`DefaultIfName` of CRI-O, `DefaultPrefix` of
/// containerd's go-cni). NetworkPolicy is about this one; others come from meta plug-ins such as Multus.
const PRIMARY_INTERFACE: &str = "eth0";

/// Bytes of the longest interface name (IFNAMSIZ less the closing zero).
const INTERFACE_NAME: usize = 15;

/// What a CNI plug-in did for a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CniResult {
    pub pod: ObjectName,
    /// Whether this is the network that NetworkPolicy is about, or one more that a meta plug-in added.
    pub primary: bool,
    /// Interfaces outside the pod's sandbox: the node's end of the veth, perhaps a bridge. Not every plug-in
    /// names them.
    pub host_interfaces: BTreeSet<Name>,
    pub addresses: BTreeSet<IpAddr>,
    /// The link-layer address of the pod's end, where the plug-in names it.
    pub link_address: Option<[u8; 6]>,
    /// Absolute paths at which the pod's network namespace was when the plug-in ran.
    pub namespaces: BTreeSet<PathBuf>,
}

/// Why a file is no CNI result.
#[derive(Debug, thiserror::Error)]
pub enum CniResultError {
    #[error("not a record of libcni: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{field}: {value:?} is not a name")]
    Name { field: &'static str, value: String },
    #[error("result.ips: {0:?} is not an address")]
    ResultAddress(String),
}

impl CniResult {
    /// `None`: a record without a pod, or one of the loopback plug-in.
    pub fn parse(file: &[u8]) -> Result<Option<Self>, CniResultError> {
        let record: Record = serde_json::from_slice(file)?;
        let (Some(namespace), Some(name)) =
            (record.argument("K8S_POD_NAMESPACE"), record.argument("K8S_POD_NAME"))
        else {
            return Ok(None);
        };
        let interface = record.interface.as_deref().unwrap_or(PRIMARY_INTERFACE);
        if interface == "lo" {
            return Ok(None);
        }
        let result = record.result.as_ref();
        Ok(Some(Self {
            pod: ObjectName::new(
                object_name("K8S_POD_NAMESPACE", namespace)?,
                object_name("K8S_POD_NAME", name)?,
            ),
            primary: interface == PRIMARY_INTERFACE,
            host_interfaces: result
                .map(|result| result.host_interfaces(interface))
                .transpose()?
                .unwrap_or_default(),
            addresses: result.map(Added::addresses).transpose()?.unwrap_or_default(),
            link_address: result.and_then(|result| result.link_address(interface)),
            namespaces: record.namespaces(),
        }))
    }
}

/// `cachedInfo` of libcni.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "ifName")]
    interface: Option<String>,
    #[serde(rename = "netns")]
    namespace: Option<String>,
    #[serde(rename = "cniArgs")]
    arguments: Option<Vec<(String, String)>>,
    result: Option<Added>,
}

/// The result of an ADD. Version 0.2 and older have `ip4` and `ip6`, later ones `interfaces` and `ips`.
#[derive(Deserialize)]
struct Added {
    interfaces: Option<Vec<CniInterface>>,
    ips: Option<Vec<ResultAddress>>,
    ip4: Option<OldAddress>,
    ip6: Option<OldAddress>,
}

#[derive(Deserialize)]
struct CniInterface {
    name: Option<String>,
    mac: Option<String>,
    /// Path of the network namespace; missing or empty for an interface of the node.
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct ResultAddress {
    address: String,
    /// Index into `interfaces`.
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct OldAddress {
    ip: String,
}

impl Record {
    fn argument(&self, key: &str) -> Option<&str> {
        let arguments = self.arguments.as_deref().unwrap_or_default();
        arguments.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A sandbox that is no network namespace (a virtual machine's) has a name that is no path.
    fn namespaces(&self) -> BTreeSet<PathBuf> {
        let interfaces = self.result.iter().filter_map(|result| result.interfaces.as_ref()).flatten();
        let sandboxes = interfaces.filter_map(|interface| interface.sandbox.as_ref());
        let paths = self.namespace.iter().chain(sandboxes).map(PathBuf::from);
        paths.filter(|path| path.is_absolute()).collect()
    }
}

impl Added {
    /// `inside`: the interface's name in the sandbox. Some plug-ins list it without saying that it is in
    /// there.
    fn host_interfaces(&self, inside: &str) -> Result<BTreeSet<Name>, CniResultError> {
        let interfaces = self.interfaces.iter().flatten().filter(|interface| !interface.is_sandboxed());
        let names =
            interfaces.filter_map(|interface| interface.name.as_deref()).filter(|name| *name != inside);
        names.map(interface_name).collect()
    }

    fn addresses(&self) -> Result<BTreeSet<IpAddr>, CniResultError> {
        let new = self.ips.iter().flatten().filter(|address| self.is_inside(address));
        let old = self.ip4.iter().chain(&self.ip6).map(|old| &old.ip);
        let addresses = new.map(|address| &address.address).chain(old).map(|text| parse_address(text));
        addresses.filter(|address| !address.as_ref().is_ok_and(is_not_a_host)).collect()
    }

    /// Of the interface with this name in the sandbox. One that is none is as good as none at all.
    fn link_address(&self, inside: &str) -> Option<[u8; 6]> {
        let interfaces = self.interfaces.iter().flatten();
        let mut own = interfaces
            .filter(|interface| interface.is_sandboxed() && interface.name.as_deref() == Some(inside));
        link_address(own.next()?.mac.as_deref()?)
    }

    /// False for an address that the plug-in put on an interface of the node. Plug-ins that list no sandboxed
    /// interface at all mean the pod's.
    fn is_inside(&self, address: &ResultAddress) -> bool {
        let interfaces = self.interfaces.as_deref().unwrap_or_default();
        let holder = address.interface.and_then(|index| interfaces.get(usize::try_from(index).ok()?));
        holder.is_none_or(CniInterface::is_sandboxed) || !interfaces.iter().any(CniInterface::is_sandboxed)
    }
}

impl CniInterface {
    fn is_sandboxed(&self) -> bool {
        self.sandbox.as_ref().is_some_and(|sandbox| !sandbox.is_empty())
    }
}

fn object_name(field: &'static str, value: &str) -> Result<Name, CniResultError> {
    if dns_subdomain(value).is_ok() {
        Ok(value.into())
    } else {
        Err(CniResultError::Name { field, value: beginning(value) })
    }
}

/// The kernel's rule (`dev_valid_name` in net/core/dev.c).
fn interface_name(value: &str) -> Result<Name, CniResultError> {
    let forbidden =
        |byte: u8| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace() || byte == 0x0b;
    if !value.is_empty() && value.len() <= INTERFACE_NAME && !value.bytes().any(forbidden) {
        Ok(value.into())
    } else {
        Err(CniResultError::Name { field: "result.interfaces", value: beginning(value) })
    }
}

/// With or without a prefix length.
fn parse_address(text: &str) -> Result<IpAddr, CniResultError> {
    let parsed = text.parse().map(|net: IpNet| net.addr()).or_else(|_| text.parse());
    parsed
        .map(|address: IpAddr| address.to_canonical())
        .map_err(|_| CniResultError::ResultAddress(beginning(text)))
}

/// Six bytes in hexadecimal digits with colons between them, which a host can have (IEEE 802: no group's, not
/// zero).
fn link_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect::<Option<_>>()?;
    let address: [u8; 6] = bytes.try_into().ok()?;
    (address[0] & 1 == 0 && address != [0; 6]).then_some(address)
}

fn is_not_a_host(address: &IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

/// Enough of a value to recognise it in a message.
fn beginning(value: &str) -> String {
    value.chars().take(64).collect()
}
