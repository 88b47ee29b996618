//! From samples to figures: what podgate and the others add to a path, next to the goals.
//!
//! In: the samples of one measure. Out: figures, or a refusal when the control says that they would mean
//! nothing. Everything is a comparison within rounds; medians are taken at the end.

use super::{
    measure::Measure,
    rounds::Samples,
    variant::{System, Variant},
};
use crate::bench::{
    figure::{Figure, Goal},
    report::Refusal,
    statistics::Quartiles,
};

/// A difference below this is no difference, in ns; a ratio needs something to divide by.
const LEAST: f64 = 1.0;

/// All figures of one measure.
///
/// Errors: the two variants without a filter differ by more than the measure tolerates.
pub(super) fn compare(samples: &Samples, reference: u32) -> Result<Vec<Figure>, Refusal> {
    let measure = samples.measure;
    let refusal = |off| Refusal { name: measure.name().to_owned(), off, tolerance: measure.tolerance() };
    let nothing = samples.of(System::Nothing).ok_or(refusal(None))?;
    let control = samples.of(System::Control).ok_or(refusal(None))?;
    let off = Quartiles::paired(control, nothing, |again, nothing| 100.0 * (again / nothing - 1.0));
    let off = off.ok_or(refusal(None))?.median;
    if off.is_nan() || off.abs() > measure.tolerance() {
        return Err(refusal(Some(off)));
    }
    let comparison = Comparison { samples, nothing, reference };
    let mut figures = comparison.absolute();
    figures.extend(comparison.added());
    match measure {
        Measure::Established => {
            figures.extend(comparison.rate("TCP request/response, of nothing", 98.0));
            figures.extend(comparison.conntrack());
        }
        Measure::Connect => {
            figures.extend(comparison.rate("connects, of nothing", 95.0));
            figures.extend(comparison.steadiness());
            figures.extend(comparison.npm());
        }
        Measure::Request => figures.extend(comparison.of_nothing(85.0)),
        Measure::Bulk => figures.extend(comparison.of_nothing(87.0)),
        _ => {}
    }
    figures.iter_mut().for_each(|figure| figure.control = Some(off));
    Ok(figures)
}

struct Comparison<'a> {
    samples: &'a Samples,
    nothing: &'a [f64],
    reference: u32,
}

impl Comparison<'_> {
    /// What was measured, as it is.
    fn absolute(&self) -> Vec<Figure> {
        let measure = self.samples.measure;
        let figures = self.samples.each().filter_map(|(variant, values)| {
            let values = values.iter().map(|&value| match measure {
                Measure::Connect => 1e9 / value,
                _ => value,
            });
            let figure = of(variant, measure.name(), measure.unit(), Quartiles::of(values)?);
            let goal = (measure == Measure::Goodput && is_podgate(variant)).then_some(Goal::AtLeast(99.0));
            Some(with_goal(figure, goal))
        });
        figures.collect()
    }

    /// What a filter adds to the path without one.
    fn added(&self) -> Vec<Figure> {
        let measure = self.samples.measure;
        let goal = match measure {
            Measure::Established => Some(Goal::AtMost(150.0)),
            Measure::OneWay => Some(Goal::AtMost(200.0)),
            Measure::OneWayCold => Some(Goal::AtMost(400.0)),
            Measure::Denied => Some(Goal::AtMost(300.0)),
            Measure::Bulk => Some(Goal::AtMost(2.5)),
            Measure::Connect | Measure::Goodput => return Vec::new(),
            Measure::EstablishedWarm | Measure::OneWayWarm | Measure::Request | Measure::Syn => None,
        };
        let name = format!("{}, added", measure.name());
        let figures = self.filters().filter_map(|(variant, values)| {
            let (unit, value) = match measure {
                Measure::Bulk => {
                    ("% CPU/GB", self.against_nothing(values, |it, nothing| 100.0 * (it / nothing - 1.0))?)
                }
                _ => (measure.unit(), self.against_nothing(values, |it, nothing| it - nothing)?),
            };
            Some(with_goal(of(variant, &name, unit, value), goal.filter(|_| is_podgate(variant))))
        });
        figures.collect()
    }

    /// How long it takes, where a hundred are without a filter. The goal is the short cut's.
    fn of_nothing(&self, most: f64) -> Vec<Figure> {
        let name = format!("{}, of nothing", self.samples.measure.name());
        let figures = self.filters().filter_map(|(variant, values)| {
            let value = self.against_nothing(values, |it, nothing| 100.0 * it / nothing)?;
            let goal = (variant.system == System::Shortcut).then_some(Goal::AtMost(most));
            Some(with_goal(of(variant, &name, "%", value), goal))
        });
        figures.collect()
    }

    /// How many exchanges there are in the time of a hundred without a filter.
    fn rate(&self, name: &str, least: f64) -> Vec<Figure> {
        let figures = self.filters().filter_map(|(variant, values)| {
            let value = self.against_nothing(values, |it, nothing| 100.0 * nothing / it)?;
            let goal = is_podgate(variant).then_some(Goal::AtLeast(least));
            Some(with_goal(of(variant, name, "%", value), goal))
        });
        figures.collect()
    }

    /// How many times conntrack and one rule add what podgate adds.
    fn conntrack(&self) -> Vec<Figure> {
        let Some(conntrack) = self.samples.of(System::Conntrack) else { return Vec::new() };
        let figures =
            self.filters().filter(|(variant, _)| is_podgate(*variant)).filter_map(|(variant, values)| {
                let rounds = values.iter().zip(conntrack).zip(self.nothing);
                let ratios = rounds
                    .map(|((it, conntrack), nothing)| (conntrack - nothing) / (it - nothing).max(LEAST));
                let name = "conntrack + 1 rule adds, times of podgate";
                Some(of(variant, name, "×", Quartiles::of(ratios)?).with_goal(Goal::AtLeast(3.0)))
            });
        figures.collect()
    }

    /// How far connects with policies are from those without any, by either hook.
    fn steadiness(&self) -> Vec<Figure> {
        let figures = self.filters().filter_map(|(variant, values)| {
            let is_free = |other: &Variant| other.system == variant.system && other.policies == 0;
            let free = self.samples.variants.iter().position(is_free)?;
            if !is_podgate(variant) || variant.policies == 0 {
                return None;
            }
            let free = &self.samples.values[free];
            let change = Quartiles::paired(values, free, |it, free| 100.0 * (free / it - 1.0))?;
            let name = "connects, apart from those without policies";
            let apart = Quartiles { median: change.median.abs(), ..change };
            Some(of(variant, name, "%", apart).with_goal(Goal::AtMost(1.0)))
        });
        figures.collect()
    }

    /// How many connects podgate lets through in the time that NPM's rules need for one.
    fn npm(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (variant, values) in self.filters().filter(|(variant, _)| is_podgate(*variant)) {
            for (other, npm) in self.filters().filter(|(other, _)| matches!(other.system, System::Npm(_))) {
                let equal = Variant { system: variant.system, ..other } == variant;
                let Some(ratio) = Quartiles::paired(npm, values, |npm, it| npm / it).filter(|_| equal) else {
                    continue;
                };
                let figure = of(variant, &format!("connects, times of {}", other.system), "×", ratio);
                let goal = other.is_core(self.reference).then_some(Goal::AtLeast(4.0));
                figures.push(with_goal(figure, goal));
            }
        }
        figures
    }

    /// All but the variant that the others are compared with, and its control.
    fn filters(&self) -> impl Iterator<Item = (Variant, &[f64])> {
        let is_filter = |system| !matches!(system, System::Nothing | System::Control);
        self.samples.each().filter(move |(variant, _)| is_filter(variant.system))
    }

    fn against_nothing(&self, values: &[f64], compare: impl Fn(f64, f64) -> f64) -> Option<Quartiles> {
        Quartiles::paired(values, self.nothing, compare)
    }
}

fn is_podgate(variant: Variant) -> bool {
    matches!(variant.system, System::Podgate(_) | System::Shortcut | System::SmallTable)
}

fn of(variant: Variant, name: &str, unit: &str, value: Quartiles) -> Figure {
    let mut figure = Figure::new(name, variant.system, unit, value);
    let filters =
        !matches!(variant.system, System::Nothing | System::Control | System::Empty | System::Conntrack);
    figure.policies = filters.then_some(variant.policies);
    figure.place = (variant.policies > 0).then_some(variant.standing);
    figure
}

fn with_goal(figure: Figure, goal: Option<Goal>) -> Figure {
    match goal {
        Some(goal) => figure.with_goal(goal),
        None => figure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        figure::Standing,
        path::variant::{Backend, Hook},
    };

    fn samples(measure: Measure, of: &[(System, u32, f64)]) -> Samples {
        // Rounds that get slower and slower: only comparisons within one mean anything.
        let rounds = [1_000.0, 2_000.0, 4_000.0];
        let variant = |&(system, policies, _): &(System, u32, f64)| Variant {
            system,
            policies,
            standing: Standing::Last,
        };
        let values = of.iter().map(|(.., added)| rounds.map(|round| round + added).to_vec());
        Samples { measure, variants: of.iter().map(variant).collect(), values: values.collect() }
    }

    fn found<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
        figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("no {name}: {figures:#?}"))
    }

    const PODGATE: System = System::Podgate(Hook::Tcx);

    #[test]
    fn what_a_filter_adds_is_paired_and_stands_next_to_its_goal() {
        let samples = samples(
            Measure::Established,
            &[
                (System::Nothing, 0, 0.0),
                (System::Conntrack, 0, 500.0),
                (PODGATE, 1_000, 100.0),
                (System::Control, 0, 0.0),
            ],
        );
        let figures = compare(&samples, 1_000).expect("the control is equal");
        let added =
            figures.iter().find(|figure| figure.name == "established packet, added" && figure.goal.is_some());
        let added = added.expect("podgate has a goal");
        assert_eq!((added.median, added.met, added.control), (100.0, Some(true), Some(0.0)));
        let ratio = found(&figures, "conntrack + 1 rule adds, times of podgate");
        assert_eq!((ratio.median, ratio.met), (5.0, Some(true)));
    }

    #[test]
    fn a_control_that_is_off_refuses_everything() {
        for (measure, control, refused) in [
            (Measure::Established, 20.0, false),
            (Measure::Established, 80.0, true),
            (Measure::Established, -80.0, true),
            (Measure::Connect, 35.0, false),
            (Measure::Established, f64::NAN, true),
        ] {
            let samples = samples(measure, &[(System::Nothing, 0, 0.0), (System::Control, 0, control)]);
            assert_eq!(compare(&samples, 1_000).is_err(), refused, "{measure:?} {control}");
        }
    }

    #[test]
    fn connects_are_compared_with_nothing_with_no_policies_and_with_npm() {
        let samples = samples(
            Measure::Connect,
            &[
                (System::Nothing, 0, 0.0),
                (PODGATE, 0, 0.0),
                (PODGATE, 1_000, 100.0),
                (System::Npm(Backend::Nft), 1_000, 9_000.0),
                (System::Control, 0, 0.0),
            ],
        );
        let figures = compare(&samples, 1_000).expect("the control is equal");
        let of = |name: &str| {
            let figure = figures.iter().find(|figure| figure.name == name && figure.policies == Some(1_000));
            let figure = figure.unwrap_or_else(|| panic!("no {name}"));
            (figure.median.round(), figure.met)
        };
        assert_eq!(of("connects"), (476.0 * 1_000.0 + 190.0, None));
        assert_eq!(of("connects, of nothing"), (95.0, Some(true)));
        assert_eq!(of("connects, apart from those without policies"), (5.0, Some(false)));
        assert_eq!(of("connects, times of Azure NPM (nft)"), (5.0, Some(true)));
    }
}
