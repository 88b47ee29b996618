//! Names on the user space side, as the programs learn them.

use std::collections::{BTreeMap, BTreeSet};

use podgate_common::{
    Address, FlowSeed, Hook, HostAtomic, MessageProgress, NameId, Opened, Outcome, PartialMessage, Protocol,
    Resolver, Scratch, Seen, ServiceKey, SharedPartial, Stream, Walk,
    frames::dns::{datagram, reply},
};

use podgate_core::{compiler::NamePlace, memory::Memory};
use podgate_datapath::publisher::EndpointEntry;

use super::Node;
use crate::world::{Family, Learnt, UPLINK, World, arrives, ip, leaves};

/// A server that no packet of the tests goes to.
const RESOLVER: &str = "198.18.0.53";

/// The names that addresses were learnt for, by the number of the pod's table. Each stays what it was learnt
/// for, whatever names rules have later.
pub(super) type LearntPlaces = BTreeMap<(u32, Address), Vec<NamePlace>>;

/// The same by the ids of one compilation.
pub(super) type LearntIds = BTreeMap<(u32, Address), Vec<NameId>>;

/// What the learnt names are to the rules that there are: a name that no rule has any more is the one above
/// it, with more labels before it.
pub(super) fn ids(learnt: &LearntPlaces, memory: &Memory<'_>) -> LearntIds {
    let above = |(suffix, left): &NamePlace| {
        (0..suffix.len()).find_map(|at| {
            let more = u32::try_from(at).expect("names are short");
            memory.name_id(&(suffix[at..].to_vec(), (left + more).min(2)))
        })
    };
    learnt.iter().map(|(at, places)| (*at, places.iter().filter_map(above).collect())).collect()
}

/// Notes what was learnt since the ids were `before`.
pub(super) fn note_new(learnt: &mut LearntPlaces, before: &LearntIds, memory: &Memory<'_>) {
    for (at, names) in memory.learnt.borrow().iter() {
        let known = before.get(at).map_or(&[][..], Vec::as_slice);
        let new = names.iter().filter(|name| !known.contains(name));
        learnt.entry(*at).or_default().extend(new.filter_map(|name| memory.name_place(*name)).cloned());
    }
}

impl Node {
    /// Publishes a world whose pods have learnt what it says, by replies that they have asked for.
    pub(crate) fn teach(&mut self, world: &World) {
        if !self.learnt.is_empty() {
            // Of a pod without rules that have names, all is forgotten.
            self.publish(&World::new());
            self.learnt.clear();
        }
        if !world.learnt.is_empty() {
            let resolver = (ip(RESOLVER), 53);
            let mut asking = world.clone().asks_at(resolver.0);
            asking.resolvers =
                [(ServiceKey::new(resolver.0.into(), Protocol::Udp, 53), Resolver::BELIEVED)].into();
            self.publish(&asking);
            for Learnt { pod, name, address } in &world.learnt {
                let client = (pod.at(Family::V4), 40_000);
                let question = datagram(client, resolver, b"a question");
                let asked = self.evaluate(leaves(*pod), &question.bytes());
                if asked.passes() {
                    let answer = datagram(resolver, client, &reply(name, &[*address]));
                    let answered = self.evaluate(arrives(*pod, UPLINK), &answer.bytes());
                    assert_eq!(answered, Outcome::Established);
                }
            }
            self.forget();
        }
        self.publish(world);
    }

    /// The veths whose pods have rules with names.
    pub(super) fn with_names(&self) -> BTreeSet<u32> {
        let has_names = |entry: &EndpointEntry| {
            entry.subject.of_egress().iter().any(|at| self.tables.strata.contains_key(at))
        };
        let veths = self.wanted.endpoints.iter().filter(|(_, entry)| has_names(entry));
        veths.map(|(ifindex, _)| *ifindex).collect()
    }

    /// Has the replies of connections to resolvers read that pods had open already. `before`: the pods with
    /// names that there were, and the resolvers.
    pub(super) fn mark_connections(&mut self, before: &(BTreeSet<u32>, BTreeMap<ServiceKey, Resolver>)) {
        let (now, resolvers) = (self.with_names(), &self.wanted.resolvers);
        let are_new = resolvers.keys().any(|key| !before.1.contains_key(key));
        for (key, flow) in &mut self.flows {
            let [low, high] = key.addresses().into_iter().zip(key.ports()).collect::<Vec<_>>()[..] else {
                panic!("two ends")
            };
            let (server, port) = if flow.seen.has(Seen::CLIENT_IS_LOW) { high } else { low };
            let is_resolver = Protocol::try_from(key.protocol())
                .is_ok_and(|protocol| resolvers.contains_key(&ServiceKey::new(server, protocol, port)));
            let learns = now.contains(&flow.client_if) && (are_new || !before.0.contains(&flow.client_if));
            if learns && is_resolver {
                flow.seen = flow.seen.that_reads_names();
            }
        }
    }

    /// Learns names in user space, as the program has done.
    pub(super) fn learn(&mut self, scratch: &Scratch, hook: Hook, frame: &[u8]) {
        let mut walk = Walk::EMPTY;
        let (reply, seed) = (&scratch.headers.tuple, &FlowSeed([0x1234_5671; 10]));
        let place = (hook.ifindex, Stream::place(reply));
        let stream = self.streams.get(&place).copied().unwrap_or_default();
        let partials = self.partials.remove(&hook.ifindex);
        let mut partials = partials.unwrap_or_else(|| Box::new([PartialMessage::EMPTY; 2]));
        let places = partials.each_mut().map(SharedPartial::from_mut);
        let after = self.with_memory(|memory| match walk.open(&frame, reply, stream, hook.ifindex, seed) {
            Opened::Nothing => None,
            Opened::Stream(stream) => Some(stream),
            Opened::Walk => {
                while walk.step(&frame, memory) {}
                None
            }
            Opened::Segment => {
                let mut progress = None;
                if let Some(own) = places.iter().find(|place| place.stream() == walk.stream()) {
                    progress = Some(walk.go_on(*own, &frame, 0));
                    while progress == Some(MessageProgress::Whole) && walk.step(own, memory) {}
                    let is_kept = progress == Some(MessageProgress::More);
                    own.release::<HostAtomic>(if is_kept { walk.stream() } else { Stream::default() });
                }
                if progress != Some(MessageProgress::More) && walk.turn_to_messages() {
                    while walk.step(&frame, memory) {}
                    walk.advance();
                }
                if walk.has_rest() {
                    let free = places.iter().find(|place| place.stream().is_none());
                    let place = free.unwrap_or(&places[0]);
                    let is_kept = walk.keep(*place, &frame, 0);
                    place.release::<HostAtomic>(if is_kept { walk.stream() } else { Stream::default() });
                }
                Some(walk.stream())
            }
        });
        self.partials.insert(hook.ifindex, partials);
        if let Some(stream) = after {
            self.streams.insert(place, stream);
        }
    }
}
