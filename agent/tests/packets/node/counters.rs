//! What the programs have counted and reported.

use podgate_common::{Direction, FlowEvent, NameCount, Outcome, Unreported};

use super::Node;

impl Node {
    /// What the programs have reported about packets that user space was not asked about.
    pub(crate) fn take_events(&mut self) -> Vec<FlowEvent> {
        self.counters = self.readers.counters.read().expect("counters");
        std::iter::from_fn(|| self.readers.events.take()).collect()
    }

    /// How often something came of replies for names.
    pub(crate) fn named(&self, of: NameCount) -> u64 {
        let counts = self.readers.counters.names().expect("counters");
        counts.iter().find(|(one, _)| *one == of).map_or(0, |(_, count)| *count)
    }

    /// How often the programs could not tell or remember something.
    pub(crate) fn lost(&self, cause: Unreported) -> u64 {
        let counts = self.readers.counters.unreported().expect("counters");
        counts.iter().find(|(of, _)| *of == cause).map_or(0, |(_, count)| *count)
    }

    /// Counters that have moved since the last call, and by how much.
    pub(super) fn moved_counters(&mut self) -> Vec<(Direction, Outcome, u64)> {
        let counters = self.readers.counters.read().expect("counters");
        let moved = counters
            .iter()
            .zip(&self.counters)
            .filter(|(now, before)| now.2 != before.2)
            .map(|((direction, outcome, now), (_, _, before))| (*direction, *outcome, now - before))
            .collect();
        self.counters = counters;
        moved
    }
}
