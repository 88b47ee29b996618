//! The two kinds of rtnetlink socket: one that asks for dumps, one that listens to multicast groups.
//!
//! In: requests, groups. Out: the raw messages of the answer. What the messages mean is left to `read`.

use std::{io, os::fd::AsRawFd as _};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage,
    parse_i32,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};

/// Larger than any datagram of a dump: the kernel fills at most 32 KiB (`netlink_dump` in net/netlink/af_netlink.c).
const DATAGRAM: usize = 64 << 10;

/// A dump that changes while it is read is read again, this often at most.
const ATTEMPTS: usize = 32;

/// Room for events, in bytes: some thousands, so that a burst seldom costs a full read of its own.
const EVENT_BUFFER: u32 = 4 << 20;

/// How many datagrams one call takes, so that a flood of events cannot keep it for ever.
const EVENTS_AT_ONCE: usize = 4096;

/// A socket that asks. Blocking: the kernel makes the answer inside the system call, there is nothing to wait for.
#[derive(Debug)]
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Events {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    /// The last `take` left events behind.
    more: bool,
}

/// One event.
#[derive(Debug)]
pub(super) struct Event<'datagram> {
    /// The id of the namespace where it happened, `None` for the listener's own.
    pub(super) namespace: Option<i32>,
    /// RTM_….
    pub(super) kind: u16,
    pub(super) payload: &'datagram [u8],
}

/// Whose events to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    /// This one's alone.
    Own,
    /// This one's, and those of every namespace that has an id in this one. Needs CAP_NET_BROADCAST.
    All,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Without it the kernel ignores what it does not understand of a request, a namespace id for instance, and
        // answers another question.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// All entries of one table, as `entry` reads them from a message's payload.
    pub(super) fn dump<T>(
        &mut self,
        request: &RouteNetlinkMessage,
        mut entry: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut entries = Vec::new();
            self.send(request)?;
            if self.receive(|payload| entries.extend(entry(payload)))? == Dump::Consistent {
                return Ok(entries);
            }
        }
        Err(io::Error::other(format!("changed during each of {ATTEMPTS} reads")))
    }

    fn send(&mut self, request: &RouteNetlinkMessage) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request.clone());
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Reads to the end of the dump, also of one that turns out inconsistent, so that the next one starts clean.
    fn receive(&mut self, mut entry: impl FnMut(&[u8])) -> io::Result<Dump> {
        let mut dump = Dump::Consistent;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for message in messages(&self.buffer) {
                if message.sequence_number() != self.sequence {
                    continue;
                }
                if message.flags() & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Interrupted;
                }
                match message.message_type() {
                    NLMSG_DONE => return error_code(message.payload()).map(|()| dump),
                    NLMSG_ERROR => {
                        error_code(message.payload())?;
                        return Err(io::Error::other("the kernel acknowledged a dump without an answer"));
                    }
                    _ => entry(message.payload()),
                }
            }
        }
    }
}

impl Events {
    /// Must be called within a tokio runtime.
    pub(super) fn open(groups: &[u32], namespaces: Namespaces) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(EVENT_BUFFER)?;
        socket.set_listen_all_namespaces(namespaces == Namespaces::All)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        // SAFETY: the socket owns its descriptor, never replaces it, and is owned by the AsyncFd until both are dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM], more: false })
    }

    /// Waits until there may be something to take; `take` must follow. Safe to cancel.
    pub(super) async fn ready(&self) -> io::Result<()> {
        if !self.more {
            // What arrives after this makes it ready again, what is there already `take` takes.
            self.socket.readable().await?.clear_ready();
        }
        Ok(())
    }

    /// Hands what has arrived to `event`. Does not wait.
    pub(super) fn take(&mut self, mut event: impl FnMut(Event<'_>)) -> io::Result<Taken> {
        self.more = true;
        for _ in 0..EVENTS_AT_ONCE {
            match self.receive() {
                Ok((length, namespace)) => {
                    for message in messages(&self.buffer[..length]) {
                        event(Event { namespace, kind: message.message_type(), payload: message.payload() });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.more = false;
                    return Ok(Taken::All);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Taken::Overflow),
                Err(error) => return Err(error),
            }
        }
        Ok(Taken::All)
    }

    /// The length of the next datagram, now in the buffer, and the namespace it comes from.
    fn receive(&mut self) -> io::Result<(usize, Option<i32>)> {
        // SAFETY: all zeros is a valid value of both, they hold integers and pointers only.
        let (mut origin, mut message): (Origin, libc::msghdr) = unsafe { std::mem::zeroed() };
        let mut place = libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() };
        message.msg_iov = &raw mut place;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut origin).cast();
        message.msg_controllen = size_of::<Origin>();
        // SAFETY: `message` points to the buffer and to `origin`, with their true lengths, and both outlive the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let told = origin.header.cmsg_level == libc::SOL_NETLINK
            && origin.header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID;
        Ok((length, told.then_some(origin.namespace)))
    }

    #[cfg(test)]
    pub(super) fn shrink_buffer(&self) {
        self.socket.get_ref().set_rx_buf_sz(1u32).expect("a buffer can be shrunk");
    }
}

/// The control message that tells where an event happened (`netlink_cmsg_listen_all_nsid` in af_netlink.c). Its layout
/// is that of CMSG_DATA: the value follows the header, which is as long as its alignment wants.
#[repr(C)]
struct Origin {
    header: libc::cmsghdr,
    namespace: i32,
}

/// Whether a table stood still while it was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    Consistent,
    Interrupted,
}

/// What became of the events that had arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// The kernel threw some away, nobody knows which.
    Overflow,
}

/// The messages of one datagram; what is cut short is left out.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(datagram).ok()?;
        let aligned = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        datagram = datagram.get(aligned..).unwrap_or_default();
        Some(message)
    })
}

/// The first field of NLMSG_ERROR and of NLMSG_DONE: 0, or a negative errno.
fn error_code(payload: &[u8]) -> io::Result<()> {
    match payload.get(..4).and_then(|code| parse_i32(code).ok()) {
        None | Some(0..) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
    }
}
