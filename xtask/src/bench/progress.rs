//! Progress of a benchmark: one line that is written again and again on a terminal, and once for each step
//! elsewhere.

use std::io::{IsTerminal, Write, stdout};

#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    step: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: stdout().is_terminal(), step: String::new() }
    }

    /// What is being done; `detail` changes often and is for terminals only.
    pub(crate) fn show(&mut self, step: &str, detail: &str) {
        if self.terminal {
            print!("\r\x1b[K{step} {detail}");
        } else if self.step != step {
            println!("{step}");
        }
        step.clone_into(&mut self.step);
        // A terminal that does not take output has no one to tell.
        let _ = stdout().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            print!("\r\x1b[K");
            let _ = stdout().flush();
        }
    }
}
