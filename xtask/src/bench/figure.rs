//! A figure: one measured number, what it is of, and how it stands to its goal.
//!
//! In: quartiles. Out: what stands in JSON, tables and pages. Whether a goal is met follows from the median
//! alone and is never written by hand.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::statistics::Quartiles;

/// One number of a benchmark. Its JSON is the same for all kinds of measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// What was measured: a filter, a path through a program.
    pub(crate) variant: String,
    #[serde(default)]
    pub(crate) policies: Option<u32>,
    #[serde(default)]
    pub(crate) place: Option<Standing>,
    pub(crate) unit: String,
    pub(crate) median: f64,
    pub(crate) quartiles: [f64; 2],
    /// How far the second of two equal variants was off, in per cent.
    #[serde(default)]
    pub(crate) control: Option<f64>,
    #[serde(default)]
    pub(crate) goal: Option<Goal>,
    #[serde(default)]
    pub(crate) met: Option<bool>,
}

/// Where the policies that match stand among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    First,
    Last,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(crate) fn new(name: &str, variant: impl fmt::Display, unit: &str, value: Quartiles) -> Self {
        Self {
            name: name.to_owned(),
            variant: variant.to_string(),
            policies: None,
            place: None,
            unit: unit.to_owned(),
            median: value.median,
            quartiles: value.both(),
            control: None,
            goal: None,
            met: None,
        }
    }

    pub(crate) fn with_goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self.met = Some(goal.is_met_by(self.median));
        self
    }
}

impl Figure {
    /// Its quartiles, for people.
    pub(crate) fn between(&self) -> String {
        let [q1, q3] = self.quartiles.map(readable);
        format!("{q1} to {q3}")
    }
}

impl Goal {
    pub(crate) fn limit(self) -> f64 {
        let (Self::AtMost(limit) | Self::AtLeast(limit)) = self;
        limit
    }

    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Last => "last",
        })
    }
}

/// A number as people read it: three digits that count, thousands set apart.
pub(crate) fn readable(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (sign, rest) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, part) = rest.split_once('.').map_or((rest, String::new()), |(a, b)| (a, format!(".{b}")));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{part}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VALUE: Quartiles = Quartiles { q1: 90.0, median: 100.0, q3: 120.0 };

    #[test]
    fn a_goal_is_met_by_the_median() {
        for (goal, met) in [
            (Goal::AtMost(100.0), true),
            (Goal::AtMost(99.0), false),
            (Goal::AtLeast(100.0), true),
            (Goal::AtLeast(101.0), false),
        ] {
            assert_eq!(Figure::new("cost", "podgate", "ns", VALUE).with_goal(goal).met, Some(met), "{goal}");
        }
    }

    #[test]
    fn a_line_of_another_measurement_is_read_with_what_it_leaves_out() {
        let line = json!({
            "name": "decision", "variant": "v4, hot", "unit": "ns", "median": 9.5, "quartiles": [9.0, 10.0],
            "control": 0.2, "goal": {"at_most": 15.0}, "met": true,
        });
        let figure: Figure = serde_json::from_value(line).expect("the common form");
        assert_eq!((figure.goal, figure.policies), (Some(Goal::AtMost(15.0)), None));
        let written = serde_json::to_value(&figure).expect("figures are plain data");
        assert_eq!(serde_json::from_value::<Figure>(written).expect("its own form"), figure);
    }

    #[test]
    fn numbers_are_short_and_keep_their_sign() {
        for (value, expected) in [
            (0.0, "0.00"),
            (-0.256, "-0.26"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (-256_463.2, "-256,463"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(readable(value), expected);
        }
    }
}
