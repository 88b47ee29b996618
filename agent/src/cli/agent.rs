//! `podgate agent`: checks what options cannot check one by one, starts the log and hands over to `run`.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
};

use anyhow::bail;

use crate::options::{AgentOptions, LogFormat};

pub(super) fn run(options: &AgentOptions) -> anyhow::Result<ExitCode> {
    if options.manifests.iter().any(|path| path == Path::new("-")) {
        bail!("--manifests -: standard input cannot be watched, give a file or a directory");
    }
    start_log(options);
    log_options(options);
    crate::run::agent(options)?;
    Ok(ExitCode::SUCCESS)
}

/// Logs go to stderr, as all that is no data.
fn start_log(options: &AgentOptions) {
    let log = tracing_subscriber::fmt().with_env_filter(options.log.filter()).with_writer(io::stderr);
    let log = log.with_ansi(io::stderr().is_terminal());
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The log of a verb that goes on and is no agent.
pub(super) fn start_plain_log() {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
}

fn log_options(options: &AgentOptions) {
    let AgentOptions {
        node,
        manifests,
        allow_empty,
        kubeconfig,
        bpffs,
        socket,
        metrics,
        cni_results,
        flows,
        established,
        hook,
        masqueraded_ingress,
        unenforced,
        allow_encapsulation,
        shortcut,
        resolvers,
        names_keep,
        failsafe_inbound,
        failsafe_outbound,
        host_endpoints_guard,
        kubelet_healthz,
        history,
        deny_log,
        deny_log_size,
        otlp,
        otlp_headers,
        otlp_ca,
        otlp_interval,
        log,
        log_format,
        config,
    } = options;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        %node,
        ?manifests,
        allow_empty,
        ?kubeconfig,
        ?bpffs,
        ?socket,
        %metrics,
        ?cni_results,
        flows,
        ?established,
        ?hook,
        ?masqueraded_ingress,
        ?unenforced,
        allow_encapsulation,
        ?shortcut,
        ?resolvers,
        names_keep,
        %failsafe_inbound,
        %failsafe_outbound,
        host_endpoints_guard,
        %kubelet_healthz,
        history,
        ?deny_log,
        deny_log_size,
        otlp = otlp.as_ref().map(tracing::field::display),
        ?otlp_headers,
        ?otlp_ca,
        otlp_interval,
        %log,
        ?log_format,
        ?config,
        "agent starts"
    );
}
