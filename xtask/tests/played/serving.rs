//! Servers that say who they are: on every port of every place, over TCP and UDP.
//!
//! In: a place and its addresses. Out: one thread that answers each connection and each datagram with the
//! place's number. A socket for each address, so that an answer to a datagram comes from the address that was
//! asked.

use std::{
    io::{self, Write},
    net::{IpAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    thread::JoinHandle,
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xtask::lab::Place;

/// The ports of the generator's pods and services.
pub(crate) const PORTS: [u16; 7] = [80, 53, 81, 443, 8080, 1, 65535];

/// A place's servers; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    thread: Option<JoinHandle<()>>,
    /// Closed to end the thread.
    lifeline: Option<io::PipeWriter>,
}

#[derive(Debug)]
struct Sockets {
    number: u8,
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
}

impl Servers {
    pub(crate) fn start(place: &Place, number: u8, addresses: &[IpAddr]) -> Result<Self> {
        let sockets = place
            .run(|| Sockets::open(number, addresses))
            .with_context(|| format!("serving in {}", place.name()))?;
        let (end, lifeline) = io::pipe().context("making a pipe")?;
        let thread = std::thread::spawn(move || {
            sockets.answer_until(&end).expect("polling and accepting sockets of our own succeeds");
        });
        Ok(Self { thread: Some(thread), lifeline: Some(lifeline) })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed, and shows as missing answers.
            let _ = thread.join();
        }
    }
}

impl Sockets {
    fn open(number: u8, addresses: &[IpAddr]) -> io::Result<Self> {
        let at = || addresses.iter().flat_map(|address| PORTS.iter().map(move |port| (*address, *port)));
        let listeners = at().map(TcpListener::bind).collect::<io::Result<Vec<_>>>()?;
        let datagrams = at().map(UdpSocket::bind).collect::<io::Result<Vec<_>>>()?;
        listeners.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        datagrams.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(Self { number, listeners, datagrams })
    }

    fn answer_until(&self, end: &io::PipeReader) -> io::Result<()> {
        let sockets = self.listeners.iter().map(AsFd::as_fd).chain(self.datagrams.iter().map(AsFd::as_fd));
        let mut ready: Vec<_> =
            sockets.chain([end.as_fd()]).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        loop {
            poll(&mut ready, PollTimeout::NONE)?;
            let is_ready = |place: usize| ready[place].any().unwrap_or(true);
            if is_ready(ready.len() - 1) {
                return Ok(());
            }
            for (place, listener) in self.listeners.iter().enumerate() {
                // The client may be gone again.
                while is_ready(place)
                    && let Ok((mut stream, _)) = listener.accept()
                {
                    let _ = stream.write_all(&[self.number]);
                }
            }
            let after = self.listeners.len();
            for (place, socket) in self.datagrams.iter().enumerate() {
                let mut question = [0; 16];
                while is_ready(after + place)
                    && let Ok((_, client)) = socket.recv_from(&mut question)
                {
                    let _ = socket.send_to(&[self.number], client);
                }
            }
        }
    }
}
