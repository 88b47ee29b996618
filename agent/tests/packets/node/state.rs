//! The connections and fragments that kernel and user space know.

use std::collections::BTreeMap;

use podgate_common::{Endpoint, Flow, FlowKey, FragmentKey, JIFFIES_PER_TICK, PortPair, TableSetIndex};
use podgate_core::{
    compiler::CompiledTables,
    memory::{self, Memory},
};
use podgate_datapath::{
    publisher::EndpointEntry,
    sockets::{Socket, sides},
};

use super::Node;
use crate::{
    snapshot::entries,
    world::{Family, Host},
};

impl Node {
    /// Lets time pass for all connections.
    pub(crate) fn idle(&mut self, seconds: u32) {
        self.now += seconds * Memory::TICKS_PER_SECOND;
        let ticks = seconds * jiffies_per_second() / JIFFIES_PER_TICK;
        let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
        for (key, flow) in flows.entries() {
            let last = flow.last.wrapping_sub(ticks);
            flows.enter(key, |_| Flow { last, ..flow }).expect("an entry that is there");
        }
        let mut fragments = self.pinned.fragments();
        for (key, PortPair { source, destination }) in entries(&fragments) {
            if is_mark(&key) {
                // In place of ports it has when it was made.
                let at = u32::from(source) << 16 | u32::from(destination);
                let [a, b, c, d] = at.wrapping_sub(ticks).to_be_bytes();
                let earlier =
                    PortPair { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]) };
                fragments.insert(key, earlier, 0).expect("an entry that is there");
            }
        }
    }

    /// Forgets all connections and fragments.
    pub(crate) fn forget(&mut self) {
        self.flows.clear();
        self.fragments.clear();
        self.counters = self.readers.counters.read().expect("counters");
        let mut fragments = self.pinned.fragments();
        let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
        flows.remove(|_, _| true);
        for key in entries(&fragments).into_keys() {
            fragments.remove(&key).expect("an entry that is there");
        }
    }

    /// Enters the connections that a pod's sockets report.
    pub(crate) fn enter_older(&mut self, pod: Host, sockets: &[Socket]) {
        let own = Family::ALL.map(|family| pod.at(family)).into();
        let now = self.readers.clock.now().expect("the kernel's clock");
        for (key, side) in sides(sockets, &own) {
            let entry = |known| side.entry(known, pod.veth(), now);
            let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
            flows.enter(key, entry).expect("no one else writes");
            let known = self.flows.get(&key).copied();
            self.flows.insert(key, side.entry(known, pod.veth(), self.now));
        }
        self.assert_same_state();
    }

    pub(crate) const fn flows(&self) -> &BTreeMap<FlowKey, Flow> {
        &self.flows
    }

    pub(crate) fn flow_count(&self) -> usize {
        let [(_, flows, _), ..] = self.readers.tables.fill().expect("the kernel counts")[..] else {
            panic!("the flow table is the first");
        };
        assert_eq!(flows, self.flows.len());
        self.flows.len()
    }

    /// Asserts that the kernel knows the same connections and fragments as user space.
    #[track_caller]
    pub(crate) fn assert_same_state(&self) {
        // The two clocks have nothing in common.
        let timeless = |(key, flow): (FlowKey, Flow)| (key, Flow { last: 0, ..flow });
        let flows = self.datapath.maps.flows.open().expect("the kernel maps it");
        let flows: BTreeMap<_, _> = flows.entries().map(timeless).collect();
        assert_eq!(flows, self.flows.clone().into_iter().map(timeless).collect(), "connections");
        let timeless = |fragments: BTreeMap<FragmentKey, PortPair>| -> BTreeMap<_, _> {
            fragments.into_iter().map(|(key, ports)| (key, (!is_mark(&key)).then_some(ports))).collect()
        };
        let fragments = timeless(entries(&self.pinned.fragments()));
        assert_eq!(fragments, timeless(self.fragments.clone()), "fragments");
    }
}

/// Whether it is a mark of something that was seen lately, and no datagram.
const fn is_mark(key: &FragmentKey) -> bool {
    key.protocol & FragmentKey::MARK != 0
}

/// Of the kernel's clock, which stands in the entries of connections.
fn jiffies_per_second() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    assert_eq!(result, 0);
    u32::try_from(1_000_000_000 / resolution.tv_nsec).expect("at most 1,000")
}

/// An endpoint as the publisher writes it, but for addresses and names.
pub(crate) fn in_memory(tables: &CompiledTables, entry: &EndpointEntry) -> Endpoint {
    Endpoint {
        state: entry.state as u32,
        table_set: TableSetIndex(0),
        ingress: memory::policy_id(tables, entry.subject.ingress),
        egress: memory::policy_id(tables, entry.subject.egress),
        audit_ingress: memory::policy_id(tables, entry.subject.audit_ingress),
        audit_egress: memory::policy_id(tables, entry.subject.audit_egress),
        master: entry.master,
        ..Endpoint::PENDING
    }
}
