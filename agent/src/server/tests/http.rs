//! HTTP, for polite and for hostile clients.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

use super::*;

#[test]
fn http_says_how_the_agent_is() {
    let running = start();
    let get = |path: &str| running.get(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 503"));
    running.state.send_replace(Arc::new(Snapshot::example(true)));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = get("/metrics");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    assert!(
        metrics.contains("\npodgate_packets_total{direction=\"ingress\",outcome=\"denied\"} 3\n"),
        "{metrics}"
    );
    assert!(get("/").starts_with("HTTP/1.1 404"));
    assert!(running.get("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(running.get("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\n"));
}

#[test]
fn hostile_http_harms_no_other_client() {
    let running = start();
    let half: Vec<TcpStream> = (0..31)
        .map(|_| {
            let mut stream = TcpStream::connect(running.http).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    let headers = "X: y\r\n".repeat(10_000);
    assert!(running.get("\0\0\0\0\r\n\r\n").starts_with("HTTP/1.1 400"));
    let refused = running.get(&format!("GET /metrics HTTP/1.1\r\n{headers}\r\n"));
    assert!(!refused.starts_with("HTTP/1.1 200"), "{refused}");
    assert!(running.get("GET /healthz HTTP/1.0\r\n\r\n").contains(" 200 "));
    // Those that never finish their headers are sent away.
    for mut stream in half {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.contains(" 200 "), "{answer}");
    }
}

#[test]
fn probes_find_a_place_beside_any_number_of_clients_that_never_finish() {
    let running = start();
    let began = Instant::now();
    let mut slow = Vec::new();
    for round in 0..10 {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(running.http).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
            slow.push(stream);
        }
        let answer = running.get("GET /healthz HTTP/1.0\r\n\r\n");
        assert!(answer.contains(" 200 "), "round {round}: {answer:?}");
    }
    // Sooner than the first of them would have been sent away: no one waited for that.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn probes_are_answered_while_tables_are_counted() {
    let running = start();
    let counting = running.counting.lock().unwrap();
    std::thread::scope(|scope| {
        // More questions than there are threads for them.
        let asking: Vec<_> = (0..WORKERS + 4)
            .map(|_| scope.spawn(|| api::ask::<Status>(&running.socket(), &Ask::Status)))
            .collect();
        let began = Instant::now();
        while asking.iter().filter(|asking| asking.is_finished()).count() < 4 {
            assert!(began.elapsed() < PATIENCE, "those for whom there is no thread are answered at once");
            std::thread::yield_now();
        }
        assert!(running.get("GET /healthz HTTP/1.0\r\n\r\n").contains(" 200 "));
        assert!(running.get("GET /metrics HTTP/1.0\r\n\r\n").contains(BUSY));
        let endpoints: Vec<EndpointStatus> = api::ask(&running.socket(), &Ask::Endpoints).unwrap();
        assert_eq!(endpoints.len(), 1);
        drop(counting);
        let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        let refused = answers.iter().filter(|answer| answer.as_ref().is_err_and(|it| it.to_string() == BUSY));
        assert_eq!((refused.count(), answers.iter().filter(|answer| answer.is_ok()).count()), (4, WORKERS));
    });
}
