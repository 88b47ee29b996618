//! An API server with large pods, as far as listing goes: it writes them piece by piece, and holds none
//! itself.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Answers for as long as the test's process lives.
pub(crate) fn serve(pods: usize, bytes_each: usize) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || connection(&stream, pods, bytes_each));
        }
    });
    address
}

fn connection(stream: &TcpStream, pods: usize, bytes_each: usize) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        reader.read_line(&mut request).ok().filter(|read| *read > 0)?;
        let mut header = String::new();
        while header != "\r\n" {
            header.clear();
            reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        }
        let target = request.split(' ').nth(1)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if query.contains("watch=") {
            let mut stream = stream;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n").ok()?;
            // Nothing ever happens, until the other side goes away.
            return reader.read(&mut [0]).map(|_| ()).ok();
        }
        if path == "/apis" {
            let (mut stream, groups) = (stream, r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
            write!(stream, "{head}{}\r\n\r\n{groups}", groups.len()).ok()?;
            continue;
        }
        let pods = if path == "/api/v1/pods" { pods } else { 0 };
        page(stream, query, pods, bytes_each)?;
    }
}

fn page(mut stream: &TcpStream, query: &str, pods: usize, bytes_each: usize) -> Option<()> {
    let number = |name: &str| -> Option<usize> {
        query.split('&').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let first = number("continue").unwrap_or(0);
    let last = number("limit").map_or(pods, |limit| pods.min(first + limit));
    let next = if last < pods { format!(r#","continue":"{last}""#) } else { String::new() };
    let begin =
        format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"7"{next}}},"items":["#);
    let of = |at: usize| {
        let comma = if at == first { "" } else { "," };
        format!(
            r#"{comma}{{"metadata":{{"name":"pod-{at:06}","namespace":"x","resourceVersion":"1"}},"status":{{"phase":"Pending"}},"spec":{{"containers":[{{"name":"c","env":["#
        )
    };
    let variable = r#"{"name":"VARIABLE","value":"some value"}"#;
    let variables = bytes_each / (variable.len() + 1);
    let end_of_pod = "]}]}}";
    let of_pod = variables * (variable.len() + 1) - 1 + end_of_pod.len();
    let length = begin.len() + (first..last).map(|at| of(at).len() + of_pod).sum::<usize>() + "]}".len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{begin}"
    )
    .ok()?;
    let many = [variable; 1_000].join(",");
    for at in first..last {
        stream.write_all(of(at).as_bytes()).ok()?;
        let mut left = variables;
        while left > 0 {
            let now = left.min(1_000);
            let text = &many[..now * (variable.len() + 1) - 1];
            stream.write_all(text.as_bytes()).ok()?;
            left -= now;
            if left > 0 {
                stream.write_all(b",").ok()?;
            }
        }
        stream.write_all(end_of_pod.as_bytes()).ok()?;
    }
    stream.write_all(b"]}").ok()
}
