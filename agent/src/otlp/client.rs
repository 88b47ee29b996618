//! Requests to a collector, and the interpretation of its answers.
//!
//! A collector is not trusted: its answer has a deadline and a size limit, and its text is made printable.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use podgate_core::printable::printable;
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;

use super::{collector_url::CollectorUrl, headers::Headers};
use crate::observe::ExportSignal;

/// From the request to the end of the answer: OpenTelemetry's default (`OTEL_EXPORTER_OTLP_TIMEOUT`).
const TIME_FOR_ONE: Duration = Duration::from_secs(10);
const TIME_TO_CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept: until the next request, or not much longer.
const IDLE: Duration = Duration::from_secs(90);
/// Largest size of an answer in bytes: it says how many records were refused, and why.
const LONGEST_ANSWER: usize = 64 << 10;
/// Largest size in bytes of an answer's headers, and of one read.
const LONGEST_HEADERS: usize = 16 << 10;
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 300;
/// The customary port of OTLP over gRPC.
const PORT_OF_GRPC: u16 = 4317;
const PROTOBUF: &str = "application/x-protobuf";
const SENDER: &str = concat!("podgate/", env!("CARGO_PKG_VERSION"));

/// Copies share their connections.
#[derive(Clone)]
pub(super) struct CollectorClient {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: CollectorUrl,
    headers: Headers,
}

/// The reason why a collector has not taken the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SendError {
    /// It may take the data later, but not before this time has passed.
    Retry { error: String, pause: Duration },
    /// It would refuse the data later, too.
    Refused(String),
}

impl CollectorClient {
    /// `authorities`: a file with certificates of authorities; without it those of the system.
    ///
    /// # Errors
    ///
    /// When there are no authorities for an `https` collector.
    pub(super) fn new(url: CollectorUrl, headers: Headers, authorities: Option<&Path>) -> Result<Self> {
        ensure!(
            url.is_encrypted() || authorities.is_none(),
            "--otlp-ca is for a collector at https://, and {url} is none"
        );
        let roots = if url.is_encrypted() { roots(authorities)? } else { RootCertStore::empty() };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("cannot set up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIME_TO_CONNECT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = if url.is_encrypted() { connector.https_only() } else { connector.https_or_http() };
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(ExportSignal::ALL.len())
            .http1_max_buf_size(LONGEST_HEADERS)
            .build(connector.enable_http1().wrap_connector(tcp));
        Ok(Self { http, url, headers })
    }

    /// A warning about a URL that is probably a mistake.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let grpc = "port 4317 is usually OTLP over gRPC; podgate uses OTLP over HTTP, usually at 4318";
        let plain = "its headers go over the network without encryption";
        let warnings = [
            (self.url.port() == Some(PORT_OF_GRPC), grpc),
            (!self.url.is_encrypted() && !self.headers.is_empty(), plain),
        ];
        warnings.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning).collect()
    }

    /// Sends once, and reads the answer.
    pub(super) async fn send<A: Message + Default>(
        &self,
        signal: ExportSignal,
        body: Bytes,
    ) -> Result<A, SendError> {
        let headers = self.headers.read().map_err(|error| later(&format!("{error:#}"), None))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.path(signal);
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static(SENDER));
        let exchange = async {
            let response = self.http.request(request).await;
            let response =
                response.map_err(|error| later(&format!("{:#}", anyhow::Error::from(error)), None))?;
            answer(response).await
        };
        timeout(TIME_FOR_ONE, exchange)
            .await
            .unwrap_or_else(|_| Err(later(&format!("no answer within {} s", TIME_FOR_ONE.as_secs()), None)))
    }
}

/// Interprets an answer (OTLP 1.x, "OTLP/HTTP Response").
async fn answer<A: Message + Default>(response: Response<Incoming>) -> Result<A, SendError> {
    match response.status() {
        StatusCode::OK => {}
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => {
            return Err(later(&format!("it answers {status}"), retry_after(response.headers())));
        }
        status => return Err(SendError::Refused(format!("it answers {status}"))),
    }
    let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
    let body = body.map_err(|error| later(&format!("its answer cannot be read: {error}"), None))?;
    // Any HTTP server may answer with a page: that does not prove that records were taken.
    A::decode(body.to_bytes())
        .map_err(|_| SendError::Refused("what answers is no collector of OTLP".to_owned()))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn later(error: &str, pause: Option<Duration>) -> SendError {
    SendError::Retry { error: shown(error), pause: pause.unwrap_or_default() }
}

/// The collector's message, made printable.
pub(super) fn shown(text: &str) -> String {
    printable(text).chars().take(LONGEST_ERROR).collect()
}

fn roots(authorities: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(file) => {
            let read = |roots: &mut RootCertStore| -> Result<()> {
                for certificate in CertificateDer::pem_file_iter(file)? {
                    roots.add(certificate?)?;
                }
                ensure!(!roots.is_empty(), "no certificate is in it");
                Ok(())
            };
            read(&mut roots).with_context(|| format!("--otlp-ca {}", file.display()))?;
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(
                !roots.is_empty(),
                "this system has no certificates of authorities to know a collector by: name a file by --otlp-ca"
            );
        }
    }
    Ok(roots)
}

impl SendError {
    pub(super) fn error(&self) -> &str {
        match self {
            Self::Retry { error, .. } | Self::Refused(error) => error,
        }
    }
}

impl fmt::Debug for CollectorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { http: _, url, headers } = self;
        f.debug_struct("CollectorClient").field("url", url).field("headers", headers).finish_non_exhaustive()
    }
}
