//! `cargo xtask conformance` and `cargo xtask upstream`: suites of Kubernetes, on a cluster with podgate.
//!
//! In: the image of podgate; suites and the image of their pods, which Go builds. Out: a line for each test,
//! the suite's own log and report below `target/suites`, exit code 1 when a test fails. Where the kernel has
//! no SCTP, pods do the first half of its handshake by raw sockets (`xtask/kubernetes/sctp`).

mod lines;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    cluster::{self, Cluster, ImageFiles},
    flags::{ConformanceFlags, PolicyApi, UpFlags, UpstreamFlags},
    image, kubernetes, root,
    screen::mark,
    setup, workspace,
};
use lines::{Format, Outcome};

/// Runs the suite of ClusterNetworkPolicy for each version of the API, with its definition installed for that
/// time alone.
pub(crate) fn conformance(flags: &ConformanceFlags) -> Result<ExitCode> {
    let all = [PolicyApi::V1alpha2, PolicyApi::V1beta1];
    let apis: Vec<PolicyApi> =
        all.into_iter().filter(|api| flags.api.is_none_or(|only| only == *api)).collect();
    prepare()?;
    let mut suites = Vec::new();
    for api in apis {
        let (program, sources) = kubernetes::conformance_suite(api)?;
        suites.push((api, program, sources));
    }
    let mut images = Vec::new();
    for (_, _, sources) in &suites {
        images.extend(images_in(&sources.join("conformance/base/manifests.yaml"))?);
    }
    on_cluster(&images, |cluster| {
        let mut sound = true;
        for (api, program, sources) in &suites {
            sound &= conformance_of(cluster, *api, program, sources, flags.focus.as_deref())?;
        }
        Ok(sound)
    })
}

fn conformance_of(
    cluster: &Cluster,
    api: PolicyApi,
    program: &Path,
    sources: &Path,
    focus: Option<&str>,
) -> Result<bool> {
    let definition =
        sources.join("config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml");
    let definition = definition.to_str().context("the path of Go's sources is not UTF-8")?;
    // Too large for the annotation that `apply` keeps.
    cluster.ask(&["create", "-f", definition])?;
    cluster.ask(&["wait", "--for=condition=Established", "--timeout=60s", "-f", definition])?;

    println!("ClusterNetworkPolicy {}", api.name());
    let report = directory()?.join(format!("conformance-{}.yaml", api.name()));
    let mut suite = cluster.client(program)?;
    suite
        .args(["-test.v=test2json", "-test.timeout=2h"])
        .arg(format!("-test.run=^TestConformanceProfiles$/{}", focus.unwrap_or_default()))
        .args(["-conformance-profiles=ClusterNetworkPolicy", &format!("-supported-features={FEATURES}")])
        .args(["-organization=podgate", "-project=podgate", "-url=https://example.com/podgate"])
        .args([
            concat!("-version=v", env!("CARGO_PKG_VERSION")),
            "-contact=@podgate",
            "-additional-info=cargo xtask conformance",
        ])
        .arg(format!("-report-output={}", report.display()));
    let sound = follow(&mut suite, Format::Go, &format!("conformance-{}.log", api.name()))?;
    println!("report: {}", report.display());
    cluster.ask(&["delete", "-f", definition])?;
    // The suite deletes its namespaces, and does not wait for their end.
    cluster.ask(&["delete", "namespace", "-l", "conformance-house", "--timeout=180s"])?;
    Ok(sound)
}

/// What the suite calls the features that podgate has.
const FEATURES: &str =
    "ClusterNetworkPolicy,ClusterNetworkPolicyNamedPorts,ClusterNetworkPolicyEgressNodePeers";

/// Runs the specs of NetworkPolicy.
pub(crate) fn upstream(flags: &UpstreamFlags) -> Result<ExitCode> {
    prepare()?;
    let program = kubernetes::upstream_specs()?;
    let output = Command::new(&program).arg("-print-image").output().context("starting the suite")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let image = String::from_utf8(output.stdout).context("the name of an image")?.trim().to_owned();
    on_cluster(&[image], |cluster| {
        println!("NetworkPolicy");
        // It asks for its working directory, which a process that has entered namespaces may not have.
        let mut suite = cluster.client("env".as_ref())?;
        suite.arg("-C").arg(directory()?).arg(&program);
        suite
            .args(["-ginkgo.v", "-ginkgo.no-color", "-ginkgo.timeout=4h"])
            .arg(format!("-ginkgo.focus={}", flags.focus.as_deref().unwrap_or_default()))
            .arg(format!("-report-dir={}", directory()?.display()));
        follow(&mut suite, Format::Ginkgo, "upstream.log")
    })
}

fn prepare() -> Result<()> {
    root::require("a cluster in namespaces")?;
    setup::run()?;
    cluster::install()?;
    if !has_sctp() {
        println!("this kernel has no SCTP: pods do the first half of its handshake by raw sockets");
    }
    Ok(())
}

/// Whether pods on this machine can speak SCTP.
fn has_sctp() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).is_ok()
}

/// The files of the suites' image.
fn agnhost() -> Result<ImageFiles> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("reading {}", path.display()));
    let agnhost = read(kubernetes::agnhost()?)?;
    // Busybox has its shell under other names.
    let bash = ("bin/bash", b"#!/bin/sh\nexec /bin/sh \"$@\"\n".to_vec());
    let files = match has_sctp() {
        true => vec![("agnhost", agnhost), bash],
        false => vec![
            ("agnhost", WITHOUT_SCTP.into()),
            ("bin/agnhost", agnhost),
            ("bin/sctp", read(kubernetes::sctp()?)?),
            bash,
        ],
    };
    Ok(ImageFiles { files, arguments: &["pause"] })
}

const WITHOUT_SCTP: &str = "#!/bin/sh
case \"$*\" in
connect*--protocol=sctp*) exec /bin/sctp \"$@\";;
porter*) if env | grep -q ^SERVE_SCTP_; then exec /bin/sctp serve; fi;;
esac
exec /bin/agnhost \"$@\"
";

/// Starts a cluster with podgate and the suites' image under `names`, runs `task`, and ends the cluster.
fn on_cluster(names: &[String], task: impl FnOnce(&Cluster) -> Result<bool>) -> Result<ExitCode> {
    let podgate = image::build(env!("CARGO_PKG_VERSION"))?;
    let archive = directory()?.join("agnhost.tar");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster::write_image(&archive, &names, Some(&agnhost()?))?;
    let cluster = cluster::up(UpFlags::default())?;
    let outcome = cluster
        .load_image(&podgate.path)
        .and_then(|()| cluster.load_image(&archive))
        .and_then(|()| cluster.install_podgate())
        .and_then(|()| task(&cluster));
    if outcome.is_err() {
        cluster.show_pods();
    }
    cluster::down()?;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a suite, prints a line for each test, and hands back whether all passed. Its output goes to `log`.
fn follow(suite: &mut Command, format: Format, log: &str) -> Result<bool> {
    let log = directory()?.join(log);
    let mut file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    suite.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone().context("sharing the log")?);
    let mut suite = suite.spawn().context("starting the suite")?;
    let output = BufReader::new(suite.stdout.take().context("stdout is piped")?);
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    let mut reader = lines::Reader::new(format);
    for line in output.lines() {
        let line = line.context("reading the output of the suite")?;
        writeln!(file, "{line}").with_context(|| format!("writing {}", log.display()))?;
        let Some(test) = reader.read(&line) else { continue };
        let what = format!("{}, {} s", test.name, test.seconds);
        match test.outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed => failed += 1,
            Outcome::LeftOut => left_out += 1,
        }
        if test.outcome != Outcome::LeftOut {
            println!("{} {what}", mark(test.outcome == Outcome::Passed));
        }
    }
    let status = suite.wait().context("waiting for the suite")?;
    println!("{passed} passed, {failed} failed, {left_out} left out; log: {}", log.display());
    ensure!(passed + failed > 0, "the suite ran no test: {status}");
    ensure!(status.success() || failed > 0, "all tests passed, but the suite did not: {status}");
    Ok(failed == 0)
}

/// The images that pods of manifests run.
fn images_in(manifests: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(manifests).with_context(|| format!("reading {}", manifests.display()))?;
    let mut images: Vec<String> =
        text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).map(ToOwned::to_owned).collect();
    images.sort();
    images.dedup();
    ensure!(!images.is_empty(), "no image in {}", manifests.display());
    Ok(images)
}

/// For logs, reports and the image.
fn directory() -> Result<PathBuf> {
    let directory = workspace::target()?.join("suites");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    Ok(directory)
}
