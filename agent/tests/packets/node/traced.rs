//! Nodes whose pods are all traced.

use podgate_common::{Hook, Outcome, TraceFilter};
use podgate_datapath::{
    Datapath, DatapathOptions, HookKind, Pins, TraceReader, TracingPrograms, hand_over_tracing,
};

use super::Node;

impl Node {
    /// Each packet is traced once, up to its outcome.
    #[track_caller]
    pub(super) fn assert_traced(&mut self, hook: Hook, outcome: Outcome) {
        let Some(reader) = &mut self.trace else { return };
        let packet = reader.take().expect("the packet is traced");
        assert!(reader.take().is_none(), "one packet, one trace");
        assert_eq!((packet.ifindex, packet.direction), (hook.ifindex, hook.direction as u8));
        assert_eq!(packet.outcome, outcome as u8, "{outcome}");
        assert_eq!(packet.omitted, 0, "there is room for the steps of each packet");
        assert!(packet.packet_kind().is_some() && packet.steps().all(|step| step.is_some()), "{packet:?}");
    }
}

/// Has the pods' packets traced, as the agent and who asks it do it.
pub(super) fn take_tracing(
    datapath: &mut Datapath,
    pins: &Pins,
    options: DatapathOptions,
) -> (TracingPrograms, TraceReader) {
    let filter = TraceFilter { per_second: u32::MAX, ..TraceFilter::ANY };
    datapath.pin_programs(pins, HookKind::Tcx).expect("a bpffs of our own");
    hand_over_tracing(pins, 1, (options, datapath.reads), &filter)
        .unwrap_or_else(|error| panic!("{error:?}"));
    datapath.take_tracing(pins, 1).unwrap_or_else(|error| panic!("{error:#}"))
}
