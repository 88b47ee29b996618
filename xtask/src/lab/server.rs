//! Servers for probes to find: HTTP, echoes, and those that say who they are, on both address families.
//!
//! In: a place and services. Out: a server that listens before the call returns and ends when it is dropped.
//! ICMP echo needs none: the kernel answers it.

use std::{
    io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc::in6_pktinfo,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
        sockopt::Ipv6RecvPacketInfo,
    },
};

use super::Place;

/// What a server does, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Answers every HTTP request with status 200.
    Http(u16),
    /// Sends back what a TCP connection brings.
    TcpEcho(u16),
    /// Sends back every datagram.
    UdpEcho(u16),
    /// Says a byte on every TCP connection, which tells who has answered.
    TcpName(u16, u8),
    /// Answers every datagram with a byte.
    UdpName(u16, u8),
}

/// One running service or several.
#[derive(Debug)]
pub struct Server {
    thread: Option<JoinHandle<()>>,
    /// Closed to end the thread.
    lifeline: Option<io::PipeWriter>,
}

/// A socket, and what is done with what comes.
enum Socket {
    Tcp(TcpListener, Box<dyn Fn(TcpStream) + Send>),
    /// Without an answer of its own it is an echo.
    Udp(UdpSocket, Option<u8>),
}

impl Place {
    /// Starts a server on all addresses of the place.
    pub fn serve(&self, service: Service) -> Result<Server> {
        self.serve_together(&[service])
    }

    /// Starts one server for several services.
    pub fn serve_together(&self, services: &[Service]) -> Result<Server> {
        self.run(|| Server::start(services))
            .with_context(|| format!("serving {services:?} in {}", self.name()))
    }
}

impl Server {
    fn start(services: &[Service]) -> io::Result<Self> {
        let sockets =
            services.iter().map(|service| Socket::open(*service)).collect::<io::Result<Vec<_>>>()?;
        let (end, lifeline) = io::pipe()?;
        let thread = thread::spawn(move || {
            answer_until(&end, &sockets).expect("polling and accepting sockets of our own succeeds");
        });
        Ok(Self { thread: Some(thread), lifeline: Some(lifeline) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed, and shows as missing answers.
            let _ = thread.join();
        }
    }
}

fn answer_until(end: &io::PipeReader, sockets: &[Socket]) -> io::Result<()> {
    let all = sockets.iter().map(Socket::as_fd).chain([end.as_fd()]);
    let mut ready: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut ready, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let is_ready = |polled: &PollFd<'_>| polled.any().unwrap_or(true);
        if ready.last().is_some_and(is_ready) {
            return Ok(());
        }
        for (socket, _) in sockets.iter().zip(&ready).filter(|(_, polled)| is_ready(polled)) {
            socket.answer()?;
        }
    }
}

impl Socket {
    fn open(service: Service) -> io::Result<Self> {
        // An IPv6 socket on the unspecified address takes IPv4 too (net.ipv6.bindv6only = 0).
        let tcp = |port, serve| -> io::Result<Self> {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
            listener.set_nonblocking(true)?;
            Ok(Self::Tcp(listener, serve))
        };
        let udp = |port, answer| -> io::Result<Self> {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
            socket.set_nonblocking(true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            Ok(Self::Udp(socket, answer))
        };
        // A client that goes away in mid-connection is its own business.
        match service {
            Service::Http(port) => tcp(port, Box::new(|stream| drop(thread::spawn(|| answer_http(stream))))),
            Service::TcpEcho(port) => tcp(port, Box::new(|stream| drop(thread::spawn(|| echo(stream))))),
            Service::TcpName(port, name) => tcp(port, Box::new(move |stream| drop((&stream).write(&[name])))),
            Service::UdpEcho(port) => udp(port, None),
            Service::UdpName(port, name) => udp(port, Some(name)),
        }
    }

    /// Everything that has come.
    fn answer(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener, serve) => {
                // The client may be gone again.
                while let Ok((stream, _)) = listener.accept() {
                    serve(stream);
                }
                Ok(())
            }
            Self::Udp(socket, answer) => answer_datagrams(socket, answer.as_ref().map(std::slice::from_ref)),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener, _) => listener.as_fd(),
            Self::Udp(socket, _) => socket.as_fd(),
        }
    }
}

fn answer_http(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
}

fn echo(stream: TcpStream) -> io::Result<()> {
    io::copy(&mut &stream, &mut &stream).map(|_| ())
}

/// Answers come from the address that was asked, which on a host of several addresses the socket does not
/// choose by itself (ipv6(7), IPV6_PKTINFO; mapped IPv4 addresses included).
fn answer_datagrams(socket: &UdpSocket, answer: Option<&[u8]>) -> io::Result<()> {
    let mut buffer = [0; 2048];
    let mut control = nix::cmsg_space!(in6_pktinfo);
    loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::empty();
        let received = match recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
        {
            Ok(received) => received,
            // An ICMP error for an earlier answer.
            Err(Errno::ECONNREFUSED) => continue,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (length, client) = (received.bytes, received.address);
        let asked = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(in6_pktinfo { ipi6_ifindex: 0, ..info }),
            _ => None,
        });
        let from = asked.as_ref().map(ControlMessage::Ipv6PacketInfo);
        let answer = [IoSlice::new(answer.unwrap_or(&buffer[..length]))];
        // A lost answer is what the client is there to notice.
        let _ = sendmsg(socket.as_raw_fd(), &answer, from.as_slice(), flags, client.as_ref());
    }
}
