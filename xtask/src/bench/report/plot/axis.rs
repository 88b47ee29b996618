//! A logarithmic axis, and where its ticks are.

#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Logarithms to base 10 of its ends.
    from: f64,
    to: f64,
    /// Where these are drawn.
    place: (f64, f64),
}

impl Axis {
    /// `None` when nothing positive is to be shown. `whole` widens it to the next 1, 2 or 5 times a power of
    /// ten.
    pub(super) fn over(values: impl Iterator<Item = f64>, place: (f64, f64), whole: bool) -> Option<Self> {
        let logarithms = values.filter(|&value| value > 0.0).map(f64::log10);
        let (low, high) = logarithms
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)));
        if !low.is_finite() {
            return None;
        }
        let steps = steps(low, high);
        let below = steps.iter().copied().filter(|&step| step.log10() <= low + 1e-9).fold(0.0, f64::max);
        let above =
            steps.iter().copied().filter(|&step| step.log10() >= high - 1e-9).fold(f64::INFINITY, f64::min);
        let (from, to) = if whole { (below.log10(), above.log10()) } else { (low - 0.08, high + 0.08) };
        Some(Self { from, to, place })
    }

    pub(super) fn place(self, value: f64) -> f64 {
        let part = (value.log10() - self.from) / (self.to - self.from).max(f64::EPSILON);
        self.place.0 + part * (self.place.1 - self.place.0)
    }

    /// 1, 2 and 5 times powers of ten, or the powers alone when these are many.
    pub(super) fn ticks(self) -> Vec<f64> {
        let all: Vec<f64> = steps(self.from, self.to).into_iter().filter(|&step| self.holds(step)).collect();
        if all.len() > 8 { self.decades() } else { all }
    }

    pub(super) fn decades(self) -> Vec<f64> {
        decades(self.from, self.to).filter(|&step| self.holds(step)).collect()
    }

    fn holds(self, value: f64) -> bool {
        (self.from - 1e-9..=self.to + 1e-9).contains(&value.log10())
    }
}

/// 1, 2 and 5 times all powers of ten from below `low` to above `high`, which are logarithms.
fn steps(low: f64, high: f64) -> Vec<f64> {
    decades(low - 1.0, high + 1.0).flat_map(|power| [power, 2.0 * power, 5.0 * power]).collect()
}

fn decades(low: f64, high: f64) -> impl Iterator<Item = f64> {
    (-3..12).map(|exponent| 10_f64.powi(exponent)).filter(move |power| {
        let logarithm = power.log10();
        logarithm >= low - 1.0 && logarithm <= high + 1.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_all_its_values_and_has_few_ticks() {
        for values in [vec![3_100.0, 3_900.0], vec![10.0, 10_000.0], vec![3.0, 2_500_000.0], vec![5.0]] {
            let axis = Axis::over(values.iter().copied(), (0.0, 100.0), true).expect("positive values");
            for value in &values {
                assert!((-0.1..=100.1).contains(&axis.place(*value)), "{value} of {values:?}");
            }
            assert!((1..=8).contains(&axis.ticks().len()), "{values:?}: {:?}", axis.ticks());
        }
        assert!(Axis::over([0.0, -1.0].into_iter(), (0.0, 1.0), true).is_none());
    }
}
