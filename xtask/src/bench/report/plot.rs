//! Plots as SVG: lines over a logarithmic axis, and bars.
//!
//! In: numbers and names. Out: SVG that takes its colours from the page around it. Every mark has a title
//! that tells its number when it is pointed at.

use std::fmt::{self, Write as _};

use super::page::escaped;
use crate::bench::figure::readable;

mod axis;

use axis::Axis;

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
const LEFT: f64 = 84.0;
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
        let mut svg = Svg::new(HEIGHT, &self.title);
        for tick in y.ticks() {
            let at = y.place(tick);
            svg.line("grid", [LEFT, WIDTH - RIGHT], [at, at], "");
            svg.text("tick", (LEFT - 8.0, at + 4.0), "end", &readable_tick(tick));
        }
        for tick in x.decades() {
            svg.text("tick", (x.place(tick), HEIGHT - BOTTOM + 20.0), "middle", &readable_tick(tick));
        }
        svg.text("axis", (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 6.0), "middle", &self.x);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        svg.add(format_args!("<g transform=\"translate(14 {middle}) rotate(-90)\">"));
        svg.text("axis", (0.0, 0.0), "middle", &self.y);
        svg.add(format_args!("</g>"));
        if let Some((name, value)) = &self.level {
            let at = y.place(*value);
            svg.line("level", [LEFT, WIDTH - RIGHT], [at, at], &format!("{name}: {}", readable(*value)));
            svg.text("tick", (LEFT + 6.0, at - 6.0), "start", name);
        }
        for Line { name, colour, dashed, points } in &self.lines {
            let places = points.iter().map(|&(a, b)| (x.place(a), y.place(b)));
            let path: Vec<_> = places.clone().map(|(a, b)| format!("{a:.1},{b:.1}")).collect();
            let (dash, path) = (if *dashed { " dashed" } else { "" }, path.join(" "));
            svg.add(format_args!("<polyline class=\"line c{colour}{dash}\" points=\"{path}\"/>"));
            for ((a, b), (of, value)) in places.zip(points) {
                let title = format!("{}, {}: {}", escaped(name), readable_tick(*of), readable(*value));
                svg.add(format_args!(
                    "<circle class=\"dot c{colour}\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3.5\"><title>{title}</title></circle>"
                ));
            }
        }
        svg.close()
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
        let mut svg = Svg::new(height, &self.title);
        let mut y = TOP;
        for Bar { name, colour, value, quartiles } in &self.bars {
            let (from, to) = (place(value.min(0.0)), place(value.max(0.0)));
            let (shown, middle) = (readable(*value), y + ROW / 2.0);
            let [q1, q3] = quartiles.map(readable);
            svg.text("name", (NAMES - 10.0, middle + 4.0), "end", name);
            let title = escaped(&format!("{name}: {shown} ({q1} to {q3}) {}", self.unit));
            let (top, width, height) = (y + 6.0, (to - from).max(1.0), ROW - 12.0);
            svg.add(format_args!(
                "<rect class=\"bar c{colour}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"><title>{title}</title></rect>"
            ));
            let [q1, q3] = quartiles.map(place);
            svg.line("range", [q1, q3], [middle, middle], "");
            svg.text("value", (to.max(q3) + 8.0, middle + 4.0), "start", &shown);
            y += ROW;
        }
        if let Some(goal) = self.goal {
            let (at, shown) = (place(goal), readable(goal));
            svg.line("level", [at, at], [TOP, y], &format!("goal: {shown}"));
            svg.text("tick", (at, y + 16.0), "middle", &format!("goal {shown}"));
        }
        svg.text("axis", (NAMES, height - 8.0), "start", &self.unit);
        svg.close()
    }
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

/// A drawing that grows.
struct Svg(String);

impl Svg {
    fn new(height: f64, title: &str) -> Self {
        let title = escaped(title);
        Self(format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"))
    }

    fn line(&mut self, class: &str, [x1, x2]: [f64; 2], [y1, y2]: [f64; 2], title: &str) {
        let title = if title.is_empty() { "" } else { &format!("<title>{}</title>", escaped(title)) };
        self.add(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\">{title}</line>"
        ));
    }

    fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn add(&mut self, element: fmt::Arguments<'_>) {
        self.0.write_fmt(element).expect("writing to a string");
    }

    fn close(self) -> String {
        self.0 + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
