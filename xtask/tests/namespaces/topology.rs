//! The lab without an agent: everything reaches everything, and nothing is left behind.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, BufReader},
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::{
    lab::{Lab, Place, PodNetworkMode, Seen, Service, Traffic, until},
    sandbox::Sandbox,
};

use super::Test;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("topology_reaches_everywhere_over_every_protocol", reaches_everywhere),
    ("a_probe_tells_refused_blocked_and_unroutable_apart", probes_tell_apart),
    ("a_capture_sees_what_arrives", capture_sees),
    ("a_rewired_pod_is_reached_and_a_removed_one_is_not", rewired_and_removed),
    ("a_server_frees_its_port_when_it_is_dropped", server_frees_its_port),
    ("nothing_is_left_after_kill_9_of_the_lab", |_| nothing_left(shell_lab(), End::Signal(Signal::SIGKILL))),
    ("nothing_is_left_after_ctrl_c", |_| nothing_left(shell_lab(), End::Signal(Signal::SIGINT))),
    ("nothing_is_left_after_a_panic", |_| nothing_left(panicking_lab()?, End::Input)),
];

fn reaches_everywhere(lab: &mut Lab) -> Result<()> {
    let routed = lab.node("n1")?;
    let bridged = lab.wired_node("n2", PodNetworkMode::Bridge)?;
    let outside = lab.outside("outside")?;
    let pods = [&routed, &routed, &bridged, &bridged].into_iter().enumerate();
    let pods =
        pods.map(|(index, node)| node.pod(&format!("x/p{index}")).start()).collect::<Result<Vec<_>>>()?;

    let mut ends: Vec<_> = pods.iter().map(|pod| (&pod.place, pod.addresses)).collect();
    ends.extend([&routed, &bridged].map(|node| (&node.place, node.addresses)));
    ends.push((&outside.place, outside.addresses));
    let services = [Service::Http(80), Service::TcpEcho(7), Service::UdpEcho(7)];
    let servers = ends.iter().flat_map(|(place, _)| services.map(|service| place.serve(service)));
    let _servers = servers.collect::<Result<Vec<_>>>()?;

    for (from, _) in &ends {
        for (to, addresses) in &ends {
            for address in addresses.both() {
                for traffic in [Traffic::Http(80), Traffic::Tcp(7), Traffic::Udp(7), Traffic::Echo] {
                    let seen = from.probe_expecting(address, traffic, Seen::Reached)?;
                    ensure!(seen == Seen::Reached, "{} to {}: {traffic} {seen}", from.name(), to.name());
                }
            }
        }
    }
    Ok(())
}

fn probes_tell_apart(lab: &mut Lab) -> Result<()> {
    let pod = lab.node("n1")?.pod("x/a").start()?;
    let host = lab.outside("outside")?;
    // The kernel of the pod drops what arrives for these addresses, so no one answers.
    let [hole4, hole6]: [IpAddr; 2] = ["10.244.1.99".parse()?, "fd00:244:1::99".parse()?];
    pod.place.ip("route add blackhole 10.10.0.99/32\nroute add unreachable 10.10.0.98/32")?;
    pod.node()
        .place
        .ip(&format!("route add {hole4} dev {0}\nroute add {hole6} dev {0}", pod.host_interface))?;
    pod.node().place.ip(&format!(
        "neigh add {hole4} lladdr 02:00:00:00:00:99 dev {0}\nneigh add {hole6} lladdr 02:00:00:00:00:99 dev {0}",
        pod.host_interface
    ))?;
    let [v4, v6] = pod.addresses.both();
    let wait = Duration::from_millis(300);
    for (from, to, traffic, expected) in [
        (&host.place, v4, Traffic::Tcp(81), Seen::Refused),
        (&host.place, v6, Traffic::Udp(81), Seen::Refused),
        (&host.place, v4, Traffic::Echo, Seen::Reached),
        (&host.place, v6, Traffic::Echo, Seen::Reached),
        (&host.place, hole4, Traffic::Tcp(80), Seen::Blocked),
        (&host.place, hole6, Traffic::Udp(80), Seen::Blocked),
        (&host.place, hole6, Traffic::Echo, Seen::Blocked),
        (&pod.place, "10.10.0.98".parse()?, Traffic::Tcp(80), Seen::Unroutable),
    ] {
        let seen = from.probe(to, traffic, wait)?;
        ensure!(seen == expected, "{} to {to}: {traffic} {seen}, not {expected}", from.name());
    }
    Ok(())
}

fn capture_sees(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let (loud, silent, target) =
        (node.pod("x/a").start()?, node.pod("x/b").start()?, node.pod("x/c").start()?);
    let capture = target.place.capture()?;
    for address in target.addresses.both() {
        loud.place.probe_expecting(address, Traffic::Echo, Seen::Reached)?;
        let arrived = until("the echo request is captured", Duration::from_secs(5), || {
            let packets = capture.from(&loud.addresses.both());
            Ok(packets.into_iter().find(|packet| packet.destination == address))
        })?;
        ensure!([1, 58].contains(&arrived.protocol), "{arrived:?} is ICMP");
    }
    capture.nothing_from(&silent.addresses.both())
}

fn rewired_and_removed(lab: &mut Lab) -> Result<()> {
    let node = lab.node("n1")?;
    let (client, server) = (node.pod("x/a").start()?, node.pod("x/b").start()?);
    let _http = server.place.serve(Service::Http(80))?;
    let reach = |place: &Place, expected| -> Result<()> {
        for address in server.addresses.both() {
            let seen = place.probe_expecting(address, Traffic::Http(80), expected)?;
            ensure!(seen == expected, "{address}: {seen}, not {expected}");
        }
        Ok(())
    };
    reach(&client.place, Seen::Reached)?;
    server.rewire()?;
    reach(&client.place, Seen::Reached)?;
    let manifests = lab.manifests().directory();
    ensure!(manifests.join("pod-x.b.yaml").is_file(), "a running pod is listed");
    server.clone().remove()?;
    ensure!(!manifests.join("pod-x.b.yaml").exists(), "a removed pod is not listed");
    reach(&client.place, Seen::Unroutable)
}

fn server_frees_its_port(lab: &mut Lab) -> Result<()> {
    let place = lab.outside("outside")?.place;
    for service in [Service::Http(80), Service::TcpEcho(80), Service::UdpEcho(80)] {
        drop(place.serve(service)?);
        // A program that another thread is just starting has a copy of the socket until it is what it will
        // be.
        until("the port is free again", Duration::from_secs(5), || Ok(place.serve(service).ok()))?;
    }
    Ok(())
}

/// How another lab, a program of its own, is made to end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// By a signal to its outer process.
    Signal(Signal),
    /// By the end of its input.
    Input,
}

/// `cargo xtask lab` with a program that never ends by itself.
fn shell_lab() -> Command {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_xtask"));
    lab.args(["lab", "--bare", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
    lab
}

/// This very program, which then runs `panic_in_lab`.
fn panicking_lab() -> Result<Command> {
    let mut lab = Command::new(env::current_exe().context("finding this program")?);
    lab.env(PANICS, "true");
    Ok(lab)
}

/// Set for a program that shall run `panic_in_lab` in the place of tests.
pub(crate) const PANICS: &str = "LAB_PANICS";

/// Makes a lab with a process in it, says that it is ready, and panics at the end of its input.
pub(crate) fn panic_in_lab(sandbox: Sandbox) -> ! {
    let made = || -> Result<_> {
        let node = Lab::new(sandbox, "panics")?.node("n1")?;
        let sleeper = node.place.command("sleep").arg("1000").spawn().context("starting a process")?;
        Ok((node, sleeper))
    };
    let lab = made().expect("a lab can be made");
    println!("ready");
    let input = io::stdin().lines().count();
    panic!("as asked, after {input} lines, with {lab:?}")
}

/// Ends the other lab and compares what this process can see before and after: processes (with the namespaces
/// that they hold), mounts and interfaces.
fn nothing_left(mut program: Command, end: End) -> Result<()> {
    let before = Traces::of(&BTreeSet::new())?;
    let (input, output) = (Stdio::piped(), Stdio::piped());
    let mut lab =
        program.stdin(input).stdout(output).stderr(Stdio::null()).spawn().context("starting a lab")?;
    let outer = i32::try_from(lab.id())?;
    let mut line = String::new();
    let output = lab.stdout.take().context("stdout is piped")?;
    BufReader::new(output).read_line(&mut line).context("waiting for the lab")?;
    ensure!(line == "ready\n", "the lab said {line:?}");

    let family = descendants(outer)?;
    ensure!(family.len() >= 3, "the outer process, the sandbox and the program: {family:?}");
    let namespaces: BTreeSet<_> = family.iter().filter_map(|process| netns(*process)).collect();
    ensure!(namespaces.len() >= 2, "the sandbox has a network namespace of its own: {namespaces:?}");

    match end {
        End::Signal(signal) => kill(Pid::from_raw(outer), signal).context("ending the lab")?,
        End::Input => drop(lab.stdin.take()),
    }
    lab.wait().context("waiting for the outer process")?;
    until("all processes of the lab are gone", Duration::from_secs(10), || {
        Ok(family.iter().all(|process| netns(*process).is_none()).then_some(()))
    })?;
    let after = Traces::of(&before.mounts)?;
    ensure!(after.interfaces == before.interfaces, "left over: {after:?}, before: {before:?}");
    ensure!(after.mounts.is_empty(), "left over: {after:?}");
    Ok(())
}

/// What a lab could leave in the namespaces of its caller.
#[derive(Debug)]
struct Traces {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<String>,
}

impl Traces {
    /// The present traces, without the mounts in `known` and those of other labs of this test program.
    fn of(known: &BTreeSet<String>) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading mounts")?;
        let mounts = mounts.lines().filter(|line| !line.contains(" /run/lab/") && !known.contains(*line));
        let interfaces = fs::read_to_string("/proc/self/net/dev").context("reading interfaces")?;
        let interfaces =
            interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().into());
        Ok(Self { mounts: mounts.map(str::to_owned).collect(), interfaces: interfaces.collect() })
    }
}

/// `root` and the processes below it, as far as this process namespace shows.
fn descendants(root: i32) -> Result<BTreeSet<i32>> {
    let mut family = BTreeSet::from([root]);
    let mut known = 0;
    while known < family.len() {
        known = family.len();
        for process in fs::read_dir("/proc").context("reading /proc")? {
            let Ok(id) = process?.file_name().to_string_lossy().parse::<i32>() else { continue };
            if parent(id).is_some_and(|parent| family.contains(&parent)) {
                family.insert(id);
            }
        }
    }
    Ok(family)
}

/// Field 4 of `/proc/ID/stat`; the name in field 2 may hold blanks and ends with the last bracket.
fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn netns(process: i32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{process}/ns/net")).ok()?.to_string_lossy().into_owned())
}
