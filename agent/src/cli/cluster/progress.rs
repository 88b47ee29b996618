//! How far a question to many nodes has come, for who waits at a terminal.

use std::io::{self, IsTerminal as _};

use super::say;

/// Fewer are done before it could be read.
const MANY: usize = 20;

/// One line on stderr that is written over.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_shown: bool,
}

impl ProgressLine {
    pub(super) fn of(nodes: usize) -> Self {
        Self { is_shown: nodes > MANY && io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, done: usize, total: usize) {
        if self.is_shown {
            say(format_args!("\r{done} of {total} nodes"));
        }
    }

    pub(super) fn clear(self) {
        if self.is_shown {
            say("\r\x1b[K");
        }
    }
}
