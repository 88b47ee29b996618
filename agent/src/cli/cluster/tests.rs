//! The command line of the plugin.

use super::*;

fn strings(arguments: &[&str]) -> Vec<OsString> {
    arguments.iter().map(OsString::from).collect()
}

#[test]
fn the_name_of_the_binary_chooses_the_plugin() {
    for (given, expected) in [
        (&["kubectl-podgate", "status"][..], &["podgate", "cluster", "status"][..]),
        (&["/opt/krew/bin/kubectl-podgate", "-n", "x"], &["podgate", "cluster", "-n", "x"]),
        (&["kubectl-podgate"], &["podgate", "cluster"]),
        (&["/usr/bin/podgate", "status"], &["/usr/bin/podgate", "status"]),
        (&["kubectl-podgates", "status"], &["kubectl-podgates", "status"]),
        (&[], &[]),
    ] {
        assert_eq!(as_plugin(strings(given)), strings(expected));
    }
}

#[test]
fn a_timeout_of_nothing_is_none() {
    for (text, expected) in
        [("0", Ok(None)), ("0s", Ok(None)), ("90s", Ok(Some(90))), ("2m", Ok(Some(120))), ("9", Err(()))]
    {
        let expected = expected.map(|seconds| TimeLimit(seconds.map(Duration::from_secs)));
        assert_eq!(timeout(text).map_err(drop), expected, "{text}");
    }
}
