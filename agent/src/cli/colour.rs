//! Whether output is coloured: on a terminal, unless the user wants none.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use clap::{Args, ValueEnum};

/// For verbs that colour their output.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ColourOptions {
    /// Colour the output: auto on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColourMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ColourMode {
    Auto,
    Always,
    Never,
}

impl ColourOptions {
    /// False as well when `NO_COLOR` is set to anything (<https://no-color.org>), unless it is asked for.
    pub(super) fn on_stdout(self) -> bool {
        let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        self.color.is_wanted(io::stdout().is_terminal(), is_refused)
    }
}

impl ColourMode {
    const fn is_wanted(self, is_terminal: bool, is_refused: bool) -> bool {
        match self {
            Self::Auto => is_terminal && !is_refused,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_whose_user_wants_colours_gets_them_unless_they_are_asked_for() {
        let cases =
            [((true, false), true), ((true, true), false), ((false, false), false), ((false, true), false)];
        for ((is_terminal, is_refused), expected) in cases {
            let of = |mode: ColourMode| mode.is_wanted(is_terminal, is_refused);
            assert_eq!(of(ColourMode::Auto), expected, "{is_terminal} {is_refused}");
            assert!(of(ColourMode::Always) && !of(ColourMode::Never), "{is_terminal} {is_refused}");
        }
    }
}
