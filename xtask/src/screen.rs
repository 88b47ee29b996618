//! Output for people: colours on a terminal only, aligned tables.

use std::{
    env, fmt,
    io::{IsTerminal, stdout},
    sync::LazyLock,
};

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Title,
    Good,
    Bad,
    /// Less important than what is around it.
    Quiet,
}

/// Text with a tone. Padding counts the text alone.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `https://no-color.org`
        static COLOURS: LazyLock<bool> = LazyLock::new(|| {
            stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        });
        let code = match self.tone {
            Tone::Title => "1",
            Tone::Good => "32",
            Tone::Bad => "1;31",
            Tone::Quiet => "2",
            Tone::Plain => "",
        };
        let padding = f.width().unwrap_or(0).saturating_sub(self.text.chars().count());
        match *COLOURS && !code.is_empty() {
            true => write!(f, "\x1b[{code}m{}\x1b[0m{:padding$}", self.text, ""),
            false => write!(f, "{}{:padding$}", self.text, ""),
        }
    }
}

/// A tick or a cross.
pub(crate) fn mark(good: bool) -> Cell {
    if good { Cell::new("✓", Tone::Good) } else { Cell::new("✗", Tone::Bad) }
}

/// Rows as lines, each column as wide as its widest cell, indented by two blanks.
pub(crate) fn table(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.text.chars().count())).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<Cell>| {
        let cells: String =
            row.iter().zip(&widths).map(|(cell, &width)| format!("  {cell:width$}")).collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_table_are_aligned() {
        let rows = [vec!["FROM".into(), "SEEN".into()], vec!["development/a".into(), mark(true)]];
        assert_eq!(table(&rows), "  FROM           SEEN\n  development/a  ✓\n");
    }
}
