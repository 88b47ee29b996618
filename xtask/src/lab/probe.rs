//! Probes: one attempt to reach an address, and what came of it.
//!
//! In: an address, a kind of traffic, and how long to wait. Out: what the prober saw. A probe runs in the
//! namespace of the thread that calls it; `Place::probe` is the way in.

use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::Place;

/// What a probe sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// A TCP connection to this port.
    Tcp(u16),
    /// An HTTP request to this TCP port; reached means status 200.
    Http(u16),
    /// A datagram to this UDP port that must come back.
    Udp(u16),
    /// An ICMP or ICMPv6 echo request.
    Echo,
}

/// What the prober saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Reached,
    /// An answer that says no: a reset, a port that is not open, another status than 200.
    Refused,
    /// Nothing came back in time.
    Blocked,
    /// There is no way there.
    Unroutable,
}

/// How long a probe waits that is expected to succeed; it ends with the answer. Long enough for a
/// retransmitted SYN on a busy machine.
pub const PATIENT: Duration = Duration::from_secs(20);
/// How long a probe waits that is expected to fail: hundreds of times what an answer takes in the lab.
pub const BRIEF: Duration = Duration::from_millis(700);

impl Place {
    /// Sends `traffic` to `to` and waits up to `patience` for the answer. Lost datagrams are sent again
    /// meanwhile.
    pub fn probe(&self, to: IpAddr, traffic: Traffic, patience: Duration) -> Result<Seen> {
        self.run(|| attempt(to, traffic, patience))
            .with_context(|| format!("probing {traffic} to {to} from {}", self.name()))
    }

    /// Sends one datagram that no answer is waited for.
    pub fn say(&self, to: impl Into<SocketAddr>, words: &[u8]) -> Result<()> {
        let to = to.into();
        self.run(|| UdpSocket::bind((unspecified(to.ip()), 0))?.send_to(words, to))
            .with_context(|| format!("a datagram to {to} from {}", self.name()))?;
        Ok(())
    }

    /// Probes with the patience that fits the expected outcome.
    pub fn probe_expecting(&self, to: IpAddr, traffic: Traffic, expected: Seen) -> Result<Seen> {
        self.probe(to, traffic, if expected == Seen::Blocked { BRIEF } else { PATIENT })
    }
}

/// One probe in the namespace of this thread.
pub(super) fn attempt(to: IpAddr, traffic: Traffic, patience: Duration) -> Result<Seen> {
    let outcome = match traffic {
        Traffic::Tcp(port) => {
            TcpStream::connect_timeout(&SocketAddr::new(to, port), patience).map(|_| Seen::Reached)
        }
        Traffic::Http(port) => {
            http_get(SocketAddr::new(to, port), "/", patience).map(|answer| match answer.status {
                200 => Seen::Reached,
                _ => Seen::Refused,
            })
        }
        Traffic::Udp(port) => udp_echo(SocketAddr::new(to, port), patience),
        Traffic::Echo => icmp_echo(to, patience),
    };
    match outcome {
        Ok(seen) => Ok(seen),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Seen::Blocked),
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Ok(Seen::Refused),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Ok(Seen::Unroutable),
            _ => Err(error.into()),
        },
    }
}

/// The answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: String,
}

/// HTTP/1.0 GET on a connection of its own, in the namespace of this thread. `patience` bounds each step.
pub fn http_get(server: SocketAddr, path: &str, patience: Duration) -> io::Result<HttpAnswer> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status =
        status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("no HTTP answer: {head:?}")))?;
    Ok(HttpAnswer { status, body: body.to_owned() })
}

/// The unspecified address of the same family.
pub fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// How often an unanswered datagram is sent again.
const RESEND: Duration = Duration::from_millis(200);

fn udp_echo(to: SocketAddr, patience: Duration) -> io::Result<Seen> {
    let socket = UdpSocket::bind((unspecified(to.ip()), 0))?;
    socket.connect(to)?;
    let question = next_id().to_be_bytes();
    let mut answer = [0; 16];
    until_answered(patience, |wait| {
        socket.set_read_timeout(Some(wait))?;
        socket.send(&question)?;
        let length = socket.recv(&mut answer)?;
        Ok(answer.get(..length) == Some(&question))
    })
}

/// ICMP echo request (RFC 792) and ICMPv6 echo request (RFC 4443 section 4.1): type, code, checksum, id,
/// sequence.
fn icmp_echo(to: IpAddr, patience: Duration) -> io::Result<Seen> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    let [id_high, id_low] = next_id().to_be_bytes();
    let mut packet = [request, 0, 0, 0, id_high, id_low, 0, 1];
    // The kernel fills in the checksum of ICMPv6 only.
    if to.is_ipv4() {
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    until_answered(patience, |wait| {
        socket.set_read_timeout(Some(wait))?;
        socket.send(&packet)?;
        let mut buffer = [0; 256];
        let length = socket.read(&mut buffer)?;
        // A raw IPv4 socket delivers the IP header too.
        let header = if to.is_ipv4() { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
        let answer = buffer.get(header..length).unwrap_or_default();
        Ok(answer.first() == Some(&reply) && answer.get(4..8) == Some(&packet[4..8]))
    })
}

/// Repeats `ask` until it says that the answer came, or time is up. A lost question is asked again.
fn until_answered(patience: Duration, mut ask: impl FnMut(Duration) -> io::Result<bool>) -> io::Result<Seen> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Seen::Blocked);
        }
        match ask(left.min(RESEND)) {
            Ok(true) => return Ok(Seen::Reached),
            Ok(false) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // To a raw socket of IPv6, Linux says when an interface has dropped its packet.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                thread::sleep(left.min(RESEND));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The Internet checksum (RFC 1071) of a packet of even length.
fn checksum(packet: &[u8]) -> u16 {
    let (pairs, _) = packet.as_chunks::<2>();
    let sum: u32 = pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

/// Tells the probes of this process apart.
fn next_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "TCP/{port}"),
            Self::Http(port) => write!(f, "HTTP/{port}"),
            Self::Udp(port) => write!(f, "UDP/{port}"),
            Self::Echo => f.write_str("ICMP echo"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reached => "reached",
            Self::Refused => "refused",
            Self::Blocked => "blocked",
            Self::Unroutable => "no route",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_an_echo_request_is_the_one_of_rfc_1071() {
        assert_eq!(checksum(&[0x08, 0x00, 0, 0, 0x12, 0x34, 0, 1]), 0xe5ca);
        assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff]), 0);
    }
}
