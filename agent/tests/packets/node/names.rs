//! Names on the user space side, as the programs learn them.

use podgate_common::{Hook, Opened, Scratch, Stream, Walk};

use super::Node;

impl Node {
    /// Learns names in user space, as the program has done.
    pub(super) fn learn(&mut self, scratch: &Scratch, hook: Hook, frame: &[u8]) {
        let mut walk = Walk::EMPTY;
        let reply = &scratch.headers.tuple;
        let place = (hook.ifindex, Stream::place(reply));
        let stream = self.streams.get(&place).copied().unwrap_or_default();
        let after = self.with_memory(|memory| match walk.open(&frame, reply, stream, hook.ifindex) {
            Opened::Nothing => None,
            Opened::Stream(stream) => Some(stream),
            Opened::Walk => {
                while walk.step(&frame, memory) {}
                walk.stream(reply)
            }
        });
        if let Some(stream) = after {
            self.streams.insert(place, stream);
        }
    }
}
