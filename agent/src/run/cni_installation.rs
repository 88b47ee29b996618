//! Keeps the CNI plugin in the container runtime's configuration, whoever writes that again.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

use super::{runtime, shutdown::Shutdown};
use crate::{
    cni_plugin::{Installation, Installed},
    endpoints::cni::watched::Watched,
};

/// How often it is looked whether the plugin is still there, should no event tell.
const LOOK: Duration = Duration::from_secs(5);

/// Installs the plugin, and again whenever it is gone, until SIGTERM or SIGINT. It stays then: what it guards
/// must not be unguarded for as long as an upgrade takes.
///
/// # Errors
///
/// When the kernel gives no signals. What cannot be installed is logged and tried again.
pub(crate) fn keep_cni_plugin(installation: &Installation) -> Result<()> {
    runtime()?.block_on(async {
        let mut shutdown = Shutdown::new()?;
        let directory = std::path::absolute(&installation.configurations)?;
        let mut installed = installation.install();
        let mut last: Option<Result<Option<PathBuf>, String>> = None;
        loop {
            report(installed, &mut last);
            // Before the look: a change in between is an event.
            let watched = Watched::new(&directory);
            installed = installation.install_again();
            if installed.as_ref().is_ok_and(|installed| !installed.written.is_empty()) {
                continue;
            }
            let changed = async {
                match &watched {
                    Ok(watched) if watched.ready().await.is_ok() => {}
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.wait() => return Ok(()),
            }
        }
    })
}

/// Logs what is written, and what else differs from the last time.
fn report(installed: Result<Installed>, last: &mut Option<Result<Option<PathBuf>, String>>) {
    let now = match installed {
        Ok(Installed { configuration, written }) => {
            for file in written {
                tracing::info!(file = %file.display(), "written");
            }
            Ok(configuration)
        }
        Err(error) => Err(format!("{error:#}")),
    };
    if last.as_ref() != Some(&now) {
        match &now {
            Ok(Some(file)) => tracing::info!(configuration = %file.display(), "the CNI plugin is installed"),
            Ok(None) => tracing::warn!("the container runtime has no CNI configuration yet"),
            Err(error) => tracing::error!("the CNI plugin is not installed: {error}"),
        }
    }
    *last = Some(now);
}
