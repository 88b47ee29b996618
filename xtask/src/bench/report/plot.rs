//! Plots as SVG: lines over a logarithmic axis, and bars.
//!
//! In: numbers and names. Out: SVG that takes its colours from the page around it. Every mark has a title
//! that tells its number when it is pointed at.

use std::fmt::Write;

use super::page::escaped;
use crate::bench::figure::readable;

#[derive(Clone, Debug)]
pub(crate) enum Plot {
    Lines(Lines),
    Bars(Bars),
}

/// Both axes are logarithmic.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) lines: Vec<Line>,
    /// A value to compare all others with, and its name.
    pub(crate) level: Option<(String, f64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Which colour of the page.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) bars: Vec<Bar>,
    /// A limit that some of them should keep.
    pub(crate) goal: Option<f64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) colour: usize,
    pub(crate) value: f64,
    pub(crate) quartiles: [f64; 2],
}

/// The drawing, in units of SVG.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
const ROW: f64 = 34.0;
/// Where bars begin: names of variants are before them.
const NAMES: f64 = 190.0;
/// What a bar's number needs behind it.
const NUMBERS: f64 = 90.0;

impl Plot {
    pub(super) fn title(&self) -> &str {
        match self {
            Self::Lines(lines) => &lines.title,
            Self::Bars(bars) => &bars.title,
        }
    }

    pub(super) fn svg(&self) -> String {
        match self {
            Self::Lines(lines) => lines.svg(),
            Self::Bars(bars) => bars.svg(),
        }
    }

    /// Names and colours; bars carry their names themselves.
    pub(super) fn legend(&self) -> String {
        let Self::Lines(lines) = self else { return String::new() };
        let entries = lines.lines.iter().map(|Line { name, colour, dashed, .. }| {
            let dash = if *dashed { " dashed" } else { "" };
            format!("<span><i class=\"key c{colour}{dash}\"></i>{}</span>", escaped(name))
        });
        format!("<p class=\"legend\">{}</p>", entries.collect::<String>())
    }
}

impl Lines {
    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let level = self.level.iter().map(|(_, value)| *value);
        let x = Axis::over(points().map(|point| point.0), (LEFT, WIDTH - RIGHT), false);
        let y = Axis::over(points().map(|point| point.1).chain(level), (HEIGHT - BOTTOM, TOP), true);
        let (Some(x), Some(y)) = (x, y) else { return String::new() };
        let mut svg = open(HEIGHT, &self.title);
        for tick in y.ticks() {
            let at = y.place(tick);
            let (right, label) = (WIDTH - RIGHT, readable_tick(tick));
            add(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
                ),
            );
            add(
                &mut svg,
                format_args!(
                    "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                    LEFT - 8.0,
                    at + 4.0
                ),
            );
        }
        for tick in x.decades() {
            let at = x.place(tick);
            let label = readable_tick(tick);
            add(
                &mut svg,
                format_args!(
                    "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                    HEIGHT - BOTTOM + 20.0
                ),
            );
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        add(
            &mut svg,
            format_args!(
                "<text class=\"axis\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 6.0,
                escaped(&self.x)
            ),
        );
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        add(
            &mut svg,
            format_args!(
                "<text class=\"axis\" transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
                escaped(&self.y)
            ),
        );
        if let Some((name, value)) = &self.level {
            let at = y.place(*value);
            add(
                &mut svg,
                format_args!(
                    "<line class=\"level\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"><title>{}: {}</title></line>",
                    WIDTH - RIGHT,
                    escaped(name),
                    readable(*value)
                ),
            );
            add(
                &mut svg,
                format_args!(
                    "<text class=\"tick\" x=\"{}\" y=\"{:.1}\">{}</text>",
                    LEFT + 6.0,
                    at - 6.0,
                    escaped(name)
                ),
            );
        }
        for line in &self.lines {
            let places = line.points.iter().map(|&(a, b)| (x.place(a), y.place(b)));
            let path: Vec<_> = places.clone().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
            let dash = if line.dashed { " dashed" } else { "" };
            add(
                &mut svg,
                format_args!(
                    "<polyline class=\"line c{}{dash}\" points=\"{}\"/>",
                    line.colour,
                    path.join(" ")
                ),
            );
            for ((a, b), (of, value)) in places.zip(&line.points) {
                let (name, of, value) = (escaped(&line.name), readable_tick(*of), readable(*value));
                add(
                    &mut svg,
                    format_args!(
                        "<circle class=\"dot c{}\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3.5\"><title>{name}, {of}: {value}</title></circle>",
                        line.colour
                    ),
                );
            }
        }
        svg + "</svg>"
    }
}

impl Bars {
    fn svg(&self) -> String {
        let values = || self.bars.iter().flat_map(|bar| [bar.value, bar.quartiles[0], bar.quartiles[1]]);
        let top = values().chain(self.goal).fold(0.0, f64::max);
        let bottom = values().fold(0.0, f64::min);
        if top <= bottom {
            return String::new();
        }
        #[expect(clippy::cast_precision_loss, reason = "few bars")]
        let height = TOP + ROW * self.bars.len() as f64 + BOTTOM;
        let place = |value: f64| NAMES + (value - bottom) / (top - bottom) * (WIDTH - NAMES - NUMBERS);
        let mut svg = open(height, &self.title);
        let mut y = TOP;
        for Bar { name, colour, value, quartiles } in &self.bars {
            let (from, to) = (place(value.min(0.0)), place(value.max(0.0)));
            let (name, shown) = (escaped(name), readable(*value));
            let middle = y + ROW / 2.0;
            let [q1, q3] = quartiles.map(readable);
            add(
                &mut svg,
                format_args!(
                    "<text class=\"name\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                    NAMES - 10.0,
                    middle + 4.0
                ),
            );
            add(
                &mut svg,
                format_args!(
                    "<rect class=\"bar c{colour}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"><title>{name}: {shown} ({q1} to {q3}) {}</title></rect>",
                    y + 6.0,
                    (to - from).max(1.0),
                    ROW - 12.0,
                    escaped(&self.unit)
                ),
            );
            let [q1, q3] = quartiles.map(place);
            add(
                &mut svg,
                format_args!(
                    "<line class=\"range\" x1=\"{q1:.1}\" x2=\"{q3:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>"
                ),
            );
            add(
                &mut svg,
                format_args!(
                    "<text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{shown}</text>",
                    to.max(q3) + 8.0,
                    middle + 4.0
                ),
            );
            y += ROW;
        }
        if let Some(goal) = self.goal {
            let at = place(goal);
            add(
                &mut svg,
                format_args!(
                    "<line class=\"level\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\"><title>goal: {}</title></line>",
                    readable(goal)
                ),
            );
            add(
                &mut svg,
                format_args!(
                    "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">goal {}</text>",
                    y + 16.0,
                    readable(goal)
                ),
            );
        }
        add(
            &mut svg,
            format_args!(
                "<text class=\"axis\" x=\"{NAMES}\" y=\"{:.1}\">{}</text>",
                height - 8.0,
                escaped(&self.unit)
            ),
        );
        svg + "</svg>"
    }
}

/// A logarithmic axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    /// Logarithms to base 10 of its ends.
    from: f64,
    to: f64,
    /// Where these are drawn.
    place: (f64, f64),
}

impl Axis {
    /// `None` when nothing positive is to be shown. `whole` widens it to the next 1, 2 or 5 times a power of
    /// ten.
    fn over(values: impl Iterator<Item = f64>, place: (f64, f64), whole: bool) -> Option<Self> {
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

    fn place(self, value: f64) -> f64 {
        let part = (value.log10() - self.from) / (self.to - self.from).max(f64::EPSILON);
        self.place.0 + part * (self.place.1 - self.place.0)
    }

    /// 1, 2 and 5 times powers of ten, or the powers alone when these are many.
    fn ticks(self) -> Vec<f64> {
        let all: Vec<f64> = steps(self.from, self.to).into_iter().filter(|&step| self.holds(step)).collect();
        if all.len() > 8 { self.decades() } else { all }
    }

    fn decades(self) -> Vec<f64> {
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

/// 10,000 without digits after the point.
fn readable_tick(value: f64) -> String {
    let text = readable(value);
    match text.trim_end_matches('0') {
        whole if value.fract() == 0.0 && whole.ends_with('.') => whole.trim_end_matches('.').to_owned(),
        _ if value.fract() == 0.0 => text.split('.').next().unwrap_or(&text).to_owned(),
        short => short.to_owned(),
    }
}

fn open(height: f64, title: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escaped(title))
}

fn add(svg: &mut String, element: std::fmt::Arguments<'_>) {
    svg.write_fmt(element).expect("writing to a string");
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

    #[test]
    fn every_point_is_drawn_with_its_number() {
        let line = Line {
            name: "a<b".into(),
            colour: 1,
            dashed: true,
            points: vec![(10.0, 3_500.0), (1_000.0, 250_000.0)],
        };
        let lines = Lines {
            title: "t".into(),
            x: "policies".into(),
            y: "ns".into(),
            lines: vec![line],
            level: Some(("nothing".into(), 3_400.0)),
        };
        let svg = Plot::Lines(lines).svg();
        for expected in
            ["<title>a&lt;b, 10: 3,500</title>", "<title>a&lt;b, 1,000: 250,000</title>", "nothing: 3,400"]
        {
            assert!(svg.contains(expected), "{expected} is not in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn bars_may_lie_on_either_side_of_nothing() {
        let bar = |value| Bar { name: "x".into(), colour: 0, value, quartiles: [value - 1.0, value + 1.0] };
        let bars = Bars {
            title: "t".into(),
            unit: "ns".into(),
            bars: vec![bar(-5.0), bar(10.0)],
            goal: Some(150.0),
        };
        let svg = Plot::Bars(bars).svg();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("goal 150") && !svg.contains("width=\"-"), "{svg}");
    }
}
