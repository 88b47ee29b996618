//! The socket's file, and clients that are hostile to it.

use std::{
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use super::*;
use crate::api::LONGEST_REQUEST;

#[test]
fn the_socket_is_its_owners_alone_and_a_stale_one_is_replaced() {
    let running = start();
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let runtime = runtime();
    let _inside = runtime.enter();
    let error = format!("{:#}", ControlSocket::bind(&running.socket()).unwrap_err());
    assert!(error.ends_with("podgate.sock: another agent answers there"), "{error}");
    let stale = running.directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let bound = ControlSocket::bind(&stale).unwrap();
    UnixStream::connect(&stale).unwrap();
    drop(bound);
    assert!(!stale.exists(), "the file goes with its socket");
    let file = running.directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = format!("{:#}", ControlSocket::bind(&file).unwrap_err());
    assert!(error.ends_with("file: something else is there"), "{error}");
}

#[test]
fn hostile_requests_get_one_line_and_harm_no_other_client() {
    let running = start();
    let huge = vec![b'x'; LONGEST_REQUEST];
    let deep = [vec![b'['; 4000], b"\n".to_vec()].concat();
    let longest = [vec![b' '; LONGEST_REQUEST - 1], b"\n".to_vec()].concat();
    for (request, part) in [
        (&b"garbage\n"[..], "\"error\":\"not a request: expected value at line 1 column 1\""),
        (b"\n", "not a request"),
        (b"\xff\xfe\0\n", "not a request"),
        (b"{}\n", "not a request: missing field `version`"),
        (b"{\"version\":3}\n", "not a request: missing field `verb`"),
        (b"{\"version\":3,\"verb\":\"reboot\"}\n", "not a request: unknown variant `reboot`"),
        (b"{\"version\":3,\"verb\":\"explain\",\"from\":\"x\"}\n", "not a request"),
        (
            b"{\"version\":4,\"podgate\":\"0.9\",\"verb\":\"new\"}\n",
            "who asks speaks protocol 4 (podgate 0.9), this side protocol 3 (podgate 0.1.0): ask with the agent's own binary",
        ),
        (&longest, "not a request"),
        (&deep, "not a request"),
    ] {
        let answer = running.exchange(request);
        let text = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        assert!(answer.contains(part), "{text:?}: {answer:?}");
        assert_eq!(answer.lines().count(), 1, "{text:?}: {answer:?}");
    }
    // The server closes on a line without end; what it says may be lost with the connection.
    running.exchange(&huge);
    let half: Vec<UnixStream> = (0..100).map(|_| running.connect()).collect();
    let status: Status = api::ask(&running.socket(), &Ask::Status).unwrap();
    assert!(!status.ready, "silent clients do not keep the next one waiting");
    drop(half);
}

#[test]
fn a_silent_client_loses_its_place() {
    let running = start();
    let silent: Vec<UnixStream> = (0..65).map(|_| running.connect()).collect();
    for mut stream in silent {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"", "no answer without a question");
    }
    api::ask::<Status>(&running.socket(), &Ask::Status).unwrap();
}
