//! A capture: every IP packet that arrives at a place, before any of its own filters.
//!
//! In: a place. Out: who sent what, from the start of the capture to now. It proves that nothing arrived,
//! which a probe without an answer does not. ARP is left out: it is not IP.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    libc::PACKET_OUTGOING,
    sys::socket::{LinkAddr, recvfrom},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::Place;

/// One IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Protocol number, for IPv6 the first next header.
    pub protocol: u8,
}

/// A running capture. It ends when it is dropped.
#[derive(Debug)]
pub struct Capture {
    place: String,
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// Records packets from now on; those that the place sends itself are among them.
    pub fn capture(&self) -> Result<Capture> {
        self.capture_where(|_, _| true)
    }

    /// Records some packets from now on: `is_wanted` sees the beginning of each, and whether the place sends
    /// it itself.
    pub fn capture_where(&self, is_wanted: impl Fn(&[u8], bool) -> bool + Send + 'static) -> Result<Capture> {
        let socket: OwnedFd =
            self.run(listen).with_context(|| format!("capturing in {}", self.name()))?.into();
        let (packets, stop) = (Arc::<Mutex<Vec<Packet>>>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (packets, stop) = (packets.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 128];
                while !stop.load(Ordering::Relaxed) {
                    match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                        Ok((length, from)) => {
                            let is_own = from.is_some_and(|from| from.pkttype() == PACKET_OUTGOING);
                            let packet = &buffer[..length];
                            lock(&packets).extend(parse(packet).filter(|_| is_wanted(packet, is_own)));
                        }
                        // When the interface goes away there is nothing more to come.
                        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
                        Err(error) => panic!("reading captured packets: {error}"),
                    }
                }
            })
        };
        Ok(Capture { place: self.name().to_owned(), packets, stop, thread: Some(thread) })
    }
}

impl Capture {
    /// Packets from one of `sources` until now.
    pub fn from(&self, sources: &[IpAddr]) -> Vec<Packet> {
        lock(&self.packets).iter().filter(|packet| sources.contains(&packet.source)).copied().collect()
    }

    /// Fails when there are packets from one of `sources`.
    pub fn nothing_from(&self, sources: &[IpAddr]) -> Result<()> {
        let arrived = self.from(sources);
        ensure!(arrived.is_empty(), "{} packets reached {}: {:?} …", arrived.len(), self.place, arrived[0]);
        Ok(())
    }

    /// How many packets there are until now.
    pub fn count(&self) -> usize {
        lock(&self.packets).len()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(packets: &Mutex<Vec<Packet>>) -> std::sync::MutexGuard<'_, Vec<Packet>> {
    packets.lock().expect("no holder of the lock panics")
}

/// `ETH_P_ALL` (linux/if_ether.h).
const EVERY_PROTOCOL: u16 = 3;
/// How often a capture looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

fn listen() -> std::io::Result<Socket> {
    // packet(7): a datagram socket leaves the link header out; the protocol is in network byte order.
    let socket =
        Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(EVERY_PROTOCOL.to_be()))))?;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

/// The addresses and the protocol of an IP packet, or nothing.
fn parse(packet: &[u8]) -> Option<Packet> {
    let address4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let address6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    match packet.first()? >> 4 {
        4 => Some(Packet { source: address4(12)?, destination: address4(16)?, protocol: *packet.get(9)? }),
        6 => Some(Packet { source: address6(8)?, destination: address6(24)?, protocol: *packet.get(6)? }),
        _ => None,
    }
}
