//! The rtnetlink socket that listens to multicast groups.
//!
//! In: groups. Out: raw events. What they mean is left to the watch.

use std::{io, os::fd::AsRawFd as _};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use crate::{
    netlink::{DATAGRAM, messages},
    readable::watch_socket,
};

/// Room for events, in bytes, so that a burst seldom overflows. The kernel gives what net.core.rmem_max
/// allows.
const EVENT_BUFFER: u32 = 4 << 20;

/// How many datagrams one call takes, so that a flood of events cannot keep it for ever.
const EVENTS_AT_ONCE: usize = 4096;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct NetlinkEvents {
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
pub(super) enum WatchedNamespaces {
    /// This one's alone.
    Own,
    /// This one's, and those of every namespace that has an id in this one. Needs CAP_NET_BROADCAST.
    All,
}

impl NetlinkEvents {
    /// Must be called within a tokio runtime.
    pub(super) fn open(groups: &[u32], namespaces: WatchedNamespaces) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(EVENT_BUFFER)?;
        socket.set_listen_all_namespaces(namespaces == WatchedNamespaces::All)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        let socket = watch_socket(socket)?;
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
    pub(super) fn take(&mut self, mut event: impl FnMut(Event<'_>)) -> io::Result<DrainResult> {
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
                    return Ok(DrainResult::All);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(DrainResult::Overflow);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(DrainResult::All)
    }

    /// The length of the next datagram, now in the buffer, and the namespace it comes from.
    fn receive(&mut self) -> io::Result<(usize, Option<i32>)> {
        // SAFETY: all zeros is a valid value of both, they hold integers and pointers only.
        let (mut origin, mut message): (NsidMessage, libc::msghdr) = unsafe { std::mem::zeroed() };
        let mut place = libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() };
        message.msg_iov = &raw mut place;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut origin).cast();
        // The type differs between C libraries.
        message.msg_controllen = size_of::<NsidMessage>() as _;
        // SAFETY: `message` points to the buffer and to `origin`, with their true lengths, and both outlive
        // the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let reported = origin.header.cmsg_level == libc::SOL_NETLINK
            && origin.header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID;
        Ok((length, reported.then_some(origin.namespace)))
    }

    #[cfg(test)]
    pub(super) fn shrink_buffer(&self) {
        self.socket.get_ref().set_rx_buf_sz(1u32).expect("a buffer can be shrunk");
    }
}

/// The control message that tells where an event happened (`netlink_cmsg_listen_all_nsid` in af_netlink.c).
/// Its layout is that of CMSG_DATA: the value follows the header, which is as long as its alignment wants.
#[repr(C)]
struct NsidMessage {
    header: libc::cmsghdr,
    namespace: i32,
}

/// What became of the events that had arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainResult {
    All,
    /// The kernel threw some away, no one knows which.
    Overflow,
}
