//! A server that takes every connection, as fast as they come.

use std::{
    net::{Ipv6Addr, Shutdown, SocketAddr},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::Place;

/// Takes connections on port 80 of all addresses until it is dropped.
pub(super) struct Acceptor {
    socket: Socket,
    thread: Option<JoinHandle<()>>,
}

/// A full queue of connections would drop first packets, as a policy does.
const QUEUE: i32 = 4_096;

impl Acceptor {
    pub(super) fn start(place: &Place) -> Result<Self> {
        let socket = place.run(|| {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80)).into())?;
            socket.listen(QUEUE)?;
            anyhow::Ok(socket)
        })?;
        let listening = socket.try_clone().context("sharing a socket")?;
        // It ends when the socket is shut down.
        let thread = thread::spawn(move || while listening.accept().is_ok() {});
        Ok(Self { socket, thread: Some(thread) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: the process ends soon.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
