//! The shape of everything that stands in a map, asserted when this crate is compiled: for the kernel and for
//! the host alike. A change here is a change of [`crate::LAYOUT_VERSION`].

use core::mem::offset_of;

use crate::{
    Address, ClassId, Config, Endpoint, FlowCounter, FlowCounterKey, FlowEvent, FlowSeed, FlowShare,
    FragmentKey, HookMark, HostGuard, IdentityId, LabelKey, LinkAddress, NameEntry, NameId, NameNode,
    NameRequest, NameSet, OpenVeth, PolicyId, PortClasses, PortPair, PrefixKey, Rate, Row, RowKey, Seen,
    ServiceId, ServiceKey, Share, SocketOffsets, TRACE_STEPS, TableSetIndex, Timeouts, TraceCounts,
    TraceFilter, TraceStep, TracedAddresses, Tracking, Tuple, VerdictQuery,
};

/// Asserts size, alignment and the offset of every field; a field ends where the next one begins, so that
/// there is no padding and no field is forgotten.
macro_rules! layout {
    ($type:ty: $size:literal bytes, aligned to $align:literal { $($field:tt @ $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            assert!(align_of::<$type>() == $align);
            let mut end = 0;
            $(
                assert!(offset_of!($type, $field) == $offset);
                assert!(end == $offset);
                end += size_of_field(|value: &$type| &value.$field);
            )+
            assert!(end == $size);
        };
    };
}

const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

// ENDPOINTS, LINK_ADDRESSES.
layout!(Endpoint: 72 bytes, aligned to 8 {
    v4 @ 0, v6 @ 16, state @ 32, table_set @ 36, ingress @ 40, egress @ 44, audit_ingress @ 48, audit_egress @ 52,
    master @ 56, flags @ 60, names @ 64, zero @ 68,
});
layout!(LinkAddress: 8 bytes, aligned to 8 { 0 @ 0 });
layout!(TableSetIndex: 4 bytes, aligned to 4 { 0 @ 0 });
layout!(PolicyId: 4 bytes, aligned to 4 { 0 @ 0 });

// ADDRESSES, PREFIXES.
const _: () = assert!(size_of::<Address>() == 16 && align_of::<Address>() == 4);
layout!(PrefixKey: 20 bytes, aligned to 4 { length @ 0, address @ 4 });
layout!(IdentityId: 4 bytes, aligned to 4 { 0 @ 0 });

// SERVICES.
layout!(ServiceKey: 20 bytes, aligned to 4 { address @ 0, port @ 16, protocol @ 18 });
layout!(ServiceId: 4 bytes, aligned to 4 { 0 @ 0 });

// PORTS, ROWS.
layout!(PortClasses: 131_072 bytes, aligned to 2 { 0 @ 0 });
layout!(ClassId: 2 bytes, aligned to 2 { 0 @ 0 });
layout!(RowKey: 12 bytes, aligned to 4 { policy @ 0, identity @ 4, block @ 8 });
layout!(Row: 32 bytes, aligned to 8 { 0 @ 0 });

// LABELS, NAMES.
layout!(NameId: 4 bytes, aligned to 4 { 0 @ 0 });
layout!(NameNode: 4 bytes, aligned to 4 { 0 @ 0 });
layout!(NameEntry: 24 bytes, aligned to 8 { address @ 0, name @ 16, until @ 20 });
const _: () = assert!(size_of::<LabelKey>() == 72 && align_of::<LabelKey>() == 8);
const _: () = assert!(size_of::<NameSet>() == 200 && align_of::<NameSet>() == 8);

// FLOWS, FLOW_SHARES, OPEN_VETHS.
layout!(Seen: 4 bytes, aligned to 4 { 0 @ 0 });
layout!(OpenVeth: 8 bytes, aligned to 8 { 0 @ 0 });
layout!(FlowShare: 8 bytes, aligned to 8 { 0 @ 0 });

// HOST_GUARD.
layout!(HostGuard: 16 bytes, aligned to 8 { deadline @ 0, content @ 8 });

// SHARES. `Rate` has two words, which no one else knows.
layout!(Share: 20 bytes, aligned to 4 { flow_counters @ 0, events @ 4, fragments @ 12 });
const _: () = assert!(size_of::<Rate>() == 8 && align_of::<Rate>() == 4);

// COUNTERS: one value of so many numbers.
const _: () = assert!(crate::COUNTERS == 80);

// FLOW_COUNTERS, EVENTS.
layout!(FlowCounterKey: 12 bytes, aligned to 4 { ifindex @ 0, identity @ 4, class @ 8, direction @ 10, outcome @ 11 });
layout!(FlowCounter: 48 bytes, aligned to 8 {
    packets @ 0, since @ 8, unreported @ 12, peer @ 16, revision @ 32, port @ 36, protocol @ 38, reported @ 39,
    charged_to @ 40, from @ 44,
});
layout!(FlowEvent: 64 bytes, aligned to 8 {
    time @ 0, packets @ 8, ifindex @ 12, policy @ 16, revision @ 20, source @ 24, destination @ 40, source_port @ 56,
    destination_port @ 58, protocol @ 60, direction @ 62, outcome @ 63,
});

// TRACES, TRACE_FILTER, TRACE_COUNTS: of programs that trace alone, and never pinned for long.
layout!(Tuple: 40 bytes, aligned to 4 { source @ 0, destination @ 16, source_port @ 32, destination_port @ 34, protocol @ 36 });
layout!(TraceStep: 32 bytes, aligned to 8 { kind @ 0, words @ 8 });
const _: () = assert!(size_of::<crate::PacketTrace>() == 96 + 32 * TRACE_STEPS);
const _: () = assert!(size_of::<TracedAddresses>() == 136 && align_of::<TracedAddresses>() == 8);
layout!(TraceFilter: 288 bytes, aligned to 8 { from @ 0, to @ 136, protocol @ 272, port @ 276, per_second @ 280, zero @ 284 });
layout!(TraceCounts: 32 bytes, aligned to 8 { matched @ 0, limited @ 8, unread @ 16, rate @ 24 });

// In the packet of a test run.
layout!(VerdictQuery: 32 bytes, aligned to 4 { ifindex @ 0, direction @ 4, peer @ 8, protocol @ 24, port @ 28 });
layout!(NameRequest: 32 bytes, aligned to 8 { ifindex @ 0, table @ 4, address @ 8, name @ 24, seconds @ 28 });

// FRAGMENTS.
layout!(FragmentKey: 40 bytes, aligned to 4 { source @ 0, destination @ 16, id @ 32, protocol @ 36 });
layout!(PortPair: 4 bytes, aligned to 2 { source @ 0, destination @ 2 });

// In the programs' code.
layout!(Config: 132 bytes, aligned to 4 {
    timeouts @ 0, recheck @ 20, masqueraded @ 24, encapsulation @ 28, shortcut @ 32, tracking @ 36, hook_mark @ 48,
    sockets @ 56, flow_sets @ 72, flow_seed @ 76, reorders @ 116, names @ 120,
    names_keep @ 124, jiffies_per_second @ 128,
});
layout!(SocketOffsets: 16 bytes, aligned to 4 {
    socket @ 0, socket_namespace @ 4, device @ 8, device_namespace @ 12,
});
layout!(HookMark: 8 bytes, aligned to 4 { byte @ 0, mask @ 4 });
layout!(FlowSeed: 40 bytes, aligned to 4 { 0 @ 0 });
layout!(Tracking: 12 bytes, aligned to 4 { connection_type @ 0, connection @ 4, tuples @ 8 });
layout!(Timeouts: 20 bytes, aligned to 4 { tcp @ 0, tcp_half @ 4, stream @ 8, unreplied @ 12, refresh @ 16 });

#[cfg(test)]
mod tests {
    use std::{slice, vec::Vec};

    use super::*;

    /// The bytes that a map is given.
    fn bytes<T>(value: &T) -> Vec<u8> {
        // SAFETY: the value lives, and has no padding (asserted above).
        unsafe { slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }.to_vec()
    }

    #[test]
    fn an_address_is_in_network_byte_order_in_every_key() {
        let low = Address::from_v4([10, 1, 2, 3]);
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(bytes(&Address::from_v6(v6)), v6);
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
        assert_eq!(bytes(&low), mapped);
        let prefix = PrefixKey { length: 128, address: low };
        assert_eq!(bytes(&prefix), [&128_u32.to_ne_bytes()[..], &mapped[..]].concat());
    }

    #[test]
    fn the_bits_of_a_row_are_counted_from_the_low_end_of_its_first_word() {
        for class in [0, 1, 63, 64, 127, 128, 191, 192, 255_u16] {
            let mut row = Row::default();
            row.set(ClassId(class));
            let mut expected = [0_u64; 4];
            expected[usize::from(class / 64)] = 1 << (class % 64);
            assert_eq!(bytes(&row), bytes(&expected), "class {class}");
        }
    }
}
