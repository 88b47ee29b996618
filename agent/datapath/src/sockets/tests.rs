//! Sockets to entries by table, and the sockets of a real namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket},
};

use podgate_common::{
    Flow, FlowKey,
    Protocol::{Tcp, Udp},
    Seen,
};

use super::*;

const POD: &str = "10.0.0.5";
const VETH: u32 = 7;
const NEXT_VETH: u32 = 8;
const NOW: u32 = 1_000;

const OPEN: SocketState = SocketState::Connected { ended: false, peer_ended: false };

fn socket(protocol: Protocol, state: SocketState, local: &str, remote: &str) -> Socket {
    Socket { protocol, state, local: local.parse().unwrap(), remote: remote.parse().unwrap() }
}

fn listener(protocol: Protocol, local: &str) -> Socket {
    socket(protocol, SocketState::Listens, local, "0.0.0.0:0")
}

fn own() -> BTreeSet<IpAddr> {
    [POD, "fd00::5"].map(|address| address.parse().unwrap()).into()
}

/// The one connection that the pod has, as entered.
fn entered(sockets: &[Socket], known: Option<Flow>) -> (FlowKey, Flow) {
    let sides = sides(sockets, &own());
    assert_eq!(sides.len(), 1, "{sides:?}");
    let (key, side) = sides.first_key_value().unwrap();
    (*key, side.entry(known, VETH, NOW))
}

/// An entry that was evaluated where it says, and never.
fn flow(client_if: u32, server_if: u32, ingress_ifindex: u32, seen: Seen) -> Flow {
    Flow { client_if, server_if, ingress_ifindex, client_revision: 0, server_revision: 0, last: NOW, seen }
}

fn seen(bits: &[Seen]) -> Seen {
    bits.iter().fold(Seen::REPLY, |seen, bit| seen.with(*bit, true))
}

#[test]
fn a_listener_tells_that_the_other_end_came() {
    // (sockets, whether the pod is the server)
    let ours = "10.0.0.5:80";
    let tcp = socket(Tcp, OPEN, ours, "192.0.2.9:40000");
    let udp = socket(Udp, OPEN, ours, "192.0.2.9:40000");
    let six = socket(Tcp, OPEN, "[fd00::5]:80", "[2001:db8::1]:40000");
    let table = [
        (vec![tcp], false),
        (vec![tcp, listener(Tcp, "0.0.0.0:80")], true),
        (vec![tcp, listener(Tcp, "[::]:80")], true),
        (vec![tcp, listener(Tcp, ours)], true),
        (vec![tcp, listener(Tcp, "10.0.0.6:80")], false),
        (vec![tcp, listener(Tcp, "0.0.0.0:81")], false),
        (vec![tcp, listener(Tcp, "0.0.0.0:40000")], false),
        (vec![tcp, listener(Udp, "0.0.0.0:80")], false),
        (vec![udp], false),
        (vec![udp, listener(Udp, "0.0.0.0:80")], true),
        (vec![six], false),
        (vec![six, listener(Tcp, "[::]:80")], true),
        (vec![six, listener(Tcp, "[fd00::5]:80")], true),
    ];
    for (sockets, is_server) in table {
        let (key, flow) = entered(&sockets, None);
        let pod_is_low = own().contains(&key.addresses()[0].into());
        let expected = match is_server {
            true => self::flow(0, VETH, Flow::ANY_INGRESS, seen(&[]).with(Seen::CLIENT_IS_LOW, !pod_is_low)),
            false => self::flow(VETH, 0, 0, seen(&[]).with(Seen::CLIENT_IS_LOW, pod_is_low)),
        };
        assert_eq!(flow, expected, "{sockets:?}");
        let [low, high] = key.addresses().map(Into::into);
        let [low_port, high_port] = key.ports();
        let ends = BTreeSet::from([(low, low_port), (high, high_port)]);
        let Socket { protocol, local, remote, .. } = sockets[0];
        assert_eq!(ends, BTreeSet::from([local, remote].map(|end| (end.ip(), end.port()))));
        assert_eq!(key.protocol(), protocol as u32);
    }
}

#[test]
fn who_has_sent_the_last_byte_is_known_at_either_end() {
    let listens = listener(Tcp, "0.0.0.0:80");
    // (the pod has ended, its peer has, marks when the pod is the client, and when it is the server)
    let table: [(bool, bool, &[Seen], &[Seen]); 4] = [
        (false, false, &[], &[]),
        (true, false, &[Seen::CLIENT_FIN], &[Seen::SERVER_FIN]),
        (false, true, &[Seen::SERVER_FIN], &[Seen::CLIENT_FIN]),
        (true, true, &[Seen::CLIENT_FIN, Seen::SERVER_FIN], &[Seen::CLIENT_FIN, Seen::SERVER_FIN]),
    ];
    for (ended, peer_ended, as_client, as_server) in table {
        let state = SocketState::Connected { ended, peer_ended };
        // The pod is the low end, whatever the order of bytes.
        let socket = socket(Tcp, state, "10.0.0.5:80", "192.0.2.9:40000");
        assert_eq!(entered(&[socket], None).1.seen, seen(as_client).with(Seen::CLIENT_IS_LOW, true));
        assert_eq!(entered(&[socket, listens], None).1.seen, seen(as_server));
    }
}

#[test]
fn only_what_passes_the_veth_is_a_connection() {
    let table = [
        ("a listener", listener(Tcp, "0.0.0.0:80")),
        ("over loopback", socket(Tcp, OPEN, "127.0.0.1:80", "127.0.0.1:40000")),
        ("over loopback, IPv6", socket(Tcp, OPEN, "[::1]:80", "[::1]:40000")),
        ("to itself", socket(Tcp, OPEN, "10.0.0.5:80", "10.0.0.5:40000")),
        ("to nobody", socket(Udp, OPEN, "10.0.0.5:80", "0.0.0.0:53")),
        ("from a loopback address", socket(Udp, OPEN, "10.0.0.5:5000", "127.0.0.53:53")),
        ("by another interface", socket(Tcp, OPEN, "172.16.0.1:80", "192.0.2.9:40000")),
    ];
    for (what, socket) in table {
        assert!(sides(&[socket], &own()).is_empty(), "{what}");
    }
}

#[test]
fn what_the_table_has_of_a_connection_is_added_to() {
    let socket = socket(Tcp, OPEN, "10.0.0.5:80", "192.0.2.9:40000");
    let (asks, answers) = (vec![socket], vec![socket, listener(Tcp, "0.0.0.0:80")]);
    let low = [Seen::CLIENT_IS_LOW];
    let (pod_asks, peer_asks) = (seen(&low), seen(&[]));
    let evaluated = |flow: Flow| Flow { client_revision: 3, server_revision: 4, ..flow };
    let turned = |flow: Flow| Flow { client_revision: 4, server_revision: 3, ..flow };
    let any = Flow::ANY_INGRESS;
    let table = [
        (
            "the other pod's side is there",
            &asks,
            evaluated(flow(0, NEXT_VETH, any, pod_asks)),
            evaluated(flow(VETH, NEXT_VETH, any, pod_asks)),
        ),
        (
            "and the other way about",
            &answers,
            evaluated(flow(NEXT_VETH, 0, 0, peer_asks)),
            evaluated(flow(NEXT_VETH, VETH, any, peer_asks)),
        ),
        (
            "the programs know where the client's packets come from",
            &answers,
            evaluated(flow(0, VETH, 2, peer_asks)),
            evaluated(flow(0, VETH, 2, peer_asks)),
        ),
        (
            "a veth of before",
            &answers,
            evaluated(flow(0, 99, 2, peer_asks)),
            evaluated(flow(0, VETH, any, peer_asks)),
        ),
        (
            "neither end listens: the first word counts",
            &asks,
            evaluated(flow(NEXT_VETH, 0, 0, peer_asks)),
            evaluated(flow(NEXT_VETH, VETH, any, peer_asks)),
        ),
        (
            "the other end seemed to be the server, but this one listens",
            &answers,
            evaluated(flow(0, NEXT_VETH, 2, pod_asks)),
            turned(flow(NEXT_VETH, VETH, any, peer_asks)),
        ),
        (
            "the programs took its answer for a question",
            &answers,
            evaluated(flow(VETH, 0, 0, pod_asks)),
            turned(flow(0, VETH, any, peer_asks)),
        ),
        (
            "marks and age of an earlier connection",
            &asks,
            Flow {
                last: 1,
                ..flow(VETH, 0, 0, seen(&[low[0], Seen::RST, Seen::CLIENT_FIN, Seen::SERVER_FIN]))
            },
            flow(VETH, 0, 0, pod_asks),
        ),
    ];
    for (what, sockets, known, expected) in table {
        assert_eq!(entered(sockets, Some(known)).1, expected, "{what}");
    }
}

#[test]
fn both_pods_of_a_connection_end_in_one_entry_in_either_order() {
    let at_client = socket(Tcp, OPEN, "10.0.0.5:40000", "10.0.0.6:80");
    let at_server = socket(Tcp, OPEN, "10.0.0.6:80", "10.0.0.5:40000");
    let listens = listener(Tcp, "[::]:80");
    let one = |sockets: &[Socket], address: &str| -> BTreeMap<FlowKey, PodSide> {
        sides(sockets, &[address.parse().unwrap()].into())
    };
    let (client, server) = (one(&[at_client], "10.0.0.5"), one(&[at_server, listens], "10.0.0.6"));
    assert!(client.keys().eq(server.keys()));
    let (client, server) = (client.values().next().unwrap(), server.values().next().unwrap());
    let expected = flow(VETH, NEXT_VETH, Flow::ANY_INGRESS, seen(&[Seen::CLIENT_IS_LOW]));
    let client_first = server.entry(Some(client.entry(None, VETH, NOW)), NEXT_VETH, NOW);
    let server_first = client.entry(Some(server.entry(None, NEXT_VETH, NOW)), VETH, NOW);
    assert_eq!([client_first, server_first], [expected; 2]);
}

#[test]
fn the_sockets_of_another_namespace_are_read_from_this_one() {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        let why = "needs root: makes a network namespace";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
        eprintln!("skipped, {why}");
        return;
    }
    let (namespace, sockets) = std::thread::spawn(some_sockets).join().unwrap();
    let here = File::open("/proc/thread-self/ns/net").unwrap();
    assert!(PodSockets::open(&here).is_ok());
    let mut found = PodSockets::open(&namespace).unwrap().read().unwrap();
    let order = |socket: &Socket| (socket.protocol, socket.local, socket.remote);
    found.sort_by_key(order);
    let Sockets { _held, mut expected } = sockets;
    expected.sort_by_key(order);
    assert_eq!(found, expected);
}

struct Sockets {
    _held: (Vec<TcpListener>, Vec<TcpStream>, Vec<UdpSocket>),
    expected: Vec<Socket>,
}

/// One socket of each kind, in a fresh namespace.
fn some_sockets() -> (File, Sockets) {
    // SAFETY: unshare takes a flag; it changes the network namespace of this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.expect("iproute2 is installed").success());
    let namespace = File::open("/proc/thread-self/ns/net").unwrap();

    let six = TcpListener::bind("[::]:0").unwrap();
    let port = six.local_addr().unwrap().port();
    let nobody = "0.0.0.0:0".parse().unwrap();
    let nobody6 = "[::]:0".parse().unwrap();
    let mut expected = vec![Socket {
        protocol: Tcp,
        state: SocketState::Listens,
        local: six.local_addr().unwrap(),
        remote: nobody6,
    }];
    let mut streams = Vec::new();
    for address in ["127.0.0.1", "::1"] {
        for half_closed in [false, true] {
            let client = TcpStream::connect((address, port)).unwrap();
            let (mut server, _) = six.accept().unwrap();
            if half_closed {
                client.shutdown(Shutdown::Write).unwrap();
                // Its FIN has arrived, and the answer to that too before this end says something.
                assert_eq!(server.read(&mut [0]).unwrap(), 0);
                server.write_all(b"x").unwrap();
                (&client).read_exact(&mut [0]).unwrap();
            }
            let ends = |stream: &TcpStream| (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            // The client's end is the same as the server sees it, but for the mapped form.
            let (local, remote) = ends(&client);
            let state = |ended, peer_ended| SocketState::Connected { ended, peer_ended };
            expected.push(Socket { protocol: Tcp, state: state(half_closed, false), local, remote });
            expected.push(Socket {
                protocol: Tcp,
                state: state(false, half_closed),
                local: remote,
                remote: local,
            });
            streams.extend([client, server]);
        }
    }
    let alone = UdpSocket::bind("0.0.0.0:0").unwrap();
    expected.push(Socket {
        protocol: Udp,
        state: SocketState::Listens,
        local: alone.local_addr().unwrap(),
        remote: nobody,
    });
    let paired = UdpSocket::bind("[::1]:0").unwrap();
    paired.connect("[::1]:53").unwrap();
    expected.push(Socket {
        protocol: Udp,
        state: OPEN,
        local: paired.local_addr().unwrap(),
        remote: "[::1]:53".parse().unwrap(),
    });
    (namespace, Sockets { _held: (vec![six], streams, vec![alone, paired]), expected })
}
