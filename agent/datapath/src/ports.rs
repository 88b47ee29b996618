//! A table of port classes, written through a shared mapping: one store changes one port, none is ever half
//! written.

use std::{
    ops::Range,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type};
use podgate_common::{ClassId, PortClasses, RuleProtocol};

use super::mapping::Mapping;

/// Elements of the array.
#[expect(clippy::cast_possible_truncation, reason = "protocols are few")]
const ELEMENTS: u32 = RuleProtocol::ALL.len() as u32;
const PORTS: usize = 65_536;
const VALUE_BYTES: u32 = 2 * 65_536;
const _: () = assert!(VALUE_BYTES as usize == size_of::<PortClasses>());

/// One inner map of `PORTS`, with its mapping.
#[derive(Debug)]
pub struct PortTable {
    map: MapData,
    mapping: Mapping<[AtomicU16; PORTS]>,
    /// The runs that were written, by protocol, so that only changes are written: the first port of each run
    /// of one class.
    runs: [Vec<(u16, ClassId)>; ELEMENTS as usize],
    writes: u64,
}

impl PortTable {
    /// # Errors
    ///
    /// When the kernel refuses the map or its mapping.
    pub(super) fn create() -> Result<Self> {
        let map = aya_obj::Map::new_from_params(
            bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
            4,
            VALUE_BYTES,
            ELEMENTS,
            BPF_F_MMAPABLE,
        );
        let map = MapData::create(map, "ports", None).context("cannot make the table of ports")?;
        let mapping = Mapping::new(map.fd(), ELEMENTS as usize, true).context("the table of ports")?;
        let runs = std::array::from_fn(|_| vec![(0, ClassId::NONE)]);
        Ok(Self { map, mapping, runs, writes: 0 })
    }

    pub(super) const fn map(&self) -> &MapData {
        &self.map
    }

    /// How often this process has changed the class of a port.
    pub const fn writes(&self) -> u64 {
        self.writes
    }

    /// Sets the classes of all ports of a protocol. `runs`: first port of each run of one class, from 0 on.
    pub fn set_all(&mut self, protocol: RuleProtocol, runs: &[(u16, ClassId)]) {
        let element = protocol.index() as usize;
        // SAFETY: it is there as long as the mapping, and only written by atomic stores.
        let ports = unsafe { self.mapping.element(element).as_ref() };
        for (run, class) in differences(&self.runs[element], runs) {
            self.writes += run.len() as u64;
            ports[run].iter().for_each(|port| port.store(class.0, Ordering::Release));
        }
        runs.clone_into(&mut self.runs[element]);
    }
}

/// The ports that have another class in the second list of runs than in the first, with that class. Both
/// begin at port 0.
fn differences(before: &[(u16, ClassId)], now: &[(u16, ClassId)]) -> Vec<(Range<usize>, ClassId)> {
    let mut differences = Vec::new();
    let (mut known, mut next, mut at) = (before, now, 0);
    while let [(_, class), rest @ ..] = next {
        let end = |rest: &[(u16, ClassId)]| rest.first().map_or(PORTS, |(first, _)| usize::from(*first));
        let rest_known = known.get(1..).unwrap_or_default();
        let until = end(rest).min(end(rest_known));
        if known.first().is_none_or(|(_, known)| known != class) {
            differences.push((at..until, *class));
        }
        if until == end(rest_known) {
            known = rest_known;
        }
        if until == end(rest) {
            next = rest;
        }
        at = until;
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lists of runs with these beginnings and two classes.
    fn lists() -> Vec<Vec<(u16, ClassId)>> {
        let classes = [0, 1].map(ClassId);
        let mut lists: Vec<Vec<(u16, ClassId)>> = classes.map(|class| vec![(0, class)]).to_vec();
        for first in [1, 3, 4, u16::MAX] {
            for list in lists.clone() {
                lists.extend(classes.map(|class| [&list[..], &[(first, class)]].concat()));
            }
        }
        lists
    }

    #[test]
    fn the_ports_of_another_class_are_written_and_no_others() {
        let class = |runs: &[(u16, ClassId)], port: u16| {
            runs[runs.partition_point(|(first, _)| *first <= port) - 1].1
        };
        let lists = lists();
        for (before, now) in lists.iter().flat_map(|before| lists.iter().map(move |now| (before, now))) {
            let differences = differences(before, now);
            for port in (0..6).chain([u16::MAX - 1, u16::MAX]) {
                let written = differences.iter().filter(|(run, _)| run.contains(&usize::from(port)));
                let written: Vec<ClassId> = written.map(|(_, class)| *class).collect();
                let wanted = class(now, port);
                let expected = if class(before, port) == wanted { vec![] } else { vec![wanted] };
                assert_eq!(written, expected, "{port}, {before:?} to {now:?}");
            }
        }
    }
}
