//! What the plugin does for each command of the CNI specification.
//!
//! ADD ends when the pod's policies are enforced, or with the error "try again later"; the time for it is
//! bounded. CHECK asks whether they are. DEL and GC forget, and never fail a pod's end. STATUS is always
//! well: a node without an agent can start pods.

use std::{
    ffi::OsString,
    fmt,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use podgate_datapath::{
    NewInterface, StandIn,
    network::{HostSide, host_side},
};
use serde_json::json;

use super::{
    error::{CniError, Code},
    namespaces::NamespaceIsolation,
    pods::{self, AttachedPod},
    request::{Attachment, CniCommand, CniRequest, Settings, VERSIONS, WhenUnknown},
};
use crate::{api, endpoints::cni::CniResult, server::Ask};

/// Bytes of the longest configuration, with a result in it.
const LONGEST_INPUT: u64 = 1 << 20;

/// Between two looks for an agent.
const PAUSE: Duration = Duration::from_millis(20);

/// How much longer than the configured timeout a command may take: for answers on their way, and for calls of
/// the kernel that cannot be interrupted.
const GRACE: Duration = Duration::from_secs(2);

/// One run, by the variables of the environment and standard input. The answer, or the error, is on standard
/// output.
pub(crate) fn run(environment: &dyn Fn(&str) -> Option<OsString>) -> ExitCode {
    let mut input = String::new();
    // Without a command no one writes to standard input.
    let is_asked = environment("CNI_COMMAND").is_some_and(|command| !command.is_empty());
    let read = if is_asked { io::stdin().take(LONGEST_INPUT).read_to_string(&mut input) } else { Ok(0) };
    let version = CniRequest::version_of(&input);
    let answer = read
        .map_err(|error| CniError::new(Code::Failure, format!("standard input: {error}")))
        .and_then(|_| CniRequest::read(environment, &input))
        .and_then(|request| {
            limit(&request);
            serve(&request)
        });
    let (text, code) = match answer {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.json(&version), ExitCode::FAILURE),
    };
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if written.is_ok() { code } else { ExitCode::FAILURE }
}

/// Ends the process in time, whatever it waits for. It may end at any moment: each step leaves the pod
/// guarded, or fails.
fn limit(request: &CniRequest) {
    let (limit, version) = (request.settings.timeout + 2 * GRACE, request.version.clone());
    thread::spawn(move || {
        thread::sleep(limit);
        let error = CniError::new(Code::TryAgainLater, format!("not done within {} s", limit.as_secs()));
        println!("{}", error.json(&version));
        process::exit(1);
    });
}

fn serve(request: &CniRequest) -> Result<String, CniError> {
    match request.command {
        CniCommand::Version => {
            Ok(json!({"cniVersion": request.version, "supportedVersions": VERSIONS}).to_string())
        }
        CniCommand::Status => Ok(String::new()),
        CniCommand::Gc => {
            // A runtime that does not say what is still there has called DEL for what is not.
            let Some(valid) = &request.valid else { return Ok(String::new()) };
            pods::keep(&request.settings.socket, &request.network, valid).map_err(failure)?;
            Ok(String::new())
        }
        CniCommand::Del => {
            if let Some(attachment) = &request.attachment
                && let Err(error) = pods::remove(&request.settings.socket, attachment)
            {
                // The pod's end must not wait for it.
                note(format_args!("{error:#}"));
            }
            Ok(String::new())
        }
        CniCommand::Check => check(request).map(|()| String::new()),
        CniCommand::Add => add(request),
    }
}

fn add(request: &CniRequest) -> Result<String, CniError> {
    let previous = request.previous.clone().ok_or_else(|| {
        let message = "there is no prevResult: it must come after a plugin that makes the interface";
        CniError::new(Code::InvalidConfiguration, message)
    })?;
    if let Some((pod, attachment)) = attached_pod(request, &previous)? {
        pod.write(&request.settings.socket, &request.network, attachment).map_err(failure)?;
        enforce(&request.settings, &pod)?;
    }
    Ok(previous)
}

/// Waits until an agent has enforced the pod's policies; guards it where there is no agent.
fn enforce(settings: &Settings, pod: &AttachedPod) -> Result<(), CniError> {
    let deadline = Instant::now() + settings.timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match ask(settings, pod, left) {
            Ok(Some(())) => return Ok(()),
            Ok(None) => {}
            Err(error) => return Err(try_again(&error)),
        }
        let HostSide { ifindex, name, master } = &pod.host;
        let interface =
            NewInterface { ifindex: *ifindex, name, master: *master, addresses: &pod.result.addresses };
        let may_isolate = may_isolate(settings, &pod.pod.namespace);
        match podgate_datapath::stand_in(&settings.bpffs, &interface, may_isolate, deadline) {
            Ok(StandIn::Pending | StandIn::Unmanaged) => return Ok(()),
            // It starts, or has just ended.
            Ok(StandIn::AgentRuns) => {}
            Err(error) => return Err(try_again(&error.context("without an agent"))),
        }
        if Instant::now() >= deadline {
            let message = format!("an agent runs, and does not answer on {}", settings.socket.display());
            return Err(CniError::new(Code::TryAgainLater, message));
        }
        thread::sleep(PAUSE);
    }
}

/// Whether a policy may isolate a pod of this namespace, by what the last agent knew.
fn may_isolate(settings: &Settings, namespace: &str) -> bool {
    let known = NamespaceIsolation::read(&settings.socket);
    let known = known.inspect_err(|error| note(format_args!("{error:#}"))).unwrap_or_default();
    match (known.isolates(namespace), settings.when_unknown) {
        (Some(isolates), _) => isolates,
        (None, WhenUnknown::Open) => false,
        (None, WhenUnknown::Closed) => true,
    }
}

/// `None`: no agent answers.
fn ask(settings: &Settings, pod: &AttachedPod, patience: Duration) -> Result<Option<()>> {
    let ask = Ask::AwaitPod {
        pod: pod.pod.to_string(),
        uid: pod.uid.clone(),
        interface: pod.host.name.to_string(),
        ifindex: pod.host.ifindex,
        milliseconds: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    };
    api::try_ask(&settings.socket, &ask, patience + GRACE)
}

fn check(request: &CniRequest) -> Result<(), CniError> {
    let Some(previous) = &request.previous else { return Ok(()) };
    let Some((pod, _)) = attached_pod(request, previous)? else { return Ok(()) };
    match ask(&request.settings, &pod, request.settings.timeout) {
        Ok(Some(())) => Ok(()),
        Ok(None) => match podgate_datapath::is_guarded(&request.settings.bpffs, pod.host.ifindex) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = format!("no program is at {}, and there is no agent", pod.host.name);
                Err(CniError::new(Code::Failure, message))
            }
            Err(error) => Err(failure(error)),
        },
        Err(error) => Err(failure(error)),
    }
}

/// The pod of a request. `None`: policies do not apply. It is no pod, it is a further network of a pod, or no
/// device of the node is paired with its interface, which the agent reports as not enforced.
fn attached_pod<'r>(
    request: &'r CniRequest,
    previous: &str,
) -> Result<Option<(AttachedPod, &'r Attachment)>, CniError> {
    let (Some(attachment), Some(namespace)) = (&request.attachment, &request.namespace) else {
        return Ok(None);
    };
    let Some(result) = result(request, attachment, namespace, previous)? else { return Ok(None) };
    if !result.primary {
        return Ok(None);
    }
    let found = host_side(namespace, &attachment.interface)
        .with_context(|| format!("the interface {} of {}", attachment.interface, result.pod));
    let Some(host) = found.map_err(failure)? else {
        note(format_args!(
            "{}: {} is not paired with a device of the node",
            result.pod, attachment.interface
        ));
        return Ok(None);
    };
    let uid = request.argument("K8S_POD_UID").unwrap_or_default().to_owned();
    Ok(Some((AttachedPod { pod: result.pod.clone(), uid, result, host }, attachment)))
}

/// The result of the plugins before, as the agent reads it from libcni's cache.
fn result(
    request: &CniRequest,
    attachment: &Attachment,
    namespace: &PathBuf,
    previous: &str,
) -> Result<Option<CniResult>, CniError> {
    let invalid = |error: String| CniError::new(Code::CannotDecode, format!("prevResult: {error}"));
    let previous: serde_json::Value =
        serde_json::from_str(previous).map_err(|error| invalid(error.to_string()))?;
    let record = json!({
        "ifName": attachment.interface,
        "netns": namespace,
        "cniArgs": request.arguments,
        "result": previous,
    });
    CniResult::parse(record.to_string().as_bytes()).map_err(|error| invalid(error.to_string()))
}

/// For the runtime's log. A pod does not depend on whether somebody reads it.
fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "podgate: {text}");
}

fn failure(error: anyhow::Error) -> CniError {
    CniError::new(Code::Failure, format!("{error:#}"))
}

fn try_again(error: &anyhow::Error) -> CniError {
    CniError::new(Code::TryAgainLater, format!("{error:#}"))
}
