//! The walk against a parser that allocates, each trap by itself, and the table of learnt addresses.

mod agreement;
mod generate;
pub(super) mod modelled;
mod naive;
mod patterns;
mod segments;
mod table;
mod traps;

use std::{cell::RefCell, vec::Vec};

use super::*;
use crate::{Packet, Tracked, Tuple, packet::Start};

use patterns::Patterns;

/// An address, the name that it is learnt for, and the time to live.
type Entry = (Address, NameId, u32);

/// The tables of a walk, which write down what is learnt.
struct Notes<'a> {
    patterns: &'a Patterns,
    learnt: RefCell<Vec<Entry>>,
}

impl NameTables for Notes<'_> {
    fn node(&self, key: &LabelKey) -> NameNode {
        let number = self.patterns.nodes.get(key).copied().unwrap_or(0);
        let matches = |left| self.patterns.matched.contains(&(number, left));
        NameNode::new(number, [0, 1, 2].map(matches))
    }

    fn learn(&self, table: u32, address: &Address, name: NameId, seconds: u32) -> Option<Learnt> {
        assert_eq!(table, TABLE);
        self.learnt.borrow_mut().push((*address, name, seconds));
        Some(Learnt::New)
    }
}

/// A message in a packet, beyond which nothing is read but the byte before it.
struct Bounded<'a> {
    packet: &'a [u8],
    end: usize,
}

const BEFORE: usize = 42;
const TABLE: u32 = 3;

impl Packet for Bounded<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        assert!(offset + 1 >= BEFORE && offset + N <= self.end, "{offset}+{N} is outside of the message");
        self.packet.read(offset)
    }

    fn start<const LENGTH: usize>(&self) -> Option<impl Start> {
        self.packet.start::<LENGTH>()
    }

    fn load(&self, offset: usize, length: usize, into: &mut [u8; 64]) -> Option<()> {
        assert!(offset >= BEFORE && offset + length <= self.end, "{offset}+{length} is outside");
        self.packet.load(offset, length, into)
    }

    fn pull(&self) {}

    fn tracked(&self, _: &mut Tracked) -> bool {
        false
    }

    fn has_local_socket(&self) -> bool {
        false
    }

    fn has_connection(&self, _: &Tuple) -> bool {
        false
    }
}

/// What a walk over a message ends with, what it learns, how many addresses no name may open, and how many
/// steps it takes.
fn walk(message: &[u8], patterns: &Patterns) -> (Next, Vec<Entry>, u32, usize) {
    let mut packet = std::vec![0xee; BEFORE];
    packet.extend(message);
    let end = packet.len();
    packet.extend([0xee; 40]);
    let bounded = Bounded { packet: &packet, end };
    let tables = Notes { patterns, learnt: RefCell::default() };
    // What stands there from the message before does not matter.
    let mut walk = Walk::EMPTY;
    (walk.names, walk.known, walk.places, walk.refused) = ([NameId(99); 4], 4, [7; 128], 9);
    walk.clear(TABLE);
    walk.turn_to(&bounded, BEFORE.try_into().expect("small"), end.try_into().expect("small"));
    let mut steps = 1;
    while walk.step(&bounded, &tables) {
        steps += 1;
        assert!(steps < 100_000, "it ends");
    }
    (walk.next(), tables.learnt.into_inner(), walk.refused, steps)
}
