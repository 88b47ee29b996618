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
    task::JoinSet,
    time,
};

use super::{Server, metrics};

/// Connections that are served at once; others wait in the backlog.
const PLACES: usize = 32;
/// From the connection to the last byte of the answer; Prometheus waits 10 s by default.
const TIME_FOR_ONE: Duration = Duration::from_secs(10);
const TIME_FOR_HEADERS: Duration = Duration::from_secs(3);
/// All headers of a request, in bytes: the least that hyper takes.
const LONGEST_REQUEST: usize = 8192;
/// After an accept that failed for lack of descriptors or memory, which only time gives back.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening HTTP server.
#[derive(Debug)]
pub struct Http(TcpListener);

impl Http {
    /// # Errors
    ///
    /// When the address is taken or not this machine's.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        TcpListener::bind(address).await.map(Self).with_context(|| format!("metrics on {address}"))
    }

    /// Where it listens: the port that was found when port 0 was asked for.
    ///
    /// # Errors
    ///
    /// None that a bound socket is known to give.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Answers for ever.
    pub async fn serve(self, server: Server) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.0.accept(), if connections.len() < PLACES => match accepted {
                    Ok((stream, peer)) => {
                        let server = server.clone();
                        connections.spawn(async move {
                            match time::timeout(TIME_FOR_ONE, serve_one(stream, server)).await {
                                Ok(Ok(())) => {}
                                Ok(Err(error)) => tracing::debug!(%error, %peer, "HTTP client"),
                                Err(_) => tracing::debug!(limit = ?TIME_FOR_ONE, %peer, "HTTP client is too slow"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept");
                        time::sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
    }
}

async fn serve_one(stream: TcpStream, server: Server) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let response = respond(&request, &server);
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIME_FOR_HEADERS)
        .max_buf_size(LONGEST_REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn respond(request: &Request<Incoming>, server: &Server) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" if server.snapshot().status.ready => text(StatusCode::OK, "ready\n".into()),
        "/readyz" => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the first full picture is not enforced yet\n".into())
        }
        "/metrics" => {
            let mut response = text(StatusCode::OK, server.metrics());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
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
