//! The URL of a collector, as an option gives it.

use std::{fmt, str::FromStr};

use hyper::{Uri, http::uri::Scheme};

use crate::observe::ExportSignal;

/// For example `https://collector.example.com:4318/prefix`: OTLP's paths are appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    /// Without a slash at its end.
    base: String,
    is_encrypted: bool,
    port: Option<u16>,
}

impl CollectorUrl {
    pub(super) const fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    pub(super) const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The URL of requests with this signal (OTLP 1.x, "OTLP/HTTP Request").
    pub(super) fn path(&self, signal: ExportSignal) -> Uri {
        let url = format!("{}/v1/{}", self.base, signal.name());
        url.parse().expect("a URL takes a path behind its own")
    }
}

impl FromStr for CollectorUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "not a URL like http://collector:4318 or https://collector.example.com/prefix";
        let base = text.trim_end_matches('/');
        let url: Uri = base.parse().map_err(|_| FORM)?;
        let is_encrypted = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return Err(FORM),
        };
        let authority = url.authority().filter(|authority| !authority.host().is_empty()).ok_or(FORM)?;
        if authority.as_str().contains('@') {
            return Err("no user and password stand in a URL: give them as a header, by --otlp-headers");
        }
        if authority.as_str().strip_prefix(authority.host()).is_some_and(|port| !port.is_empty())
            && authority.port_u16().is_none_or(|port| port == 0)
        {
            return Err("its port is none");
        }
        if url.query().is_some() || text.contains('#') {
            return Err("nothing comes behind its path");
        }
        if ExportSignal::ALL.iter().any(|signal| url.path().ends_with(&format!("/v1/{}", signal.name()))) {
            return Err("give it without /v1/logs and /v1/metrics, which are added");
        }
        Ok(Self { base: base.to_owned(), is_encrypted, port: authority.port_u16() })
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otlps_paths_come_behind_that_of_the_url() {
        for (url, logs) in [
            ("http://collector:4318", "http://collector:4318/v1/logs"),
            ("http://collector:4318/", "http://collector:4318/v1/logs"),
            ("https://[2001:db8::1]:4318/a/b", "https://[2001:db8::1]:4318/a/b/v1/logs"),
        ] {
            let url: CollectorUrl = url.parse().unwrap();
            assert_eq!(url.path(ExportSignal::Logs).to_string(), logs);
            assert_eq!(url.path(ExportSignal::Metrics).to_string(), logs.replace("logs", "metrics"));
        }
    }

    #[test]
    fn what_is_no_url_of_a_collector_is_refused_with_a_reason() {
        for (url, reason) in [
            ("", "not a URL"),
            ("collector:4318", "not a URL"),
            ("/v1/logs", "not a URL"),
            ("grpc://collector:4317", "not a URL"),
            ("http://", "not a URL"),
            ("http://:4318", "not a URL"),
            ("http://a b", "not a URL"),
            ("http://collector:0", "port"),
            ("http://collector:70000", "port"),
            ("http://user:secret@collector:4318", "--otlp-headers"),
            ("http://collector:4318?x=1", "nothing comes behind"),
            ("http://collector:4318/#x", "nothing comes behind"),
            ("http://collector:4318/v1/logs", "without /v1/logs"),
        ] {
            let refused = url.parse::<CollectorUrl>().expect_err(url);
            assert!(refused.contains(reason), "{url}: {refused}");
        }
    }
}
