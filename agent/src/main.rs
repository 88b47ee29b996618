//! The binary `podgate`. All of it is in the library.

use std::{panic, process, process::ExitCode};

fn main() -> ExitCode {
    // An agent that has lost a task is better restarted: what is pinned goes on enforcing. The profile could
    // say the same (`panic = "abort"`), but then every dependency would be built once more for the tests,
    // which unwind.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::abort();
    }));
    podgate::cli::run(std::env::args_os(), &|variable| std::env::var_os(variable))
}
