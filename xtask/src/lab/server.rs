//! Servers for probes to find: HTTP, TCP echo and UDP echo, on both address families.
//!
//! In: a place and a service. Out: a server that listens before the call returns and ends when it is dropped.
//! ICMP echo needs none: the kernel answers it.

use std::{
    io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    libc::in6_pktinfo,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
        sockopt::Ipv6RecvPacketInfo,
    },
};
use socket2::Socket;

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
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// Starts a server on all addresses of the place.
    pub fn serve(&self, service: Service) -> Result<Server> {
        self.run(|| start(service)).with_context(|| format!("serving {service:?} in {}", self.name()))
    }
}

fn start(service: Service) -> io::Result<Server> {
    // An IPv6 socket on the unspecified address takes IPv4 too (net.ipv6.bindv6only = 0).
    let on = |port| (Ipv6Addr::UNSPECIFIED, port);
    let (socket, thread) = match service {
        Service::Http(port) => accepting(TcpListener::bind(on(port))?, answer_http)?,
        Service::TcpEcho(port) => accepting(TcpListener::bind(on(port))?, echo)?,
        Service::UdpEcho(port) => {
            let socket = UdpSocket::bind(on(port))?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
            let copy = socket.try_clone()?;
            // It ends with an error when the socket is gone, which is how `drop` ends it.
            let thread = thread::spawn(move || {
                let _ = echo_datagrams(&copy);
            });
            (socket.into(), thread)
        }
    };
    Ok(Server { socket, thread: Some(thread) })
}

fn accepting(
    listener: TcpListener,
    serve: fn(TcpStream) -> io::Result<()>,
) -> io::Result<(Socket, JoinHandle<()>)> {
    let copy = listener.try_clone()?;
    let thread = thread::spawn(move || {
        // `shutdown` of the socket ends the loop. A client that goes away in mid-connection is its own
        // business.
        while let Ok((stream, _)) = copy.accept() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok((listener.into(), thread))
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
fn echo_datagrams(socket: &UdpSocket) -> nix::Result<()> {
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
            Err(error) => return Err(error),
        };
        let (length, client) = (received.bytes, received.address);
        let asked = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(in6_pktinfo { ipi6_ifindex: 0, ..info }),
            _ => None,
        });
        // What `shutdown` makes of a waiting receiver: nothing, from no one.
        let (Some(client), Some(asked)) = (client, asked) else { return Ok(()) };
        let (answer, from) = ([IoSlice::new(&buffer[..length])], [ControlMessage::Ipv6PacketInfo(&asked)]);
        // A lost answer is what the client is there to notice.
        let _ = sendmsg(socket.as_raw_fd(), &answer, &from, flags, Some(&client));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An unconnected datagram socket reports ENOTCONN, and wakes its receiver all the same.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
