//! The scenarios once more, on nodes that have the short cut: no verdict, no counter and no report may be
//! another one.

use std::{env, process::Command};

use crate::node::SHORTCUT;

#[test]
fn all_scenarios_hold_with_the_short_cut() {
    let this = env::current_exe().expect("the path of this program");
    let output = Command::new(this).arg("scenarios::").env(SHORTCUT, "1").output().expect("it runs");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let passed = output.rsplit_once("test result: ok. ").and_then(|(_, rest)| rest.split_once(' '));
    let passed = passed.and_then(|(count, _)| count.parse::<usize>().ok());
    assert!(passed.is_some_and(|count| count > 100), "{output}");
}
