//! How the API server is found and reached.

use std::{env, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A node nearby answers in milliseconds; one that does not is away.
const CONNECT: Duration = Duration::from_secs(5);

/// For one answer or event; longer than a watch lives without either.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// A way to the API server.
#[expect(missing_debug_implementations, reason = "its client has none")]
pub struct ApiConnection {
    pub client: Client,
    /// Asks it by connections of its own.
    pub probe: ApiProbe,
    /// The kubeconfig names a program that gives tokens: it runs whenever one is about to expire.
    pub runs_programs: bool,
}

/// A client by the file that was named; else as a pod of the cluster, else by `$KUBECONFIG`, else by the
/// kubeconfig of the home directory. Nothing is sent yet. Tokens and certificates that are files are read
/// again as they are rotated.
///
/// # Errors
///
/// When none of them is there, or what is there cannot be read.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<ApiConnection> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path);
            let file = file.with_context(|| format!("--kubeconfig {}", path.display()))?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            config.with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None if env::var_os(IN_CLUSTER).is_some() => {
            Config::incluster().context("the API server as a pod of the cluster finds it")?
        }
        None => Config::from_kubeconfig(&KubeConfigOptions::default()).await.context(
            "no API server: neither --kubeconfig, a pod's service account, $KUBECONFIG nor a kubeconfig in the home \
             directory (and no --manifests)",
        )?,
    };
    let runs_programs = config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some();
    let probe = ApiProbe(config.clone());
    Ok(ApiConnection { client: client(config)?, probe, runs_programs })
}

/// Finds out whether the API server can be reached now.
#[derive(Clone, Debug)]
pub struct ApiProbe(Config);

impl ApiProbe {
    /// Asks it something by a new connection.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) async fn ask(&self) -> Result<()> {
        let client = client(self.0.clone())?;
        client.apiserver_version().await.context("cannot ask for its version")?;
        Ok(())
    }
}

pub(crate) fn client(mut config: Config) -> Result<Client> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // The library's own retries are silent, and their pauses grow to minutes; a watch has its own.
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client of the API server")
}

/// Every pod has it.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
