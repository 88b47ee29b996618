//! The binary `podgate`. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    podgate::cli::run(std::env::args_os(), &|variable| std::env::var_os(variable))
}
