//! Which API server is asked, and as whom: as kubectl finds it.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use kube::{
    Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
};
use podgate_core::printable::printable;

use crate::source::kube::client;

/// As users name it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetOptions<'a> {
    /// Else `$KUBECONFIG`, else the home directory's, else the service account of this pod.
    pub kubeconfig: Option<&'a Path>,
    /// Of the kubeconfig; else its current one.
    pub context: Option<&'a str>,
}

/// An API server.
#[expect(missing_debug_implementations, reason = "its client has none")]
pub struct ApiTarget {
    pub client: Client,
    /// Of the context.
    pub namespace: String,
}

/// Nothing is sent yet.
///
/// # Errors
///
/// When there is no kubeconfig, or it does not have the context.
pub async fn connect(TargetOptions { kubeconfig, context }: TargetOptions<'_>) -> Result<ApiTarget> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = match kubeconfig {
        Some(path) => {
            let failed = |error| anyhow!("--kubeconfig {}: {}", path.display(), printable(&chain(&error)));
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
        }
        None => match Config::from_kubeconfig(&options).await {
            Ok(config) => config,
            // In a pod of the cluster there is mostly none.
            Err(error) => match Config::incluster() {
                Ok(config) if context.is_none() => config,
                Ok(_) | Err(_) => bail!("no API server: {}", printable(&chain(&error))),
            },
        },
    };
    let namespace = config.default_namespace.clone();
    Ok(ApiTarget { client: client(config)?, namespace })
}

/// One line that says what the API server refuses, and what to do about it. `what`: as in `list pods`.
pub fn api_failure(error: &Error, what: &str) -> anyhow::Error {
    match error {
        Error::Api(status) if status.code == 401 => {
            anyhow!("the API server does not accept your credentials (401): log in again")
        }
        Error::Api(status) if status.code == 403 => {
            anyhow!("you may not {what} (403): {}", printable(&status.message))
        }
        Error::Api(status) => {
            anyhow!("cannot {what}: the API server answers {}: {}", status.code, printable(&status.message))
        }
        error => anyhow!("cannot {what}: {}", printable(&chain(error))),
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    // Some errors already say their cause.
    texts.dedup_by(|cause, error| error.contains(&**cause));
    texts.join(": ")
}
