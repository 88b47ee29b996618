//! Resolvers in places, and the server that has the names.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::programs::Programs;
use crate::lab::{Daemon, PATIENT, Place, until};

/// A resolver's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolver {
    Unbound,
    CoreDns,
}

impl Resolver {
    pub(super) const ALL: [Self; 2] = [Self::Unbound, Self::CoreDns];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unbound => "unbound",
            Self::CoreDns => "CoreDNS",
        }
    }

    /// Starts it with its cache; it asks `server`. `at`: where it listens, else on all addresses.
    pub(super) fn start(
        self,
        programs: &Programs,
        place: &Place,
        at: &[IpAddr],
        server: IpAddr,
        directory: &Path,
    ) -> Result<Daemon> {
        let directory = directory.join(format!("resolver-{}", place.name().replace('/', "-")));
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let mut command = match self {
            Self::Unbound => {
                let everywhere = ["0.0.0.0".to_owned(), "::0".to_owned()];
                let listen = if at.is_empty() { everywhere.to_vec() } else { strings(at) };
                let listen: String = listen.iter().map(|at| format!("  interface: {at}\n")).collect();
                let text = format!(
                    "server:\n{listen}  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  \
                     do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{}\"\n  pidfile: \"\"\n  \
                     use-syslog: no\n  module-config: \"iterator\"\n  incoming-num-tcp: 100\nremote-control:\n  \
                     control-enable: no\nforward-zone:\n  name: \".\"\n  forward-addr: {server}\n",
                    directory.display()
                );
                let file = write(directory.join("unbound.conf"), &text)?;
                let mut command = place.command(&programs.unbound);
                command.arg("-d").arg("-c").arg(file);
                command
            }
            Self::CoreDns => {
                let bind =
                    if at.is_empty() { String::new() } else { format!("bind {}\n", strings(at).join(" ")) };
                let text = format!(".:53 {{\n{bind}cache 30\nforward . {server}\n}}\n");
                core_dns(programs, place, &directory, &text)?
            }
        };
        start(
            self.name(),
            &mut command,
            place,
            *at.first().unwrap_or(&Ipv4Addr::LOCALHOST.into()),
            &directory,
        )
    }
}

/// Starts the server of the zone: each name says its address.
pub(super) fn authority(programs: &Programs, place: &Place, directory: &Path) -> Result<Daemon> {
    let directory = directory.join("authority");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let zone = r#".:53 {
template IN A example.com {
  match "^v4-(?P<b>\d+)-(?P<c>\d+)-(?P<d>\d+)\.example\.com\.$"
  answer "{{ .Name }} 1 IN A 198.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}"
  fallthrough
}
template IN AAAA example.com {
  match "^v6-(?P<g>[0-9a-f]+)-(?P<h>[0-9a-f]+)\.example\.com\.$"
  answer "{{ .Name }} 1 IN AAAA fd00:198::{{ .Group.g }}:{{ .Group.h }}"
  fallthrough
}
template IN ANY . {
  rcode NOERROR
}
}
"#;
    let mut command = core_dns(programs, place, &directory, zone)?;
    start("the server of the zone", &mut command, place, Ipv4Addr::LOCALHOST.into(), &directory)
}

fn core_dns(programs: &Programs, place: &Place, directory: &Path, text: &str) -> Result<Command> {
    let file = write(directory.join("Corefile"), text)?;
    let mut command = place.command(&programs.core_dns);
    command.arg("-conf").arg(file).env("GOMAXPROCS", "2");
    Ok(command)
}

/// Starts a server and waits until it answers.
fn start(name: &str, command: &mut Command, place: &Place, at: IpAddr, directory: &Path) -> Result<Daemon> {
    let log = fs::File::create(directory.join("log")).context("creating a log")?;
    let errors = log.try_clone().context("sharing the log")?;
    let daemon = Daemon::spawn(name, command.stdout(log).stderr(errors))?;
    let answers = || -> Result<bool> {
        // A question for the root's addresses.
        const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";
        let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket.connect(SocketAddr::new(at, 53))?;
        socket.send(QUESTION)?;
        Ok(socket.recv(&mut [0; 512]).is_ok())
    };
    let what = format!("{name} answers in {}", place.name());
    until(&what, PATIENT, || Ok(place.run(|| answers().unwrap_or(false)).then_some(())))
        .with_context(|| fs::read_to_string(directory.join("log")).unwrap_or_default())?;
    Ok(daemon)
}

fn write(file: PathBuf, text: &str) -> Result<PathBuf> {
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}

fn strings(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
