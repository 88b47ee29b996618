//! One figure of a benchmark, as a line of JSON.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    variant: String,
    unit: &'static str,
    median: f64,
    quartiles: [f64; 2],
    /// The same difference between two things that are alike.
    control: Option<f64>,
    /// At most.
    goal: Option<f64>,
    met: Option<bool>,
}

impl Figure {
    pub(crate) fn of(
        name: String,
        variant: String,
        unit: &'static str,
        mut samples: Vec<f64>,
        control: Option<f64>,
        goal: Option<f64>,
    ) -> Self {
        let median = median(&mut samples);
        // Sorted now.
        let quartiles = [1, 3].map(|quarter| samples[quarter * (samples.len() - 1) / 4]);
        Self { name, variant, unit, median, quartiles, control, goal, met: goal.map(|goal| median <= goal) }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The upper one of two in the middle. Sorts the samples.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
