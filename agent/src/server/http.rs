//! `/metrics`, `/healthz` and `/readyz`.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task, time,
};

use super::{Server, connection_limit::ConnectionLimit, metrics::CONTENT_TYPE};
use crate::api::Status;

/// Pods that `/readyz` names.
const NAMED_PODS: usize = 10;

/// Connections from the node itself, such as the kubelet's probes, that are served at once.
const MAX_CONNECTIONS_OF_NODE: usize = 32;
/// Connections from elsewhere. They take none of the node's places.
const MAX_CONNECTIONS_OF_OTHERS: usize = 32;
/// From the connection to the last byte of the answer; Prometheus waits 10 s by default.
const TIME_FOR_ONE: Duration = Duration::from_secs(10);
const TIME_FOR_HEADERS: Duration = Duration::from_secs(3);
/// All headers of a request, in bytes: the least that hyper takes.
const LONGEST_REQUEST: usize = 8192;
/// After an accept that failed for lack of descriptors or memory, which only time gives back.
const PAUSE: Duration = Duration::from_millis(100);

const NOT_YET: &str = "the first full picture is not enforced yet";

/// The listening HTTP server.
#[derive(Debug)]
pub struct Http(TcpListener);

impl Http {
    /// # Errors
    ///
    /// When the address is taken or not this machine's.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        TcpListener::bind(address)
            .await
            .map(Self)
            .with_context(|| format!("cannot listen on {address} for metrics"))
    }

    /// Where it listens: the port that was found when port 0 was asked for.
    ///
    /// # Errors
    ///
    /// None that a bound socket is known to give.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Answers for ever. A newcomer takes the place of the oldest connection of its kind if there is none: a
    /// client that says nothing keeps no one out.
    pub async fn serve(self, server: Server) -> anyhow::Result<()> {
        let (mut of_node, mut of_others) =
            (ConnectionLimit::new(MAX_CONNECTIONS_OF_NODE), ConnectionLimit::new(MAX_CONNECTIONS_OF_OTHERS));
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    let is_of_node = peer.ip().to_canonical().is_loopback()
                        || stream.local_addr().is_ok_and(|local| local.ip() == peer.ip());
                    let server = server.clone();
                    let connection = async move {
                        match time::timeout(TIME_FOR_ONE, serve_one(stream, server)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!(%error, %peer, "HTTP client"),
                            Err(_) => {
                                tracing::debug!(limit = ?TIME_FOR_ONE, %peer, "HTTP client is too slow");
                            }
                        }
                    };
                    if is_of_node { &mut of_node } else { &mut of_others }.serve(connection);
                    // A question that came with the connection is answered before the next connection is
                    // taken.
                    task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn serve_one(stream: TcpStream, server: Server) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(respond(&request, &server).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIME_FOR_HEADERS)
        .max_buf_size(LONGEST_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond(request: &Request<Incoming>, server: &Server) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => {
            let Status { ready, last_error, unenforced, .. } = server.status();
            let named: String = unenforced.iter().take(NAMED_PODS).map(|pod| format!("{pod}\n")).collect();
            match (ready, last_error) {
                (true, _) if unenforced.is_empty() => text(StatusCode::OK, "ready\n".into()),
                (true, _) => {
                    let pods = unenforced.len();
                    let first = format!("ready, degraded: {pods} pods that should be isolated are not\n");
                    text(StatusCode::OK, first + &named)
                }
                (false, None) if !unenforced.is_empty() => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{named}"))
                }
                (false, None) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{NOT_YET}\n")),
                (false, Some(error)) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("{NOT_YET}: {error}\n"))
                }
            }
        }
        "/metrics" => {
            let Some(metrics) = server.metrics().await else {
                return text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", super::BUSY));
            };
            let mut response = text(StatusCode::OK, metrics);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n".into()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
