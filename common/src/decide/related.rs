//! ICMP errors: they belong to the connection of the packet that they quote.

use super::{is_alive, is_forged, is_spoofed, shortcut, unknown};
use crate::{Direction, Headers, Hook, NODE, Outcome, Reach, Scratch, Seen, Tables, Tuple, protocol::number};

/// An ICMP error passes when it speaks of a connection that was evaluated here, to the one who sent the
/// quoted packet.
#[inline(never)]
pub(super) fn related<T: Tables>(scratch: &mut Scratch, hook: &Hook, tables: &T) -> Outcome {
    let Scratch { headers: Headers { sender, tuple: quoted, .. }, lookup, receiver, .. } = scratch;
    let endpoint = tables.endpoint(hook.ifindex);
    match hook.direction {
        Direction::Egress if is_spoofed(sender, &endpoint, hook.ifindex, tables) => return Outcome::Spoofed,
        Direction::Ingress if hook.ingress_ifindex == NODE => return Outcome::OwnNode,
        Direction::Ingress if is_forged(sender, hook.ingress_ifindex, tables) => return Outcome::Spoofed,
        _ => {}
    }
    lookup.turn_to(quoted);
    let source_is_low = lookup.source_is_low();
    if tables.flow(lookup, Reach::Everywhere).is_some() {
        let flow = &lookup.flow;
        let quoted_from_client = flow.seen.has(Seen::CLIENT_IS_LOW) == source_is_low;
        // The error goes to the quoted sender's side, and leaves from the other side.
        let client_side = quoted_from_client == matches!(hook.direction, Direction::Ingress);
        let evaluated_at = if client_side { flow.client_if } else { flow.server_if };
        if evaluated_at == hook.ifindex && is_alive(flow, lookup.key.protocol(), tables.now(), tables) {
            if matches!(hook.direction, Direction::Egress) {
                *receiver = shortcut::receiver_of_error(flow, quoted_from_client, hook.ifindex, tables);
            }
            return Outcome::Related;
        }
    }
    let outcome = unknown(hook, Outcome::Denied, tables);
    *quoted = Tuple {
        source: *sender,
        destination: quoted.source,
        protocol: if sender.is_v4() { number::ICMP } else { number::ICMPV6 },
        ..Tuple::EMPTY
    };
    outcome
}
