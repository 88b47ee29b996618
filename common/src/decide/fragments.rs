//! Fragments: the first one that passes leaves its ports for the others of its datagram.

use crate::{FragmentKey, Headers, PortPair, Scratch, Tables, Tuple};

/// Gives a later fragment the ports of its datagram; whether the first one has passed.
#[inline(never)]
pub(super) fn recall_ports<T: Tables>(headers: &mut Headers, tables: &T) -> bool {
    let Some(ports) = tables.fragment(&fragment_key(headers)) else { return false };
    headers.tuple.source_port = ports.source;
    headers.tuple.destination_port = ports.destination;
    true
}

#[inline(never)]
pub(super) fn remember_ports<T: Tables>(scratch: &Scratch, tables: &T) {
    let headers = &scratch.headers;
    let Tuple { source_port: source, destination_port: destination, .. } = headers.tuple;
    let (key, ports) = (fragment_key(headers), PortPair { source, destination });
    // Between two pods of a node, the sender's veth has noted it.
    if tables.fragment(&key) != Some(ports) {
        tables.put_fragment(&key, ports, scratch.charged_to(tables));
    }
}

#[inline(always)]
fn fragment_key(headers: &Headers) -> FragmentKey {
    FragmentKey {
        source: headers.tuple.source,
        destination: headers.tuple.destination,
        id: headers.datagram,
        protocol: headers.tuple.protocol,
    }
}
