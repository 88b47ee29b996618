//! A change that is sent to `explain` through an API server, whose standard input does not end.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use podgate::source::manifests::Change;

use crate::{agent::Agent, podgate::directory};

const LINE: &str = "explain --from shop/frontend --to shop/backend-2 --port TCP/8080";

/// What it prints on stdout, then on stderr.
fn run(socket: &Path, sent: &[u8], length: usize, is_ended: bool) -> [String; 2] {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podgate"));
    command
        .args(LINE.split_whitespace())
        .arg(format!("--what-if-stdin={length}"))
        .arg("--socket")
        .arg(socket);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program that cargo has built");
    let mut stdin = child.stdin.take();
    stdin.as_mut().expect("a pipe").write_all(sent).expect("a reader");
    if is_ended {
        stdin = None;
    }
    let [mut out, mut err] = [String::new(), String::new()];
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    child.wait().expect("its end");
    drop(stdin);
    [out, err]
}

#[test]
fn a_change_that_is_sent_is_read_to_its_length_and_not_to_the_end() {
    let agent = Agent::start();
    let (change, _) = Change::read_in(&[directory().join("change.yaml")], None).expect("a change");
    let sent = change.to_json().expect("JSON");
    let [out, err] = run(&agent.socket(), &sent, sent.len(), false);
    assert!(out.starts_with("allow: shop/frontend -> shop/backend-2 TCP/8080\n"), "{out}{err}");
    let [out, err] = run(&agent.socket(), &sent, sent.len() + 1, true);
    let expected = format!("error: standard input ended after {} of {} bytes\n", sent.len(), sent.len() + 1);
    assert_eq!((&*out, err), ("", expected));
}
