//! Which plots of the figures of `bench names` a reader wants.
//!
//! In: figures. Out: plots: what grows with the addresses of a reply as lines, what does not as bars.

use crate::bench::{
    figure::Figure,
    report::{Bar, Bars, Line, Lines, Plot},
};

/// The name of what a reply costs, and what its variants end with.
const REPLY: &str = "a reply, added by names";
const KNOWN: &str = ", known";
const NEW: &str = ", new";

pub(in crate::bench) fn plots(figures: &[Figure]) -> Vec<Plot> {
    let bars = [
        ("new connection", "A new connection", "ns"),
        ("an answer, p50", "How long a pod waits for an answer, median", "µs"),
        ("an answer, p99", "How long a pod waits for an answer, slowest hundredth", "µs"),
        ("answers a second", "Answers a second", "1/s"),
    ];
    let bars = bars.into_iter().filter_map(|(name, title, unit)| compared(figures, name, title, unit));
    over_addresses(figures).into_iter().chain(bars).collect()
}

fn over_addresses(figures: &[Figure]) -> Option<Plot> {
    let of = |end: &'static str| {
        let replies = figures.iter().filter(|figure| figure.name == REPLY);
        replies.filter_map(move |figure| Some((addresses(figure.variant.strip_suffix(end)?)?, figure)))
    };
    let line = |name: &str, colour, dashed, points: Vec<(f64, f64)>| Line {
        name: name.to_owned(),
        colour,
        dashed,
        points,
    };
    let measured = |end| of(end).map(|(count, figure)| (count, figure.median)).collect();
    let goals = of(KNOWN).filter_map(|(count, figure)| Some((count, figure.goal?.limit())));
    let lines = [
        line("known before", 1, false, measured(KNOWN)),
        line("new", 2, false, measured(NEW)),
        line("goal", 0, true, goals.collect()),
    ];
    let lines: Vec<Line> = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
    let text = |text: &str| text.to_owned();
    (!lines.is_empty()).then_some(Plot::Lines(Lines {
        title: text("What a reply costs, added by names"),
        x: text("addresses in the reply"),
        y: text("ns a reply"),
        lines,
        level: None,
    }))
}

/// As in `16 addresses`.
fn addresses(text: &str) -> Option<f64> {
    let (count, _) = text.split_once(" address")?;
    count.parse().ok()
}

fn compared(figures: &[Figure], name: &str, title: &str, unit: &str) -> Option<Plot> {
    let of_name: Vec<&Figure> = figures.iter().filter(|figure| figure.name == name).collect();
    let bars = of_name.iter().zip(1..).map(|(figure, colour)| Bar {
        name: figure.variant.clone(),
        colour,
        value: figure.median,
        quartiles: figure.quartiles,
    });
    let goal = of_name.iter().find_map(|figure| figure.goal).map(|goal| goal.limit());
    let plot = Bars { title: title.to_owned(), unit: unit.to_owned(), bars: bars.collect(), goal };
    (!plot.bars.is_empty()).then_some(Plot::Bars(plot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::report::Findings, workspace};

    #[test]
    fn the_figures_of_the_repository_have_all_plots() {
        let file = workspace::root().join("xtask/benchmarks/names.json");
        let plots = plots(&Findings::read(&file).expect("figures").figures);
        let [Plot::Lines(replies), others @ ..] = &plots[..] else { panic!("{plots:?}") };
        let counts = |name: &str| {
            let line = replies.lines.iter().find(|line| line.name == name).expect("a line");
            line.points.iter().map(|(count, _)| *count).collect::<Vec<_>>()
        };
        assert_eq!(counts("known before"), [1.0, 4.0, 16.0, 32.0, 60.0]);
        assert_eq!((counts("new"), counts("goal")), (vec![1.0, 16.0], vec![1.0, 4.0, 16.0, 32.0]));
        let bars = others.iter().map(|plot| match plot {
            Plot::Bars(bars) => bars.bars.len(),
            Plot::Lines(_) => 0,
        });
        assert_eq!(bars.collect::<Vec<_>>(), [3, 3, 3, 3]);
    }
}
