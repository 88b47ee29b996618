//! Runs the programs on crafted packets.

use std::path::Path;

use aya::{TestRun as _, TestRunOptions, programs::SchedClassifier};
use podgate_common::{Direction, Hook};
use podgate_datapath::{Datapath, Program, Programs as _, TracingPrograms};

use crate::world::UPLINK;

/// `TC_ACT_UNSPEC` and `TC_ACT_SHOT` as the kernel hands them back.
const PASSED: u32 = u32::MAX;
const DROPPED: u32 = 2;
/// `TC_ACT_REDIRECT`
const REDIRECTED: u32 = 7;

/// What a program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Passed,
    Dropped,
    /// To another pod, by the short cut.
    HandedOver,
}

impl Answer {
    #[track_caller]
    fn passed(self) -> bool {
        assert_ne!(self, Self::HandedOver, "there is no short cut here");
        self == Self::Passed
    }
}

/// Handles on the programs that need nothing of the kernel's module.
pub(crate) struct Programs {
    from_pod: SchedClassifier,
    to_pod: SchedClassifier,
    to_wire: SchedClassifier,
    to_tunnel: SchedClassifier,
    from_netdev: SchedClassifier,
    to_netdev: SchedClassifier,
}

impl Programs {
    /// Opens the programs by pins that are removed at once.
    pub(crate) fn of(datapath: &mut Datapath, bpffs: &Path) -> Self {
        Self::of_trace(datapath, None, bpffs)
    }

    /// The same; `tracing`: those of pods.
    pub(crate) fn of_trace(
        datapath: &mut Datapath,
        mut tracing: Option<&mut TracingPrograms>,
        bpffs: &Path,
    ) -> Self {
        let mut open = |program| {
            let pin = bpffs.join("program");
            let loaded = match (&mut tracing, program) {
                (Some(tracing), Program::FromPod | Program::ToPod) => tracing.program(program),
                _ => datapath.program(program),
            };
            loaded.expect("all programs").pin(&pin).expect("a bpffs of our own");
            let program = SchedClassifier::from_pin(&pin).expect("just pinned");
            std::fs::remove_file(&pin).expect("just pinned");
            program
        };
        Self {
            from_pod: open(Program::FromPod),
            to_pod: open(Program::ToPod),
            to_wire: open(Program::ToWire),
            to_tunnel: open(Program::ToTunnel),
            from_netdev: open(Program::FromNetdev),
            to_netdev: open(Program::ToNetdev),
        }
    }

    /// Runs a program on a packet, which it must leave as it is; whether it lets the packet pass.
    #[track_caller]
    pub(crate) fn run(&self, hook: Hook, frame: &[u8]) -> bool {
        self.answer(hook, frame).passed()
    }

    /// The same; whether it hands the packet to another pod.
    #[track_caller]
    pub(crate) fn hands_over(&self, hook: Hook, frame: &[u8]) -> bool {
        let answer = self.answer(hook, frame);
        assert_ne!(answer, Answer::Dropped, "{frame:02x?}");
        answer == Answer::HandedOver
    }

    #[track_caller]
    pub(crate) fn answer(&self, hook: Hook, frame: &[u8]) -> Answer {
        let program = match hook.direction {
            Direction::Egress => &self.from_pod,
            Direction::Ingress => &self.to_pod,
        };
        run(program, hook.ifindex, hook.ingress_ifindex, frame)
    }

    /// Runs the program of the ways out of the node on a packet.
    #[track_caller]
    pub(crate) fn run_on_wire(&self, ingress_ifindex: u32, frame: &[u8]) -> bool {
        run(&self.to_wire, UPLINK, ingress_ifindex, frame).passed()
    }

    /// Runs a program of a device with a host endpoint on a packet.
    #[track_caller]
    pub(crate) fn run_at_host(
        &self,
        direction: Direction,
        ifindex: u32,
        ingress_ifindex: u32,
        frame: &[u8],
    ) -> bool {
        let program = match direction {
            Direction::Ingress => &self.from_netdev,
            Direction::Egress => &self.to_netdev,
        };
        run(program, ifindex, ingress_ifindex, frame).passed()
    }

    /// The same of a device without link headers.
    #[track_caller]
    pub(crate) fn run_on_tunnel(&self, ingress_ifindex: u32, packet: &[u8]) -> bool {
        run(&self.to_tunnel, UPLINK, ingress_ifindex, packet).passed()
    }
}

impl Programs {
    /// What a pod gets instead of a packet that arrives.
    #[track_caller]
    pub(crate) fn changed(&self, hook: Hook, frame: &[u8]) -> Vec<u8> {
        let (answer, after) = run_to(&self.to_pod, hook.ifindex, hook.ingress_ifindex, frame);
        assert_eq!(answer, PASSED, "{frame:02x?}");
        after
    }
}

#[track_caller]
fn run(program: &SchedClassifier, ifindex: u32, ingress_ifindex: u32, frame: &[u8]) -> Answer {
    let (answer, after) = run_to(program, ifindex, ingress_ifindex, frame);
    assert_eq!(after, frame, "the program changed the packet");
    match answer {
        PASSED => Answer::Passed,
        DROPPED => Answer::Dropped,
        REDIRECTED => Answer::HandedOver,
        other => panic!("the program returned {other}"),
    }
}

/// What the program returns, and what it makes of the packet.
#[track_caller]
fn run_to(program: &SchedClassifier, ifindex: u32, ingress_ifindex: u32, frame: &[u8]) -> (u32, Vec<u8>) {
    // `struct __sk_buff` of `linux/bpf.h` up to `ifindex`.
    let mut context = [0; 44];
    context[36..40].copy_from_slice(&ingress_ifindex.to_ne_bytes());
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    let mut after = vec![0; frame.len()];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut after),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    };
    let run = program.test_run(options).unwrap_or_else(|error| panic!("{error:?}: {frame:02x?}"));
    after.truncate(run.data_size_out as usize);
    (run.return_value, after)
}
