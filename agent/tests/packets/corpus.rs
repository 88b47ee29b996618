//! A corpus of packets, and what becomes of each when bytes of it change: kernel and user space agree on every one, and
//! what reaches or leaves an isolated pod has its reason in the policies.
//!
//! `corpus/*.hex` hold one packet each, as hexadecimal text with comments behind `#`. A packet that was once judged
//! wrong becomes a file here.

use std::{fs, path::Path};

use podgate_common::{Direction, NODE, Protocol::Tcp};

use crate::{
    agreement::Witness,
    node::Node,
    world::{Host, UPLINK, World, all_pods, allow, arrives, leaves, port},
};

/// How many packets are made of all files together, at least.
const PACKETS: usize = 100_000;

/// Bytes that headers can be in.
const HEADERS: usize = 120;

#[test]
fn packets_of_the_corpus_and_what_noise_makes_of_them_are_judged_alike_and_with_a_reason() {
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
    let mut judged = 0;
    for round in 0..rounds {
        for (name, packet) in &corpus {
            let bytes = if round == 0 { packet.clone() } else { mutated(packet, &mut chance) };
            let at = chance.below(hooks.len() + 1);
            let problem = match hooks.get(at) {
                Some(&hook) => {
                    let outcome = node.judge(hook, &bytes);
                    witness
                        .check(hook, &bytes, outcome)
                        .err()
                        .map(|why| format!("{outcome:?} at {hook:?}, but {why}"))
                }
                None => {
                    let via = Host::B.veth();
                    let outcome = node.judge_on_wire(via, &bytes);
                    witness
                        .check_on_wire(via, &bytes, outcome)
                        .err()
                        .map(|why| format!("{outcome:?} on the wire, but {why}"))
                }
            };
            if let Some(problem) = problem {
                panic!("{name}, round {round}: {problem}: {bytes:02x?}");
            }
            judged += 1;
        }
        // A long memory would let pass more and more of what was new once.
        if round.is_multiple_of(50) {
            node.forget();
            witness = Witness::new(&world, &tables);
        }
    }
    assert!(judged >= PACKETS);
    node.assert_same_state();
}

/// (name, bytes) of every file.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets/corpus");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let digits: String =
            lines.flat_map(str::chars).filter(|character| !character.is_whitespace()).collect();
        let byte =
            |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|_| panic!("{}", path.display()));
        (path.file_stem().unwrap().display().to_string(), (0..digits.len()).step_by(2).map(byte).collect())
    };
    files.iter().map(|path| read(path)).collect()
}

/// A copy with one to four changes, most of them in the headers.
fn mutated(packet: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len().min(HEADERS));
        match chance.below(8) {
            0..=3 => bytes[at] ^= 1 << chance.below(8),
            4 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][chance.below(5)],
            5 => bytes[at] = u8::try_from(chance.below(256)).unwrap(),
            // The shortest that the kernel takes is an Ethernet header.
            6 => bytes.truncate(at.max(14)),
            _ => bytes.insert(at, u8::try_from(chance.below(256)).unwrap()),
        }
    }
    bytes
}

/// Numbers that are the same in every run (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[test]
#[ignore]
fn write_corpus_once() {
    use crate::world::{Family, ip, service_at};
    use podgate_common::frames::{Extension::*, Fragment, Frame, flag};
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets/corpus");
    let put = |name: &str, what: &str, bytes: Vec<u8>| {
        let mut text = format!("# {what}\n");
        for line in bytes.chunks(16) {
            text += &line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
            text.push('\n');
        }
        fs::write(dir.join(format!("{name}.hex")), text).unwrap();
    };
    for (f, n) in [(Family::V4, "v4"), (Family::V6, "v6")] {
        let r = |p| (Host::Remote.at(f), p);
        let b = |p| (Host::B.at(f), p);
        let syn = |p| Frame::tcp(r(40000), b(p), flag::SYN);
        put(&format!("tcp-syn-allowed-{n}"), "SYN to a port that is allowed", syn(80).bytes());
        put(&format!("tcp-syn-denied-{n}"), "SYN to a port that is not allowed", syn(81).bytes());
        put(&format!("tcp-ack-{n}"), "a forged ACK", Frame::tcp(r(40000), b(81), flag::ACK).bytes());
        put(&format!("tcp-rst-{n}"), "RST", Frame::tcp(r(40000), b(80), flag::RST).bytes());
        put(
            &format!("tcp-out-{n}"),
            "SYN from an isolated pod",
            Frame::tcp(b(40000), r(80), flag::SYN).bytes(),
        );
        put(
            &format!("tcp-service-{n}"),
            "SYN to a service",
            Frame::tcp(b(40000), (service_at(f), 80), flag::SYN).bytes(),
        );
        put(&format!("udp-{n}"), "UDP", Frame::udp(r(40000), b(53), 20).bytes());
        put(
            &format!("udp-dhcp-{n}"),
            "DHCP, from a pod",
            Frame::udp(b(if n == "v4" { 68 } else { 546 }), r(if n == "v4" { 67 } else { 547 }), 240).bytes(),
        );
        put(&format!("sctp-init-{n}"), "SCTP INIT", Frame::sctp(r(40000), b(80), 1).bytes());
        put(
            &format!("echo-request-{n}"),
            "ICMP echo request",
            Frame::echo_request(Host::Remote.at(f), Host::B.at(f), 7).bytes(),
        );
        put(
            &format!("echo-reply-{n}"),
            "ICMP echo reply that nobody asked for",
            Frame::echo_reply(Host::Remote.at(f), Host::B.at(f), 7).bytes(),
        );
        put(
            &format!("icmp-error-{n}"),
            "an error about a connection of the pod",
            Frame::unreachable(Host::Remote.at(f), &Frame::tcp(b(40000), r(80), flag::SYN)).bytes(),
        );
        for (i, part) in Frame::udp(r(40000), b(53), 100).fragments(7, 4).iter().enumerate().take(3) {
            put(&format!("fragment-{}-{n}", i + 1), "one fragment of a datagram", part.bytes());
        }
        put(
            &format!("ipip-{n}"),
            "IP in IP",
            Frame::ip(Host::Remote.at(f), Host::B.at(f), 4, syn(80).bytes()[14..].to_vec()).bytes(),
        );
        put(
            &format!("gre-{n}"),
            "GRE",
            Frame::ip(Host::Remote.at(f), Host::B.at(f), 47, vec![0, 0, 8, 0, 0x45, 0, 0, 20]).bytes(),
        );
        put(&format!("vlan-{n}"), "SYN in a VLAN", syn(80).in_vlan());
        put(
            &format!("spoofed-{n}"),
            "from an address that is not the sender's",
            Frame::tcp((ip(if n == "v4" { "192.0.2.9" } else { "2001:db8::9" }), 1), r(80), flag::SYN)
                .bytes(),
        );
    }
    let syn4 = || Frame::tcp((Host::Remote.at(Family::V4), 40000), (Host::B.at(Family::V4), 80), flag::SYN);
    let syn6 = || Frame::tcp((Host::Remote.at(Family::V6), 40000), (Host::B.at(Family::V6), 80), flag::SYN);
    put("options-v4", "IPv4 with ten words of options", syn4().with_options(10).bytes());
    put("lying-length-v4", "a total length beyond the packet", syn4().with_claimed_length(1500).bytes());
    put(
        "extensions-v6",
        "every extension header",
        syn6()
            .with_extensions(&[
                HopByHop(0),
                Destination(0),
                Routing(2),
                Fragment(podgate_common::frames::Fragment { id: 7, offset: 0, more: false }),
                Authentication(4),
                Destination(1),
            ])
            .bytes(),
    );
    put(
        "endless-v6",
        "more extension headers than are read",
        syn6().with_extensions(&[Destination(0); 7]).bytes(),
    );
    put("arp", "ARP", Frame::arp());
    put(
        "neighbour-v6",
        "neighbour solicitation",
        Frame::icmp(Host::B.at(Family::V6), ip("ff02::1"), 135, 0).bytes(),
    );
    let _ = (Direction::Egress, Fragment { id: 0, offset: 0, more: false });
}
