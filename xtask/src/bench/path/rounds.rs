//! Rounds: all variants are visited one after the other, again and again, and what is compared is of the same
//! round.
//!
//! In: scenes that are alive, and how long there is. Out: one sample of each scene for each round. A machine
//! that gets slower for a while does so for all of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{
    measure::Measure,
    scene::Scene,
    variant::{System, Variant},
};
use crate::bench::progress::Progress;

/// Samples of one measure. `values[i][r]` is that of `variants[i]` in round r.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    pub(super) measure: Measure,
    pub(super) variants: Vec<Variant>,
    pub(super) values: Vec<Vec<f64>>,
}

/// Quartiles of fewer rounds mean nothing.
const LEAST: usize = 5;

impl Samples {
    /// Measures for `time`, and a few rounds at least.
    pub(super) fn take(
        measure: Measure,
        scenes: &mut [Scene],
        reference: u32,
        time: Duration,
        progress: &mut Progress,
    ) -> Result<Self> {
        let mut taking: Vec<&mut Scene> =
            scenes.iter_mut().filter(|scene| measure.is_of(scene.variant, reference)).collect();
        let variants: Vec<Variant> = taking.iter().map(|scene| scene.variant).collect();
        let mut values = vec![Vec::new(); variants.len()];
        for scene in &mut taking {
            measure.prepare(scene).with_context(|| scene.variant.describe())?;
        }
        let started = Instant::now();
        let mut round = 0;
        // The first round makes what the others find: flows, caches.
        while round <= LEAST || started.elapsed() < time {
            let left = time.saturating_sub(started.elapsed()).as_secs();
            progress.show(measure.name(), &format!("of {} variants: round {round}, {left} s", taking.len()));
            for position in order(round, taking.len()) {
                let scene = &mut taking[position];
                let value = measure.sample(scene).with_context(|| scene.variant.describe())?;
                if round > 0 {
                    values[position].push(value);
                }
            }
            round += 1;
        }
        Ok(Self { measure, variants, values })
    }

    /// The samples of the only variant of a system.
    pub(super) fn of(&self, system: System) -> Option<&[f64]> {
        let position = self.variants.iter().position(|variant| variant.system == system)?;
        Some(&self.values[position])
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (Variant, &[f64])> {
        self.variants.iter().copied().zip(self.values.iter().map(Vec::as_slice))
    }
}

/// Each round begins elsewhere and every second one goes backwards: no variant always comes after the same
/// other one.
fn order(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |step| {
        let step = if round.is_multiple_of(2) { step } else { count - 1 - step };
        (step + round / 2) % count
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_visits_every_variant_once() {
        for round in 0..10 {
            let mut visited: Vec<_> = order(round, 7).collect();
            assert_ne!(visited, order(round + 1, 7).collect::<Vec<_>>(), "round {round}");
            visited.sort_unstable();
            assert_eq!(visited, (0..7).collect::<Vec<_>>(), "round {round}");
        }
    }
}
