//! Which plots of a path's figures a reader wants.
//!
//! In: figures. Out: plots: what grows with the number of policies as lines, what does not as bars.

use super::{
    measure::Measure,
    variant::{Backend, Hook, System},
};
use crate::bench::{
    figure::{Figure, Standing},
    report::{Bar, Bars, Line, Lines, Plot},
};

/// Systems in the order of legends; each has its colour on the page.
const SYSTEMS: [(System, usize); 10] = [
    (System::Podgate(Hook::Tcx), 1),
    (System::Podgate(Hook::Clsact), 2),
    (System::SmallTable, 7),
    (System::Shortcut, 1),
    (System::Conntrack, 6),
    (System::Empty, 0),
    (System::Calico, 5),
    (System::Npm(Backend::Nft), 3),
    (System::Npm(Backend::Legacy), 4),
    (System::Nothing, 0),
];

pub(super) fn plots(figures: &[Figure]) -> Vec<Plot> {
    let lines = [
        (Measure::Connect, "New connections a second", "connect + request + close, 1/s"),
        (Measure::OneWay, "A datagram of a flow without answers", "ns a packet, whole path"),
        (Measure::Denied, "A packet that is denied", "ns a packet, whole path"),
    ];
    let lines = lines.into_iter().filter_map(|(measure, title, y)| over_policies(figures, measure, title, y));
    let bars = [
        (Measure::Established, "What a filter adds to an established packet (TCP, one byte)", "ns a packet"),
        (Measure::OneWayCold, "What a filter adds to a datagram, over 64,000 flows", "ns a packet"),
        (Measure::Bulk, "What a filter adds to bulk TCP", "% CPU a GB"),
    ];
    let bars = bars.into_iter().filter_map(|(measure, title, unit)| added(figures, measure, title, unit));
    lines.chain(bars).collect()
}

fn over_policies(figures: &[Figure], measure: Measure, title: &str, y: &str) -> Option<Plot> {
    let of_measure = || figures.iter().filter(|figure| figure.name == measure.name());
    let mut lines = Vec::new();
    for (system, colour) in SYSTEMS {
        for standing in [Standing::Last, Standing::First] {
            let of_line = of_measure()
                .filter(|figure| figure.variant == system.to_string() && figure.place == Some(standing));
            let points = of_line.filter_map(|figure| Some((f64::from(figure.policies?), figure.median)));
            let points: Vec<_> = points.collect();
            if !points.is_empty() {
                let dashed = standing == Standing::First;
                lines.push(Line { name: format!("{system}, matching {standing}"), colour, dashed, points });
            }
        }
    }
    let nothing = of_measure().find(|figure| figure.variant == System::Nothing.to_string());
    let level = nothing.map(|figure| ("no filter".to_owned(), figure.median));
    let text = |text: &str| text.to_owned();
    let plot = Lines { title: text(title), x: text("policies in the cluster"), y: text(y), lines, level };
    (!plot.lines.is_empty()).then_some(Plot::Lines(plot))
}

fn added(figures: &[Figure], measure: Measure, title: &str, unit: &str) -> Option<Plot> {
    let name = format!("{}, added", measure.name());
    let of_measure: Vec<&Figure> = figures.iter().filter(|figure| figure.name == name).collect();
    let bars = SYSTEMS.iter().filter_map(|(system, colour)| {
        let figure = of_measure.iter().find(|figure| figure.variant == system.to_string())?;
        Some(Bar {
            name: figure.variant.clone(),
            colour: *colour,
            value: figure.median,
            quartiles: figure.quartiles,
        })
    });
    let goal = of_measure.iter().find_map(|figure| figure.goal).map(|goal| goal.limit());
    let plot = Bars { title: title.to_owned(), unit: unit.to_owned(), bars: bars.collect(), goal };
    (!plot.bars.is_empty()).then_some(Plot::Bars(plot))
}
