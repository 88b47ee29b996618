//! An API server with nodes, agents' pods and `pods/exec` over a web socket; agents answer as a test wants.
//!
//! It speaks what kube's client speaks: lists in JSON, and `v5.channel.k8s.io` with a byte for the channel
//! before each message.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// What an agent does when it has read what it was sent.
pub(crate) type Reader = Arc<dyn Fn(&[u8]) -> Behaviour + Send + Sync>;

/// What an agent does when it is asked.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Prints this, and succeeds.
    Prints(String),
    /// Says this on stderr, and fails.
    Fails(&'static str),
    /// Prints this, then says that on stderr, and fails.
    PrintsAndFails(String, &'static str),
    /// Accepts the question, and nothing more.
    Hangs,
    /// The API server refuses the exec.
    Refused(u16),
    /// Prints this once, then again at this rate, until no one reads any more or so many were printed.
    Floods { line: String, every: Duration, lines: usize },
    /// Prints this, and leaves the stream open.
    Follows(String),
    /// Prints this, and is cut off: neither the command nor the connection comes to its end.
    Breaks(String),
    /// Reads so many bytes of standard input, which does not end there.
    Reads(usize, Reader),
}

/// Asked with the node, its pod and the arguments after the program.
pub(crate) type Agents = dyn Fn(&str, &str, &[String]) -> Behaviour + Send + Sync;

/// What is in the cluster.
#[derive(Default)]
pub(crate) struct Objects {
    /// The items of the list at each path.
    pub(crate) lists: BTreeMap<String, Vec<Value>>,
    /// The answer to a path that is no list.
    pub(crate) raw: BTreeMap<String, Value>,
    /// The answer to a path instead of what it holds.
    pub(crate) refused: BTreeMap<String, u16>,
    /// How often a path is answered before it is refused.
    pub(crate) fails_after: BTreeMap<String, usize>,
    /// Commands that agents were asked, as `POD verb …`.
    pub(crate) asked: Vec<String>,
}

pub(crate) struct Server {
    pub(crate) kubeconfig: NamedTempFile,
    objects: Arc<Mutex<Objects>>,
}

pub(crate) const PODS: &str = "/api/v1/namespaces/kube-system/pods";
pub(crate) const NODES: &str = "/api/v1/nodes";

pub(crate) fn node_name(index: usize) -> String {
    format!("node-{index:03}")
}

pub(crate) fn agent_pod(node: &str, pod: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": pod, "namespace": "kube-system", "labels": {"app.kubernetes.io/name": "podgate"}},
        "spec": {"nodeName": node, "containers": [{"name": "agent"}]},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "agent", "image": image, "imageID": image, "ready": true, "restartCount": 0,
            "state": {"running": {}},
        }]},
    })
}

pub(crate) fn node(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}})
}

/// What any agent of this version says of itself.
pub(crate) fn version() -> String {
    json!({"version": env!("CARGO_PKG_VERSION"), "layout": 1}).to_string()
}

impl Server {
    /// So many nodes, each with an agent.
    pub(crate) fn with_nodes(
        nodes: usize,
        agents: impl Fn(&str, &str, &[String]) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let mut objects = Objects::default();
        let names: Vec<String> = (0..nodes).map(node_name).collect();
        let pods = names.iter().map(|node| agent_pod(node, &format!("podgate-{node}"), "sha256:a"));
        let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []});
        objects.raw.insert("/apis".into(), groups);
        objects.lists.insert(PODS.into(), pods.collect());
        objects.lists.insert(NODES.into(), names.iter().map(|name| node(name)).collect());
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a request and a server of this test");
        listener.set_nonblocking(true).expect("a request and a server of this test");
        let address = listener.local_addr().expect("a request and a server of this test");
        let objects = Arc::new(Mutex::new(objects));
        let served = objects.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a request and a server of this test");
            runtime.block_on(async {
                serve(
                    TcpListener::from_std(listener).expect("a request and a server of this test"),
                    served,
                    Arc::new(agents),
                )
                .await;
            });
        });
        let kubeconfig = NamedTempFile::new().expect("a request and a server of this test");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [
                {"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "shop"}},
                {"name": "other", "context": {"cluster": "k", "user": "u"}},
            ],
        });
        fs::write(&kubeconfig, config.to_string()).expect("a request and a server of this test");
        Self { kubeconfig, objects }
    }

    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().expect("a request and a server of this test")
    }
}

async fn serve(listener: TcpListener, objects: Arc<Mutex<Objects>>, agents: Arc<Agents>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (objects, agents) = (objects.clone(), agents.clone());
        let service = service_fn(move |request| {
            let response = respond(request, &objects, &agents);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection.with_upgrades());
    }
}

fn respond(
    request: Request<Incoming>,
    objects: &Mutex<Objects>,
    agents: &Arc<Agents>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut objects = objects.lock().expect("a request and a server of this test");
    if let Some(code) = objects.refused.get(&path) {
        return refused(*code);
    }
    if let Some(left) = objects.fails_after.get_mut(&path) {
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => return refused(500),
        }
    }
    if let Some(pod) = path.strip_prefix(&format!("{PODS}/")).and_then(|rest| rest.strip_suffix("/exec")) {
        let commands = query.split('&').filter_map(|pair| pair.strip_prefix("command="));
        let arguments: Vec<String> = commands.map(decoded).skip(1).collect();
        objects.asked.push(format!("{pod} {}", arguments.join(" ")));
        let known = objects.lists[PODS].iter().find(|known| known["metadata"]["name"] == pod);
        let Some(node) = known.and_then(|known| known["spec"]["nodeName"].as_str()) else {
            return refused(404);
        };
        return match agents(node, pod, &arguments) {
            Behaviour::Refused(code) => refused(code),
            behaviour => stream(request, behaviour),
        };
    }
    if let Some(value) = objects.raw.get(&path) {
        return answer(200, value);
    }
    let Some(items) = objects.lists.get(&path) else { return refused(404) };
    let selector = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).map(decoded);
    let wanted = selector.as_deref().and_then(|selector| selector.split_once('='));
    let fields = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=")).map(decoded);
    let node = fields.as_deref().and_then(|field| field.strip_prefix("spec.nodeName="));
    let name = fields.as_deref().and_then(|field| field.strip_prefix("metadata.name="));
    let is_meant = |item: &&Value| {
        name.is_none_or(|name| item["metadata"]["name"] == name)
            && wanted.is_none_or(|(key, value)| item["metadata"]["labels"][key] == value)
            && node.is_none_or(|node| item["spec"]["nodeName"] == node)
    };
    let items: Vec<Value> = items.iter().filter(is_meant).cloned().collect();
    answer(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn refused(code: u16) -> Response<Full<Bytes>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "it \u{1b}[31mis so", "reason": "Refused", "code": code});
    answer(code, &status)
}

fn answer(code: u16, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = code.try_into().expect("a request and a server of this test");
    response
}

/// `%2F` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                bytes.push(
                    u8::from_str_radix(
                        std::str::from_utf8(&hex).expect("a request and a server of this test"),
                        16,
                    )
                    .expect("two digits"),
                );
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).expect("a request and a server of this test")
}

/// Accepts the web socket, and lets the agent speak.
fn stream(mut request: Request<Incoming>, behaviour: Behaviour) -> Response<Full<Bytes>> {
    let key = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let _ = request.into_body().collect().await;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        speak(socket, behaviour).await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, "Upgrade".parse().expect("a request and a server of this test"));
    headers.insert(UPGRADE, "websocket".parse().expect("a request and a server of this test"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key.parse().expect("a request and a server of this test"));
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        "v5.channel.k8s.io".parse().expect("a request and a server of this test"),
    );
    response
}

async fn speak(mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, behaviour: Behaviour) {
    let message = |channel: u8, text: &str| Message::binary([&[channel], text.as_bytes()].concat());
    let success = json!({"metadata": {}, "status": "Success"}).to_string();
    match behaviour {
        Behaviour::Prints(text) => {
            // In parts, as a kubelet sends them.
            let bytes = text.as_bytes();
            for part in bytes.chunks(8 << 10) {
                if socket.send(Message::binary([&[STDOUT], part].concat())).await.is_err() {
                    return;
                }
            }
            let _ = socket.send(message(STATUS, &success)).await;
        }
        behaviour @ (Behaviour::Fails(_) | Behaviour::PrintsAndFails(..)) => {
            let (text, complaint) = match behaviour {
                Behaviour::PrintsAndFails(text, complaint) => (text, complaint),
                Behaviour::Fails(complaint) => (String::new(), complaint),
                _ => unreachable!("the pattern has these two"),
            };
            let failure = json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                                 "message": "command terminated with non-zero exit code"});
            let _ = socket.send(message(STDOUT, &text)).await;
            let _ = socket.send(message(STDERR, complaint)).await;
            let _ = socket.send(message(STATUS, &failure.to_string())).await;
            // As an API server does with what is still sent to a command that has ended.
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
        Behaviour::Breaks(text) => _ = socket.send(message(STDOUT, &text)).await,
        Behaviour::Floods { line, every, lines } => {
            for _ in 0..lines {
                if socket.send(message(STDOUT, &line)).await.is_err() {
                    return;
                }
                tokio::time::sleep(every).await;
            }
            let _ = socket.send(message(STATUS, &success)).await;
        }
        Behaviour::Follows(text) => {
            if socket.send(message(STDOUT, &text)).await.is_err() {
                return;
            }
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
        Behaviour::Reads(length, then) => {
            let mut input = Vec::new();
            while input.len() < length {
                match socket.next().await {
                    Some(Ok(Message::Binary(part))) if part.first() == Some(&STDIN) => {
                        input.extend(&part[1..]);
                    }
                    Some(Ok(Message::Ping(_))) => {}
                    other => panic!("{other:?} in place of input"),
                }
            }
            Box::pin(speak(socket, then(&input))).await;
        }
        Behaviour::Hangs | Behaviour::Refused(_) => while socket.next().await.is_some() {},
    }
}
