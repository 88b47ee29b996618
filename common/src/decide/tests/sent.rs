//! A packet with what the kernel knows of it besides its bytes.

use super::*;
use crate::{Start, Tracked};

#[derive(Clone, Copy, Default)]
pub(super) struct Sent<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) tracked: Option<Tracked>,
    pub(super) has_socket: bool,
    /// A socket of the node has its TCP connection.
    pub(super) has_connection: bool,
    /// Where it is not that of the link header.
    pub(super) received_as: Option<[u8; 2]>,
    /// With a VLAN tag.
    pub(super) is_tagged: bool,
    /// The VLAN of its tag.
    pub(super) vlan: u32,
}

impl Packet for Sent<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.read(offset)
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.bytes.start::<LENGTH>()
    }

    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()> {
        self.bytes.load(offset, length, into)
    }

    fn pull(&self) {}

    fn received_as(&self) -> Option<[u8; 2]> {
        self.received_as.or_else(|| self.bytes.received_as())
    }

    fn is_tagged(&self) -> bool {
        self.is_tagged
    }

    fn vlan(&self) -> u32 {
        self.vlan
    }

    fn tracked(&self, into: &mut Tracked) -> bool {
        self.tracked.inspect(|tracked| *into = *tracked).is_some()
    }

    fn has_local_socket(&self) -> bool {
        self.has_socket
    }

    fn has_connection(&self, _: &Tuple) -> bool {
        self.has_connection
    }
}

/// Of a frame with ports.
pub(super) fn tuple(frame: &Frame) -> Tuple {
    let port = |at: usize| u16::from_be_bytes([frame.payload[at], frame.payload[at + 1]]);
    Tuple {
        source: frame.source.into(),
        destination: frame.destination.into(),
        source_port: port(0),
        destination_port: port(2),
        protocol: u32::from(frame.protocol),
    }
}
