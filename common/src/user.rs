//! Tells aya which types may be written into maps byte by byte.

use crate::{
    Address, ClassId, Endpoint, FlowCounter, FlowCounterKey, FlowEvent, FlowSeed, FragmentKey, HostGuard,
    IdentityId, LabelKey, NameNode, NameRequest, PacketTrace, PolicyId, PortPair, Resolver, Row, RowKey,
    ServiceId, ServiceKey, Share, TableSetIndex, TraceCounts, TraceFilter, VerdictQuery,
};

impl VerdictQuery {
    /// The packet that asks it.
    pub fn packet(&self) -> [u8; 64] {
        let mut packet = [0; 64];
        // SAFETY: no padding (asserted in `layout`), so that all bytes are there.
        let bytes: [u8; Self::SIZE] = unsafe { core::mem::transmute(*self) };
        packet[Self::OFFSET..Self::OFFSET + Self::SIZE].copy_from_slice(&bytes);
        packet
    }
}

impl NameRequest {
    /// The packet that asks it.
    pub fn packet(&self) -> [u8; 64] {
        let mut packet = [0; 64];
        // SAFETY: no padding (asserted in `layout`), so that all bytes are there.
        let bytes: [u8; Self::SIZE] = unsafe { core::mem::transmute(*self) };
        packet[VerdictQuery::OFFSET..VerdictQuery::OFFSET + Self::SIZE].copy_from_slice(&bytes);
        packet
    }
}

impl FlowEvent {
    /// As the ring buffer has it; `None` when there are fewer bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ size_of::<Self>() }>()?;
        // SAFETY: as many bytes, and every bit pattern is valid.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

impl PacketTrace {
    /// As the ring buffer has it; `None` when there are fewer bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ size_of::<Self>() }>()?;
        // SAFETY: as many bytes, and every bit pattern is valid.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` or `repr(transparent)`, no padding (asserted in `layout`), every bit pattern is
        // valid.
        unsafe impl aya::Pod for $type {}
    )+};
}

pod!(
    Address,
    ClassId,
    Endpoint,
    FlowSeed,
    FragmentKey,
    HostGuard,
    IdentityId,
    LabelKey,
    NameNode,
    PolicyId,
    PortPair,
    Resolver,
    Row,
    RowKey,
    ServiceId,
    ServiceKey,
    Share,
    TableSetIndex,
    FlowCounter,
    FlowCounterKey,
    TraceCounts,
    TraceFilter
);
