//! The matrix and differences for a terminal.

use std::{collections::BTreeMap, fmt::Write};

use podgate_core::{
    matrix::{Difference, Matrix, NameMatrix, Pair, PairVerdict},
    printable::printable,
};

use crate::cli::colour::ColourOptions;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

/// Columns that stand apart; more stand close, below their numbers from top to bottom.
const MOST_APART: usize = 50;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

impl Paint {
    pub(super) fn of_stdout(colours: ColourOptions) -> Self {
        if colours.on_stdout() { Self::Coloured } else { Self::Plain }
    }

    fn paint(self, colour: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("{colour}{text}{RESET}"),
        }
    }
}

/// Destinations stand in the columns by the number of their row, or, if the sources are others, by that of
/// their line at the end.
pub(super) fn of_matrix(matrix: &Matrix, paint: Paint) -> String {
    let sources = || matrix.ports.values().flat_map(BTreeMap::keys);
    let is_square = matrix.ports.values().all(|rows| rows.keys().eq(&matrix.pods));
    let number = matrix.pods.len().to_string().len();
    let name = sources().map(|pod| pod.chars().count()).max().unwrap_or(0);
    let numbers = if is_square { "row number" } else { "the numbers at the end" };
    let mut text = String::new();
    line(
        &mut text,
        &format!(
            "Rows: sources. Columns: destinations, by {numbers}. . allowed, X denied, - no port of this name."
        ),
    );
    for (port, rows) in &matrix.ports {
        text.push('\n');
        let corner = port.to_string();
        let width = number + 2 + name;
        let columns = (1..=matrix.pods.len()).map(|at| format!("{at:>number$}"));
        if matrix.pods.len() > MOST_APART {
            let columns: Vec<String> = columns.collect();
            for digit in 0..number {
                let corner = if digit + 1 == number { &*corner } else { "" };
                let digits: String = columns.iter().map(|at| &at[digit..=digit]).collect();
                line(&mut text, format!("{corner:<width$}  {digits}").trim_end());
            }
        } else {
            let columns: Vec<String> = columns.map(|at| format!(" {at}")).collect();
            line(&mut text, &format!("{corner:<width$} {}", columns.concat()));
        }
        let space = if matrix.pods.len() > MOST_APART { 0 } else { number };
        for (at, (pod, row)) in rows.iter().enumerate() {
            let cells = row.0.iter().map(|verdict| cell(*verdict, space, paint));
            let cells: Vec<String> =
                std::iter::repeat_n(" ".to_owned(), usize::from(space == 0)).chain(cells).collect();
            // Sources that are no columns have no number.
            let at = if is_square { (at + 1).to_string() } else { String::new() };
            line(&mut text, &format!("{at:>number$}  {pod:<name$} {}", cells.concat()));
        }
    }
    if !is_square {
        text.push('\n');
        for (at, pod) in matrix.pods.iter().enumerate() {
            line(&mut text, &format!("{:>number$}  {pod}", at + 1));
        }
    }
    text
}

/// Names stand in the columns by the number of their line.
pub(super) fn of_names(NameMatrix { names, ports }: &NameMatrix, paint: Paint) -> String {
    let mut text = String::new();
    if names.is_empty() {
        line(&mut text, "no rule has a name");
        return text;
    }
    let number = names.len().to_string().len();
    for (port, rows) in ports {
        let corner = port.to_string();
        let name = rows.keys().map(|pod| pod.len()).chain([corner.len()]).max().unwrap_or(0);
        let columns: Vec<String> = (1..=names.len()).map(|at| format!(" {at:>number$}")).collect();
        line(&mut text, &format!("{corner:<name$} {}", columns.concat()));
        for (pod, row) in rows {
            let cells: Vec<String> = row.0.iter().map(|verdict| cell(*verdict, number, paint)).collect();
            line(&mut text, &format!("{pod:<name$} {}", cells.concat()));
        }
        text.push('\n');
    }
    for (at, name) in names.iter().enumerate() {
        line(&mut text, &format!("{:>number$}  {}", at + 1, printable(name)));
    }
    line(&mut text, "\nRows: pods. Columns: names, by number. . reached, X not reached, - no such port.");
    text
}

/// `width`: 0 if it follows the one before without a space.
fn cell(verdict: PairVerdict, width: usize, paint: Paint) -> String {
    let colour = match verdict {
        PairVerdict::Allowed => GREEN,
        PairVerdict::Denied => RED,
        PairVerdict::NoPort => DIM,
    };
    // Escapes would count as width.
    let blank = " ".repeat(width);
    blank + &paint.paint(colour, &verdict.character().to_string())
}

pub(super) fn of_difference(difference: &Difference, paint: Paint) -> String {
    let Difference { opened, closed, added_pods, removed_pods } = difference;
    let mut text = String::new();
    let pair = |Pair { port, from, to }: &Pair| format!("{port}  {from} -> {to}");
    for (pairs, word, colour) in [(opened, "opens ", GREEN), (closed, "closes", RED)] {
        for of in pairs {
            line(&mut text, &format!("{}  {}", paint.paint(colour, word), pair(of)));
        }
    }
    for (pods, word) in [(added_pods, "adds"), (removed_pods, "removes")] {
        for pod in pods {
            line(&mut text, &format!("{word} pod {pod}, whose pairs are not compared"));
        }
    }
    line(&mut text, &format!("{} opened, {} closed", opened.len(), closed.len()));
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use podgate_core::model::Name;

    fn matrix() -> Matrix {
        let rows = [("x/a", ".-"), ("x/b", "X-")].map(|(pod, row)| (Name::from(pod), row.parse().unwrap()));
        let rows = BTreeMap::from(rows);
        Matrix {
            pods: rows.keys().cloned().collect(),
            ports: BTreeMap::from([("TCP/80".parse().unwrap(), rows)]),
        }
    }

    #[test]
    fn colours_are_added_and_change_nothing_else() {
        let plain = of_matrix(&matrix(), Paint::Plain);
        assert!(plain.starts_with("Rows: sources. Columns: destinations, by row number."), "{plain}");
        assert!(plain.ends_with("\n\nTCP/80  1 2\n1  x/a  . -\n2  x/b  X -\n"), "{plain}");
        let coloured = of_matrix(&matrix(), Paint::Coloured);
        assert!(coloured.contains("\x1b[31mX\x1b[0m \x1b[2m-\x1b[0m\n"), "{coloured:?}");
        let bare = [GREEN, RED, DIM, RESET].iter().fold(coloured, |text, escape| text.replace(escape, ""));
        assert_eq!(bare, plain);
    }

    #[test]
    fn destinations_that_are_no_sources_are_listed() {
        let mut matrix = matrix();
        matrix.ports.values_mut().for_each(|rows| _ = rows.pop_last());
        let text = of_matrix(&matrix, Paint::Plain);
        assert!(text.contains("by the numbers at the end"), "{text}");
        assert!(text.ends_with("\n\nTCP/80  1 2\n   x/a  . -\n\n1  x/a\n2  x/b\n"), "{text}");
    }

    #[test]
    fn a_difference_is_a_line_for_each_pair_and_a_sum() {
        let pair = |from: &str| Pair { port: "TCP/80".parse().unwrap(), from: from.into(), to: "x/b".into() };
        let difference = Difference {
            opened: vec![pair("x/a")],
            closed: vec![pair("x/c"), pair("x/d")],
            added_pods: vec!["y/e".into()],
            removed_pods: vec![],
        };
        assert_eq!(
            of_difference(&difference, Paint::Plain),
            "opens   TCP/80  x/a -> x/b\ncloses  TCP/80  x/c -> x/b\ncloses  TCP/80  x/d -> x/b\n\
             adds pod y/e, whose pairs are not compared\n1 opened, 2 closed\n"
        );
        assert!(of_difference(&difference, Paint::Coloured).starts_with("\x1b[32mopens \x1b[0m"));
    }
}
