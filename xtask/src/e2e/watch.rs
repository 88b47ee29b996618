//! Datagrams between real pods, a thousand a second from each, while something happens.
//!
//! Each comes from a port of its own and so opens a connection that must be evaluated. The threads live in
//! the pods' network namespaces, which are found by way of the processes in them: no one else need be there,
//! neither the API server nor the agent.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};

use crate::cluster::pod_place;

/// Of the server, below the ports that are given out.
const PORT: u16 = 7_777;
const PACE: Duration = Duration::from_millis(1);
/// Bytes, of which the kernel counts some 800 for each datagram: seconds of both clients.
const QUEUE: usize = 16 << 20;
/// After the last one was sent. They cross two veths and a bridge.
const DRAIN: Duration = Duration::from_millis(500);

/// A server that counts, and clients that send.
pub(super) struct Watch {
    over: Arc<AtomicBool>,
    senders: BTreeMap<IpAddr, JoinHandle<Result<u64>>>,
    server: JoinHandle<Result<BTreeMap<IpAddr, u64>>>,
}

/// Datagrams of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowCounter {
    pub(super) sent: u64,
    pub(super) arrived: u64,
}

impl Watch {
    /// `server` and `clients`: a pod's name and its address.
    pub(super) fn start(server: (&str, Ipv4Addr), clients: &[(&str, Ipv4Addr)]) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let place = pod_place(server.0)?;
        let socket =
            place.run(|| UdpSocket::bind((server.1, PORT))).context("binding in the server's pod")?;
        // Who counts may have to wait for a processor.
        setsockopt(&socket, RcvBufForce, &QUEUE).context("a longer queue")?;
        let counting = over.clone();
        let counter = thread::spawn(move || count(&socket, &counting));
        let mut senders = BTreeMap::new();
        for (name, address) in clients {
            let (sending, to) = (over.clone(), SocketAddr::from((server.1, PORT)));
            senders.insert(IpAddr::from(*address), pod_place(name)?.spawn(move || send(to, &sending)));
        }
        Ok(Self { over, senders, server: counter })
    }

    /// Ends it; by the client's address.
    pub(super) fn end(self) -> Result<BTreeMap<IpAddr, FlowCounter>> {
        self.over.store(true, Ordering::Relaxed);
        let mut sent = BTreeMap::new();
        for (address, sender) in self.senders {
            sent.insert(address, sender.join().expect("a sender does not panic").context("sending")?);
        }
        let arrived = self.server.join().expect("counting does not panic").context("receiving")?;
        let flow_counter = |(address, sent)| {
            (address, FlowCounter { sent, arrived: arrived.get(&address).copied().unwrap_or(0) })
        };
        Ok(sent.into_iter().map(flow_counter).collect())
    }
}

/// Sends until it is over; how many.
fn send(to: SocketAddr, over: &AtomicBool) -> Result<u64> {
    let mut sent = 0;
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a port of its own")?;
        socket.send_to(&[0; 8], to).context("a datagram")?;
        sent += 1;
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}

/// Counts until it is over and nothing comes any more.
fn count(socket: &UdpSocket, over: &AtomicBool) -> Result<BTreeMap<IpAddr, u64>> {
    socket.set_read_timeout(Some(DRAIN))?;
    let mut arrived = BTreeMap::new();
    loop {
        match socket.recv_from(&mut [0; 16]) {
            Ok((_, from)) => *arrived.entry(from.ip()).or_default() += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if over.load(Ordering::Relaxed) {
                    let missed = missed(socket)?;
                    ensure!(
                        missed == 0,
                        "{missed} datagrams arrived and were not counted: the machine is too busy"
                    );
                    return Ok(arrived);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How many datagrams found the socket's queue full.
fn missed(socket: &UdpSocket) -> Result<u32> {
    // `SK_MEMINFO_DROPS` is the last of nine numbers (linux/sock_diag.h).
    let mut numbers = [0_u32; 9];
    let mut length = libc::socklen_t::try_from(size_of_val(&numbers))?;
    // SAFETY: the kernel writes at most `length` bytes to memory that has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    ensure!(result == 0, "asking for a socket's drops: {}", io::Error::last_os_error());
    Ok(numbers[8])
}

/// Of asm-generic/socket.h.
const SO_MEMINFO: libc::c_int = 55;
