//! The export to collectors that answer in various ways, over real connections.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;

use super::*;
use crate::observe::{DecisionEvent, Denials, ExportSignal, FlowExport, RecordResult};

/// Longer than an attempt takes with its pauses.
const PATIENCE: Duration = Duration::from_secs(60);

/// Head and body.
type SentRequest = (String, Vec<u8>);

/// A collector that gives these answers, and keeps the requests.
struct FakeCollector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<SentRequest>>>,
}

impl FakeCollector {
    /// `answers`: to the first request, the second and so on; the last one repeats.
    fn start(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(request) = read(&stream) else { continue };
                let number = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request);
                    kept.len()
                };
                let _ = (&stream).write_all(&answers[(number - 1).min(answers.len() - 1)]);
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("http://{}/otlp", self.address)
    }

    fn requests(&self) -> Vec<SentRequest> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(mut stream: &TcpStream) -> Option<SentRequest> {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).ok()?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ok() -> Vec<u8> {
    http("200 OK", "content-type: application/x-protobuf\r\n", b"")
}

/// What is left of a queue of `records` denials when it has been exported for a while.
struct Exported {
    counts: ExportCounts,
    requests: Vec<SentRequest>,
}

/// Exports until none waits any more.
fn exported(answers: Vec<Vec<u8>>, records: usize) -> Exported {
    let collector = FakeCollector::start(answers);
    let counts = export_to(&collector.url(), records, |counts| counts.waiting() == 0);
    Exported { counts, requests: collector.requests() }
}

fn export_to(url: &str, records: usize, is_done: impl Fn(&ExportCounts) -> bool) -> ExportCounts {
    let (mut logs, counts) = log_export(url, records);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_stop, stopped) = watch::channel(false);
        let done = async {
            while !is_done(&counts) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = logs.run(stopped) => {}
            () = tokio::time::sleep(PATIENCE) => panic!("it takes too long: {counts:?}"),
            () = done => {}
        }
    });
    counts
}

fn log_export(url: &str, records: usize) -> (LogExport, ExportCounts) {
    let client = CollectorClient::new(url.parse().unwrap(), Headers::new(None).unwrap(), None).unwrap();
    let counts = ExportCounts::default();
    let (export, queue) = FlowExport::new(counts.clone());
    let mut denials = Denials::new(None, Some(export));
    for number in 0..records {
        // Each of its own kind.
        let mut event = DecisionEvent::example();
        event.destination.port = Some(u16::try_from(number).unwrap());
        denials.note(&event);
    }
    let resource = resource::attributes(&"n1".into()).unwrap();
    (LogExport::new(client, resource, queue, counts.clone()), counts)
}

#[test]
fn records_arrive_in_batches_with_all_fields_of_the_deny_log() {
    let Exported { counts, requests } = exported(vec![ok()], 700);
    assert_eq!((counts.records(RecordResult::Exported), counts.requests(ExportSignal::Logs)), (700, (2, 0)));
    let (head, body) = &requests[0];
    assert!(head.starts_with("post /otlp/v1/logs http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n") && head.contains("user-agent: podgate/")
    );
    let request = ExportLogsServiceRequest::decode(&body[..]).unwrap();
    let records = &request.resource_logs[0].scope_logs[0].log_records;
    assert_eq!(records.len(), 512);
    let record = &records[80];
    let json = serde_json::to_value(crate::api::FlowRecord::from(&DecisionEvent::example())).unwrap();
    assert_eq!(record.body, Some(attributes::of_json(json)));
    assert_eq!((record.severity_text.as_str(), record.time_unix_nano), ("denied", 1_767_323_045_678_000_000));
    let keys: Vec<&str> = record.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "podgate.verdict",
            "podgate.reason",
            "podgate.direction",
            "podgate.policies",
            "podgate.packets",
            "network.transport",
            "network.type",
            "source.address",
            "source.port",
            "source.k8s.namespace.name",
            "source.k8s.pod.name",
            "destination.address",
            "destination.port",
            "destination.k8s.namespace.name",
            "destination.k8s.pod.name",
            "k8s.namespace.name",
            "k8s.pod.name",
        ]
    );
}

#[test]
fn a_collector_that_is_busy_is_asked_again_and_loses_nothing() {
    let busy = http("503 Service Unavailable", "retry-after: 1\r\n", b"");
    let Exported { counts, requests } = exported(vec![busy, ok()], 3);
    assert_eq!((counts.records(RecordResult::Exported), counts.requests(ExportSignal::Logs)), (3, (1, 1)));
    assert_eq!(requests[0].1, requests[1].1, "the same records");
    assert_eq!(counts.error(ExportSignal::Logs), None);
}

#[test]
fn what_a_collector_refuses_is_counted_and_not_sent_again() {
    let partly = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 2,
            error_message: "too \u{1b}[31mold".into(),
        }),
    };
    for (answer, refused, error) in [
        (http("400 Bad Request", "", b""), 3, "it answers 400 Bad Request"),
        (http("401 Unauthorized", "", b""), 3, "it answers 401 Unauthorized"),
        (http("302 Found", "location: http://elsewhere/\r\n", b""), 3, "it answers 302 Found"),
        (http("200 OK", "content-type: text/html\r\n", b"<html>"), 3, "what answers is no collector of OTLP"),
        (http("200 OK", "", &partly.encode_to_vec()), 2, "2 records refused: too \\u{1b}[31mold"),
    ] {
        let Exported { counts, requests } = exported(vec![answer], 3);
        assert_eq!(requests.len(), 1, "{error}");
        assert_eq!(counts.records(RecordResult::Refused), refused, "{error}");
        assert_eq!(counts.records(RecordResult::Exported), 3 - refused, "{error}");
        assert_eq!(counts.error(ExportSignal::Logs).as_deref(), Some(error));
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 999999999\r\n\r\n".to_vec();
    answer.extend(vec![0; 1 << 20]);
    let collector = FakeCollector::start(vec![answer]);
    let counts = export_to(&collector.url(), 3, |counts| counts.requests(ExportSignal::Logs).1 > 0);
    let error = counts.error(ExportSignal::Logs).unwrap();
    assert!(error.contains("cannot be read"), "{error}");
    assert_eq!(counts.waiting(), 3, "they are tried again");
}

#[test]
fn records_that_no_collector_takes_for_too_long_make_room_for_others() {
    // Bound, so that nothing else listens there.
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (logs, counts) = log_export(&format!("http://{taken}"), 3);
    let mut logs = logs.giving_up_after(Duration::from_secs(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let expired = async {
            while counts.waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.send_replace(true);
        };
        tokio::join!(logs.run(stopped), expired);
    });
    assert_eq!((counts.records(RecordResult::Expired), counts.records(RecordResult::Exported)), (3, 0));
    let (_, failed) = counts.requests(ExportSignal::Logs);
    assert!((1..=3).contains(&failed), "pauses grow: {failed}");
    assert!(counts.error(ExportSignal::Logs).unwrap().contains("onnect"), "{counts:?}");
}

#[test]
fn a_collector_that_hangs_keeps_no_end_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (logs, counts) = log_export(&format!("http://{}", listener.local_addr().unwrap()), 3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let mut logs = logs;
        let run = async {
            logs.run(stopped).await;
            let _ = end.send(());
        };
        let began = std::time::Instant::now();
        let flush = ExportEnd { stop, ended }.flush();
        tokio::select! {
            () = run => panic!("it does not hang"),
            () = flush => {}
        }
        assert!(began.elapsed() < 3 * LAST, "{:?}", began.elapsed());
    });
    assert_eq!(counts.waiting(), 3);
}

#[test]
fn an_encrypted_collector_is_known_by_its_authority_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let new = |url: &str, authorities: Option<&std::path::Path>| {
        CollectorClient::new(url.parse().unwrap(), Headers::new(None).unwrap(), authorities)
            .map_err(|error| format!("{error:#}"))
    };
    let empty = new("https://collector:4318", Some(file.path())).unwrap_err();
    assert!(empty.contains("no certificate is in it"), "{empty}");
    let absent = new("https://collector:4318", Some("/nowhere".as_ref())).unwrap_err();
    assert!(absent.contains("--otlp-ca /nowhere"), "{absent}");
    let plain = new("http://collector:4318", Some(file.path())).unwrap_err();
    assert!(plain.contains("https://"), "{plain}");
    assert_eq!(new("http://collector:4317", None).unwrap().warnings().len(), 1);
    assert_eq!(new("http://collector:4318", None).unwrap().warnings(), [""; 0]);
}
