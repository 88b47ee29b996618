//! Saying at once that root is needed, with the command that helps.

use std::env;

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

/// Fails with one line that holds the command to use when this process is not root's.
pub(crate) fn require(why: &str) -> Result<()> {
    ensure!(geteuid().is_root(), "{}", advice(why, env::args().skip(1)));
    Ok(())
}

/// `why` needs root, and how to give it to `cargo xtask ARGUMENTS`.
///
/// `sudo -E` keeps HOME, under which rustup and cargo have their files; PATH is replaced by sudo all the
/// same.
pub(crate) fn advice(why: &str, arguments: impl IntoIterator<Item = String>) -> String {
    let command: String = arguments.into_iter().map(|argument| format!(" {argument}")).collect();
    format!("{why} needs root: sudo -E env \"PATH=$PATH\" cargo xtask{command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_repeats_the_command() {
        let arguments = ["test", "--shard", "1/2"].map(str::to_owned);
        let expected = r#"the lab needs root: sudo -E env "PATH=$PATH" cargo xtask test --shard 1/2"#;
        assert_eq!(advice("the lab", arguments), expected);
    }
}
