//! Packets and connections between a client and a server, sent and received by one thread.
//!
//! In: the two pods. Out: the sockets of both ends, and how long each kind of exchange takes. The thread that
//! sends also receives, so no wake-up of another one is in the number; a packet's way through the node is
//! walked within the system call that sends it. Left out: what two processes on two CPUs see.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::socket::{
    setsockopt,
    sockopt::{RcvBufForce, SndBufForce},
};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{
    cluster::{FULL_PORT, PORT},
    datagram,
};
use crate::{
    bench::machine,
    lab::{BRIEF, Place, Pod},
};

/// The sockets of both ends.
#[derive(Debug)]
pub(super) struct Ends {
    client: Place,
    addresses: [Ipv4Addr; 2],
    listener: TcpListener,
    connections: Vec<Connection>,
    /// One with room for much on its way.
    stream: Connection,
    next: usize,
    /// Nothing ever comes back to it: to connection tracking its flow stays new.
    sender: UdpSocket,
    asker: UdpSocket,
    receiver: UdpSocket,
    denied: UdpSocket,
    /// For packets of many flows: it sends what it is given, IP header included, and receives nothing.
    raw: Socket,
    /// The source port of the last SYN of a flood.
    syn_port: u16,
    /// A listener that takes no more connections, and the one that it does not accept.
    _full: [Socket; 2],
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

/// Established connections beside a flood.
pub(super) const CONNECTIONS: usize = 100;
/// What a call writes in a bulk transfer, in bytes.
const CHUNK: usize = 64 * 1024;
/// The buffers of a bulk transfer, in bytes: a chunk fits, whatever the kernel counts besides its data.
const BUFFER: usize = 4 * 1024 * 1024;
/// How many times something is done between two looks at the clock.
const BATCH: u32 = 8;
/// SYNs for each byte of an established connection.
const SYNS: u16 = 10;
/// The part of a visit that warms caches and is not counted.
const WARMING: u32 = 8;
/// How many times a sample is taken when something else ran meanwhile; the last one counts in any case.
const TRIES: u32 = 4;
/// The source ports of many flows.
pub(super) const FIRST_PORT: u16 = 1_024;

impl Ends {
    /// Opens everything. `denied` is where packets go that must not arrive.
    pub(super) fn open(client: &Pod, server: &Pod, denied: SocketAddrV4) -> Result<Self> {
        let addresses = [client.addresses.v4, server.addresses.v4];
        let [from, to] = addresses;
        let open = SocketAddrV4::new(to, PORT);
        let (listener, receiver, full) = server.place.run(|| -> Result<_> {
            let full = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            full.bind(&SocketAddrV4::new(to, FULL_PORT).into())?;
            full.listen(0)?;
            let receiver = UdpSocket::bind((to, PORT))?;
            receiver.set_read_timeout(Some(BRIEF))?;
            let listener = TcpListener::bind((to, PORT))?;
            setsockopt(&listener, RcvBufForce, &BUFFER)?;
            // What it accepts inherits it.
            SockRef::from(&listener).set_read_timeout(Some(BRIEF))?;
            Ok((listener, receiver, full))
        })?;
        let (sender, asker, away, raw, unaccepted) = client.place.run(|| -> Result<_> {
            let connected = |target| -> Result<UdpSocket> {
                let socket = UdpSocket::bind((from, 0))?;
                socket.connect(target)?;
                socket.set_read_timeout(Some(BRIEF))?;
                Ok(socket)
            };
            let (sender, asker) = (connected(open)?, connected(open)?);
            let away = connected(denied)?;
            // IPPROTO_RAW: the IP header is given, and nothing is received (raw(7)).
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            let unaccepted = connect(SocketAddrV4::new(to, FULL_PORT))?;
            Ok((sender, asker, away, raw, unaccepted))
        })?;
        let stream = client.place.run(|| Connection::open(&listener, to))?;
        setsockopt(&stream.client, SndBufForce, &BUFFER).context("asking for a large buffer")?;
        let mut ends = Self {
            client: client.place.clone(),
            addresses,
            listener,
            connections: Vec::new(),
            stream,
            next: 0,
            sender,
            asker,
            receiver,
            denied: away,
            raw,
            syn_port: FIRST_PORT,
            _full: [full, unaccepted],
        };
        ends.hold(1)?;
        Ok(ends)
    }

    /// Opens connections until there are `count`.
    pub(super) fn hold(&mut self, count: usize) -> Result<()> {
        let (place, [_, server]) = (self.client.clone(), self.addresses);
        let (listener, connections) = (&self.listener, &mut self.connections);
        place.run(|| {
            while connections.len() < count {
                connections.push(Connection::open(listener, server)?);
            }
            Ok(())
        })
    }

    /// One byte there and one back on established connections, in turn over `flows` of them: ns a packet.
    pub(super) fn ping(&mut self, flows: usize, budget: Duration) -> Result<f64> {
        let per_exchange = timed(budget, || self.exchange(flows))?;
        Ok(per_exchange / 2.0)
    }

    /// One exchange of [`Self::ping`].
    pub(super) fn exchange(&mut self, flows: usize) -> Result<()> {
        self.next = (self.next + 1) % flows;
        let Connection { client, server } = &mut self.connections[self.next];
        pass(client, server).context("a byte to the server")?;
        pass(server, client).context("a byte to the client")
    }

    /// A connection, one byte each way, and its end: ns each.
    pub(super) fn connect(&self, budget: Duration) -> Result<f64> {
        let [_, server] = self.addresses;
        // New sockets belong to the namespace of the thread that makes them.
        self.client.run(|| {
            timed(budget, || {
                let mut new = Connection::open(&self.listener, server)?;
                pass(&mut new.client, &mut new.server).context("the request")?;
                pass(&mut new.server, &mut new.client).context("the answer")?;
                new.close();
                Ok(())
            })
        })
    }

    /// Datagrams that no one answers: ns each.
    pub(super) fn one_way(&self, budget: Duration) -> Result<f64> {
        let mut byte = [0; 1];
        timed(budget, || {
            self.sender.send(&[1]).context("sending a datagram")?;
            self.receiver.recv(&mut byte).context("receiving a datagram").map(|_| ())
        })
    }

    /// The same over many flows, once each, or as often as the budget allows: ns each.
    pub(super) fn one_way_over(&self, flows: u16, budget: Duration) -> Result<f64> {
        let [from, to] = self.addresses;
        let mut packet = datagram::udp(from, to, PORT);
        let target = SockAddr::from(SocketAddrV4::new(to, 0));
        let mut byte = [0; 1];
        let (started, mut sent) = (Instant::now(), 0_u32);
        while sent == 0 || started.elapsed() < budget {
            for source in FIRST_PORT..FIRST_PORT + flows {
                datagram::set_source(&mut packet, source);
                self.raw.send_to(&packet, &target).context("sending a datagram")?;
                self.receiver.recv(&mut byte).context("receiving a datagram")?;
            }
            sent += u32::from(flows);
        }
        Ok(each(started.elapsed(), sent))
    }

    /// A datagram and its answer: ns a packet.
    pub(super) fn request(&self, budget: Duration) -> Result<f64> {
        let mut byte = [0; 1];
        let per_exchange = timed(budget, || {
            self.asker.send(&[1]).context("sending a request")?;
            let (_, client) = self.receiver.recv_from(&mut byte).context("receiving a request")?;
            self.receiver.send_to(&byte, client).context("sending an answer")?;
            self.asker.recv(&mut byte).context("receiving an answer").map(|_| ())
        })?;
        Ok(per_exchange / 2.0)
    }

    /// A stream from client to server as fast as one CPU can: seconds of it for 10^9 bytes.
    pub(super) fn bulk(&mut self, budget: Duration) -> Result<f64> {
        let data = vec![0; CHUNK];
        let mut buffer = vec![0; CHUNK];
        let Connection { client, server } = &mut self.stream;
        let each_chunk = timed(budget, || {
            client.write_all(&data).context("writing a chunk")?;
            server.read_exact(&mut buffer).context("reading a chunk")
        })?;
        #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
        let chunk = CHUNK as f64;
        // ns a byte are s a GB.
        Ok(each_chunk / chunk)
    }

    /// Packets that must not arrive: ns each.
    pub(super) fn deny(&self, budget: Duration) -> Result<f64> {
        timed(budget, || self.denied.send(&[1]).context("sending").map(|_| ()))
    }

    /// SYNs of ever new connections, which the server does not answer: ns each.
    pub(super) fn syn(&mut self, budget: Duration) -> Result<f64> {
        let per_burst = timed(budget, || self.burst())?;
        Ok(per_burst / f64::from(SYNS))
    }

    /// Bytes of established connections beside a flood of SYNs: how many of a hundred arrive.
    pub(super) fn goodput(&mut self, budget: Duration) -> Result<f64> {
        let (mut sent, mut arrived) = (0_u32, 0_u32);
        let started = Instant::now();
        let mut buffer = [0; 64];
        while started.elapsed() < budget {
            self.burst()?;
            self.next = (self.next + 1) % CONNECTIONS;
            let Connection { client, server } = &mut self.connections[self.next];
            server.set_nonblocking(true)?;
            client.write_all(&[1]).context("writing")?;
            sent += 1;
            arrived += u32::try_from(ready(server.read(&mut buffer))?).context("few bytes")?;
            server.set_nonblocking(false)?;
        }
        Ok(100.0 * f64::from(arrived) / f64::from(sent))
    }

    /// Sends SYNs from all source ports, so that every table holds what it can of them.
    pub(super) fn flood(&mut self) -> Result<()> {
        for _ in 0..u32::from(u16::MAX) / u32::from(SYNS) {
            self.burst()?;
        }
        Ok(())
    }

    fn burst(&mut self) -> Result<()> {
        let [from, to] = self.addresses;
        let target = SockAddr::from(SocketAddrV4::new(to, 0));
        for _ in 0..SYNS {
            self.syn_port = self.syn_port.checked_add(1).unwrap_or(FIRST_PORT);
            let packet = datagram::syn(from, to, self.syn_port, FULL_PORT);
            self.raw.send_to(&packet, &target).context("sending a SYN")?;
        }
        Ok(())
    }
}

impl Connection {
    /// Both ends; the handshake is done when the client's call returns.
    fn open(listener: &TcpListener, server: Ipv4Addr) -> Result<Self> {
        let client = connect(SocketAddrV4::new(server, PORT))?.into();
        let (server, _) = listener.accept().context("accepting")?;
        Ok(Self { client, server })
    }

    /// The client ends first, so that the wait for late packets is on its side.
    fn close(self) {
        drop(self.client);
        drop(self.server);
    }
}

fn connect(to: SocketAddrV4) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("making a socket")?;
    // The first one limits the handshake as well (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(BRIEF))?;
    socket.set_read_timeout(Some(BRIEF))?;
    socket.connect(&to.into()).with_context(|| format!("connecting to {to}"))?;
    Ok(socket)
}

/// One byte from one end to the other.
fn pass(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    let mut byte = [0; 1];
    from.write_all(&[1])?;
    Ok(to.read_exact(&mut byte)?)
}

/// How many bytes a call on a non-blocking socket has moved.
fn ready(moved: std::io::Result<usize>) -> Result<usize> {
    match moved {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error).context("moving bytes"),
    }
}

/// Repeats `step` for as long as the budget says, after warming up: ns each. A sample during which the thread
/// left its CPU is of other threads as well, and is taken again.
fn timed(budget: Duration, mut step: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut repeat = |budget, batch| -> Result<(Duration, u32)> {
        let (started, mut count) = (Instant::now(), 0);
        loop {
            for _ in 0..batch {
                step()?;
            }
            count += batch;
            let elapsed = started.elapsed();
            if elapsed >= budget {
                return Ok((elapsed, count));
            }
        }
    };
    let (_, count) = repeat(budget / WARMING, 1)?;
    // Few steps are slow ones, beside which a look at the clock costs nothing.
    let batch = if count < BATCH { 1 } else { BATCH };
    let mut taken = 0.0;
    for _ in 0..TRIES {
        let before = machine::switches()?;
        let (elapsed, count) = repeat(budget, batch)?;
        taken = each(elapsed, count);
        if machine::switches()? == before {
            break;
        }
    }
    Ok(taken)
}

fn each(elapsed: Duration, count: u32) -> f64 {
    elapsed.as_secs_f64() * 1e9 / f64::from(count)
}
