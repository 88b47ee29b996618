//! Fragments: the first one that passes leaves its ports for the others of its datagram.

use crate::{FragmentKey, Headers, Ports, Tables, Tuple};

/// Gives a later fragment the ports of its datagram; whether the first one has passed.
#[inline(never)]
pub(super) fn recall_ports<T: Tables>(headers: &mut Headers, tables: &T) -> bool {
    let Some(ports) = tables.fragment(&fragment_key(headers)) else { return false };
    headers.tuple.source_port = ports.source;
    headers.tuple.destination_port = ports.destination;
    true
}

#[inline(never)]
pub(super) fn remember_ports<T: Tables>(headers: &Headers, tables: &T) {
    let Tuple { source_port: source, destination_port: destination, .. } = headers.tuple;
    tables.put_fragment(&fragment_key(headers), Ports { source, destination });
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
