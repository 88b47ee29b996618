//! The maps of names: the tree of the names that rules have, who is believed, and what each pod has learnt.
//!
//! The agent writes the tree and the resolvers, and makes a table for each pod with such rules; only
//! programs enter what was learnt. Nodes of the tree have numbers that are never given again, so that what
//! was learnt for a name is never taken for another one, whichever agent comes next.

mod reader;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{ArrayOfMaps, MapData, MapError},
};
use aya_obj::generated::bpf_map_type;
use podgate_common::{
    FlowSeed, LabelKey, MAX_LABELS, MAX_LIFETIME, MAX_NAME_TABLES, MAX_RESOLVERS, NameId, NameNode, NameSet,
    Resolver, ServiceKey,
};

use podgate_core::compiler::NamePlace;

use self::reader::OpenTables;
pub use self::{
    reader::{LearntAddress, NameReader, NameTableSizes},
    writer::NameWriter,
};
use super::{MapTable, TickClock, maps, sys};

/// Names that no rule has any more, of which what was learnt is kept: as many as change at a time.
const MAX_RETIRED: usize = 256;

/// How long anything lives that was learnt.
const LIFETIME: Duration = Duration::from_secs(MAX_LIFETIME as u64);

/// The numbers of nodes, by the name that leads to each.
type NodeNumbers = BTreeMap<Vec<Box<[u8]>>, u32>;

/// The maps, and what is in them.
#[expect(missing_debug_implementations, reason = "aya's arrays have none")]
pub struct NameMaps {
    labels: MapTable<LabelKey, NameNode>,
    /// Resolvers, by address, port and protocol.
    pub resolvers: MapTable<ServiceKey, Resolver>,
    tables: ArrayOfMaps<MapData, MapData>,
    outer: std::os::fd::OwnedFd,
    /// The node of each name that ends as one of the rules does.
    nodes: NodeNumbers,
    /// Those of them that no rule has any more, and since when: what was learnt for them may live on.
    retired: BTreeMap<Vec<Box<[u8]>>, Instant>,
    next: u32,
    /// Veths whose pods have rules with names and could not be given a table, by ifindex.
    pub without_table: BTreeSet<u32>,
    /// The same tables and numbers, for those who read.
    open: OpenTables,
}

impl NameMaps {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let outer = maps::descriptor(ebpf, "NAMES")?;
        let labels: MapTable<LabelKey, NameNode> =
            MapTable::taken_over("labels of names", maps::take(ebpf, "LABELS")?)?;
        let resolvers = MapTable::taken_over("resolvers", maps::take(ebpf, "RESOLVERS")?)?;
        let (nodes, next) = read(labels.entries());
        let (tables, open) = (maps::take(ebpf, "NAMES")?, OpenTables::default());
        open_all(&tables, &open)?;
        open.set_nodes(&nodes);
        Ok(Self {
            labels,
            resolvers,
            tables,
            outer,
            nodes,
            retired: BTreeMap::new(),
            next,
            without_table: BTreeSet::new(),
            open,
        })
    }

    /// For those who only read what was learnt.
    pub(super) fn reader(&self, clock: TickClock, seed: FlowSeed) -> NameReader {
        NameReader::new(self.open.clone(), clock, seed)
    }

    /// For who enters what the agent itself has learnt.
    pub(super) fn writer(&self, ebpf: &mut Ebpf) -> Result<NameWriter> {
        NameWriter::new(ebpf, self.open.clone())
    }

    /// Entries and room of the tree, of the resolvers, and of the tables of pods.
    pub fn sizes(&self) -> [(&'static str, usize, Option<u32>); 3] {
        let size = |name, entries, most| (name, entries, u32::try_from(most).ok());
        [
            size("name_labels", self.labels.entries().len(), MAX_LABELS),
            size("resolvers", self.resolvers.entries().len(), MAX_RESOLVERS),
            size("name_tables", self.open.count(), MAX_NAME_TABLES),
        ]
    }

    /// Gives a number to each name that the tree does not have yet. The programs do not see them before
    /// [`Self::show`].
    ///
    /// # Errors
    ///
    /// When the kernel does not take the number of the next node, or all numbers are used up.
    pub fn number<'a>(&mut self, places: impl IntoIterator<Item = &'a NamePlace>) -> Result<()> {
        let mut next = self.next;
        let mut made = BTreeMap::new();
        for (suffix, _) in places {
            for at in (0..suffix.len()).rev() {
                if !self.nodes.contains_key(&suffix[at..]) && !made.contains_key(&suffix[at..]) {
                    made.insert(suffix[at..].to_vec(), next);
                    next += 1;
                }
            }
        }
        if next != self.next {
            ensure!(next <= NameNode::MAX_NUMBER, "all numbers of names are used up");
            // Before any of them is in use: no agent after this one gives them again.
            self.labels.put(LabelKey::COUNTER, NameNode(next))?;
            self.next = next;
            self.nodes.extend(made);
            self.open.set_nodes(&self.nodes);
        }
        Ok(())
    }

    /// What the programs call a name.
    pub fn id(&self, (suffix, left): &NamePlace) -> Option<NameId> {
        let number = *self.nodes.get(suffix)?;
        Some(NameId::new(NameNode::new(number, [true; 3]), *left))
    }

    /// The name of an id.
    pub fn place(&self, id: NameId) -> Option<NamePlace> {
        let (number, left) = id.parts();
        let (suffix, _) = self.nodes.iter().find(|(_, node)| **node == number)?;
        Some((suffix.clone(), left))
    }

    /// Writes the tree: from now on these names are learnt. The compiler names no more than fit.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn show(&mut self, places: &BTreeSet<NamePlace>) -> Result<()> {
        self.labels.put_all(&self.wanted(places))
    }

    /// Takes all other names from the tree. Their numbers are theirs alone, and stay for as long as anything
    /// may live that was learnt for them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep(&mut self, places: &BTreeSet<NamePlace>) -> Result<()> {
        self.labels.keep(&self.wanted(places))?;
        let now = Instant::now();
        if self.retired.len() > MAX_RETIRED {
            self.retired.values_mut().for_each(|since| *since -= LIFETIME);
        }
        let is_over = |since: &Instant| now.duration_since(*since) >= LIFETIME;
        let over: Vec<_> = self.retired.extract_if(.., |_, since| is_over(since)).collect();
        for (name, _) in &over {
            self.nodes.remove(name);
        }
        if !over.is_empty() {
            self.open.set_nodes(&self.nodes);
        }
        Ok(())
    }

    /// How many names have a number.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Notes which names no rule has any more.
    pub fn retire(&mut self, places: &BTreeSet<NamePlace>) {
        let numbers: BTreeSet<u32> = self.wanted(places).values().map(|node| node.number()).collect();
        for (name, number) in &self.nodes {
            if numbers.contains(number) {
                self.retired.remove(name);
            } else {
                self.retired.entry(name.clone()).or_insert_with(Instant::now);
            }
        }
    }

    /// The names that no rule has any more, each with the name that it is to the rules that there are: one
    /// with fewer labels, and more before them.
    pub fn retired(&self) -> Vec<(NameId, Option<NamePlace>)> {
        let is_there = |name: &[Box<[u8]>]| self.nodes.contains_key(name) && !self.retired.contains_key(name);
        let mut places = Vec::new();
        for name in self.retired.keys() {
            let above = (1..name.len()).find(|at| is_there(&name[*at..]));
            for left in 0..3 {
                let Some(id) = self.id(&(name.clone(), left)) else { continue };
                let place = above.map(|at| {
                    let more = u32::try_from(at).unwrap_or(u32::MAX);
                    (name[at..].to_vec(), left.saturating_add(more).min(2))
                });
                places.push((id, place));
            }
        }
        places
    }

    fn wanted(&self, places: &BTreeSet<NamePlace>) -> BTreeMap<LabelKey, NameNode> {
        let mut matched: BTreeMap<&[Box<[u8]>], [bool; 3]> = BTreeMap::new();
        for (suffix, left) in places {
            for at in 0..suffix.len() {
                matched.entry(&suffix[at..]).or_default();
            }
            if let Some(case) = matched.entry(suffix).or_default().get_mut(*left as usize) {
                *case = true;
            }
        }
        let number = |suffix: &[Box<[u8]>]| self.nodes.get(suffix).copied().unwrap_or(0);
        let entries = matched.into_iter().filter_map(|(suffix, matched)| {
            let (label, parent) = suffix.split_first()?;
            let key = LabelKey::new(number(parent), label)?;
            Some((key, NameNode::new(number(suffix), matched)))
        });
        let counted = (self.next > 1).then_some((LabelKey::COUNTER, NameNode(self.next)));
        entries.chain(counted).collect()
    }

    /// Makes an empty table for a pod, under a number that no endpoint has.
    ///
    /// # Errors
    ///
    /// When all numbers are in use, or the kernel refuses.
    pub fn make_table(&mut self, in_use: &BTreeSet<u32>) -> Result<u32> {
        let most = u32::try_from(MAX_NAME_TABLES)?;
        let number = (1..=most).find(|number| !in_use.contains(number));
        let number = number.with_context(|| format!("more than {most} pods have rules with names"))?;
        let array = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        let map = aya_obj::Map::new_from_params(array, 4, NameSet::WORDS * 8, NameSet::ELEMENTS, 0);
        let map = MapData::create(map, "names", None).context("cannot make a table of names")?;
        let open = maps::keep_open(&map)?;
        self.tables.set(number, &map, 0).context("cannot install a table of names")?;
        self.open.put(number, open);
        Ok(number)
    }

    /// Removes the table of a pod that is gone, or has no such rules any more.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn remove_table(&mut self, number: u32) -> Result<()> {
        self.open.remove(number);
        sys::delete(&self.outer, number).context("cannot remove a table of names")
    }
}

/// Opens the tables that an earlier agent has made. It takes CAP_SYS_ADMIN, which a running agent has not.
fn open_all(tables: &ArrayOfMaps<MapData, MapData>, open: &OpenTables) -> Result<()> {
    for number in 1..=u32::try_from(MAX_NAME_TABLES)? {
        match tables.get(&number, 0) {
            Ok(table) => open.put(number, maps::keep_open(&table)?),
            Err(MapError::KeyNotFound) => {}
            // What stands there goes on to count. Only no one sees it.
            Err(error) => tracing::warn!("cannot open table {number} of names: {error:#}"),
        }
    }
    Ok(())
}

/// The names of the nodes, and the next number, from the labels that the kernel holds.
fn read(labels: &BTreeMap<LabelKey, NameNode>) -> (NodeNumbers, u32) {
    let by_number: BTreeMap<u32, &LabelKey> = labels
        .iter()
        .map(|(key, node)| (node.number(), key))
        .filter(|(_, key)| **key != LabelKey::COUNTER)
        .collect();
    let next = labels.get(&LabelKey::COUNTER).map_or(1, |next| next.0);
    let name = |number: u32| {
        let (mut name, mut at) = (Vec::new(), number);
        while let Some(key) = by_number.get(&at) {
            name.push(key.label().as_ref().into());
            at = key.parent;
        }
        name
    };
    (by_number.keys().map(|number| (name(*number), *number)).collect(), next)
}
