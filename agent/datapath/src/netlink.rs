//! A netlink socket that asks: for all entries of a table, or for one thing.
//!
//! In: a request, and a function that reads what it wants from a message. Out: what was read. The kernel
//! makes the answer inside the system calls, so nothing here waits. What messages mean is left to the
//! callers, and so are events.

pub mod namespace;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, parse_i32,
};
use netlink_sys::{Socket, SocketAddr};

/// Larger than any datagram of an answer: the kernel fills at most 32 KiB (`netlink_dump` in
/// net/netlink/af_netlink.c).
pub const DATAGRAM: usize = 64 << 10;

/// A dump that changes while it is read is read again, this often at most.
const ATTEMPTS: usize = 8;

/// A socket that asks. It stays in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// `protocol`: `NETLINK_ROUTE` for instance. Needs Linux 4.20.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // Without it the kernel ignores what it does not understand of a request, a namespace id for
        // instance, and answers another question.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// All entries of one table, as `entry` reads them from a message's payload.
    pub fn dump<T>(
        &mut self,
        request: impl NetlinkSerializable + Clone,
        mut entry: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut entries = Vec::new();
            self.send(request.clone(), NLM_F_DUMP)?;
            if self.receive(|payload| entries.extend(entry(payload)))? == DumpResult::Consistent {
                return Ok(entries);
            }
        }
        Err(io::Error::other(format!("changed during each of {ATTEMPTS} reads")))
    }

    /// Asks for one thing, or for something to be done, and reads the messages that come before the
    /// acknowledgement.
    pub fn ask<T>(
        &mut self,
        request: impl NetlinkSerializable,
        mut entry: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut entries = Vec::new();
        self.send(request, NLM_F_ACK)?;
        self.receive(|payload| entries.extend(entry(payload)))?;
        Ok(entries)
    }

    fn send(&mut self, request: impl NetlinkSerializable, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Reads to the end of the answer, also of one that turns out inconsistent, so that the next one starts
    /// clean.
    fn receive(&mut self, mut entry: impl FnMut(&[u8])) -> io::Result<DumpResult> {
        let mut answer = DumpResult::Consistent;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for message in messages(&self.buffer) {
                if message.sequence_number() != self.sequence {
                    continue;
                }
                if message.flags() & NLM_F_DUMP_INTR != 0 {
                    answer = DumpResult::Interrupted;
                }
                match message.message_type() {
                    // The end of a dump, and the acknowledgement of everything else.
                    NLMSG_DONE | NLMSG_ERROR => return error_code(message.payload()).map(|()| answer),
                    _ => entry(message.payload()),
                }
            }
        }
    }
}

/// Whether a table stood still while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DumpResult {
    Consistent,
    Interrupted,
}

/// The messages of one datagram; what is cut short is left out.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
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
