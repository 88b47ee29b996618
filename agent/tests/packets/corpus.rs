//! A corpus of packets, and what becomes of each when bytes of it change: kernel and user space agree on
//! every one, and what reaches or leaves an isolated pod has its reason in the policies.
//!
//! `corpus.txt` holds them as hexadecimal digits. A packet that was once evaluated wrong becomes one of them.

use podgate_common::{NODE, Protocol::Tcp};

use crate::{
    agreement::Witness,
    generate::least_length,
    node::Node,
    world::{Host, UPLINK, World, all_pods, allow, arrives, leaves, port},
};

/// How many packets are made of all files together, at least.
const PACKETS: usize = 100_000;

/// Bytes that headers can be in.
const HEADERS: usize = 120;

#[test]
fn packets_of_the_corpus_and_what_noise_makes_of_them_are_evaluated_alike_and_with_a_reason() {
    let rules = || [allow(all_pods(), port(Tcp, 80))];
    let world = World::new().ingress(Host::B, rules()).egress(Host::B, rules()).egress(Host::Z, []);
    let mut node = Node::new(&world);
    let tables = world.compile(Vec::new());
    let mut witness = Witness::new(&world, &tables);
    let corpus = corpus();
    assert!(corpus.len() >= 30, "the corpus is there");
    let hooks = [
        leaves(Host::A),
        leaves(Host::B),
        leaves(Host::Z),
        arrives(Host::A, UPLINK),
        arrives(Host::B, UPLINK),
        arrives(Host::B, Host::A.veth()),
        arrives(Host::B, NODE),
    ];
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let rounds = PACKETS.div_ceil(corpus.len());
    let mut evaluated = 0;
    for round in 0..rounds {
        for (name, packet) in &corpus {
            let bytes = if round == 0 { packet.clone() } else { mutated(packet, &mut chance) };
            let at = chance.below(hooks.len() + 1);
            let problem = match hooks.get(at) {
                Some(&hook) => {
                    let outcome = node.evaluate(hook, &bytes);
                    witness
                        .check(hook, &bytes, outcome)
                        .err()
                        .map(|why| format!("{outcome:?} at {hook:?}, but {why}"))
                }
                None => {
                    let ingress_ifindex = Host::B.veth();
                    let outcome = node.verdict_on_wire(ingress_ifindex, &bytes);
                    witness
                        .check_on_wire(ingress_ifindex, &bytes, outcome)
                        .err()
                        .map(|why| format!("{outcome:?} on the wire, but {why}"))
                }
            };
            if let Some(problem) = problem {
                panic!("{name}, round {round}: {problem}: {bytes:02x?}");
            }
            evaluated += 1;
        }
        // A long memory would let pass more and more of what was new once.
        if round.is_multiple_of(50) {
            node.forget();
            witness = Witness::new(&world, &tables);
        }
    }
    assert!(evaluated >= PACKETS);
    node.assert_same_state();
}

/// (name, bytes) of every packet. A name ends in a colon, the digits follow on lines of their own.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let mut packets: Vec<(&str, Vec<u8>)> = Vec::new();
    let lines =
        include_str!("corpus.txt").lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines {
        if let Some(name) = line.strip_suffix(':') {
            packets.push((name, Vec::new()));
        } else if let Some((name, bytes)) = packets.last_mut() {
            let digits: String = line.split_whitespace().collect();
            let byte =
                |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|_| panic!("{name}: {line}"));
            bytes.extend((0..digits.len()).step_by(2).map(byte));
        }
    }
    packets
}

/// A copy with one to four changes, most of them in the headers.
fn mutated(packet: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len().min(HEADERS));
        match chance.below(8) {
            0..=3 => bytes[at] ^= 1 << chance.below(8),
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            5 => bytes[at] = u8::try_from(chance.below(256)).expect("it is below 256"),
            6 => bytes.truncate(at.max(15)),
            _ => bytes.insert(at, u8::try_from(chance.below(256)).expect("it is below 256")),
        }
    }
    // The kernel runs no program on less.
    let least = least_length(&bytes);
    bytes.resize(bytes.len().max(least), 0);
    bytes
}

/// Numbers that are the same in every run (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits fit") % bound
    }
}
