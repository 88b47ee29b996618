//! Tells aya which types may be written into maps byte by byte.

use crate::{
    Address, ClassId, Config, Endpoint, FlowSeed, FragmentKey, IdentityId, PolicyId, Ports, Row, RowKey,
    ServiceId, ServiceKey, Slot, Tally, TallyKey,
};

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {$(
        // SAFETY: `repr(C)` or `repr(transparent)`, no padding (asserted in `layout`), every bit pattern is valid.
        unsafe impl aya::Pod for $type {}
    )+};
}

pod!(
    Address,
    ClassId,
    Config,
    Endpoint,
    FlowSeed,
    FragmentKey,
    IdentityId,
    PolicyId,
    Ports,
    Row,
    RowKey,
    ServiceId,
    ServiceKey,
    Slot,
    Tally,
    TallyKey
);
