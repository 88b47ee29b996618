//! Whether output is coloured: on a terminal, unless the user wants none.

use std::{
    env,
    io::{self, IsTerminal as _},
};

/// False as well when `NO_COLOR` is set to anything (<https://no-color.org>).
pub(super) fn on_stdout() -> bool {
    is_wanted(io::stdout().is_terminal(), env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()))
}

const fn is_wanted(is_terminal: bool, is_refused: bool) -> bool {
    is_terminal && !is_refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_whose_user_wants_colours_gets_them() {
        let cases =
            [((true, false), true), ((true, true), false), ((false, false), false), ((false, true), false)];
        for ((is_terminal, is_refused), expected) in cases {
            assert_eq!(is_wanted(is_terminal, is_refused), expected, "{is_terminal} {is_refused}");
        }
    }
}
