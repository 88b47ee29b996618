//! One question to one resolver after the other, until one answers.
//!
//! A socket that is connected takes datagrams of that server alone, from a port that the kernel has chosen at
//! random for this question; the id is random, too, and the question is compared. What does not fit is
//! ignored, and the socket waits on: a forged reply neither counts nor keeps the true one away.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use podgate_common::{Protocol, Resolver, ServiceKey};
use podgate_core::compiler::NamePlace;
use podgate_datapath::random_bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::message::{AddressKind, DnsQuery, DnsReply, TimedAddress};

/// The servers that may be asked, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Servers(Vec<SocketAddr>);

/// How long one server is given.
const PATIENCE: Duration = Duration::from_secs(2);

/// Servers that are asked the same question.
const ATTEMPTS: usize = 2;

/// Datagrams that are looked at for one question.
const DATAGRAMS: usize = 64;

/// NodeLocal DNSCache is on this very node.
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));

impl Servers {
    /// Those that are believed over both protocols without a proof by connection tracking, which the agent's
    /// own packets do not have: of an address that a Service claims, that Service's backend might answer.
    pub(super) fn of(resolvers: &BTreeMap<ServiceKey, Resolver>) -> Self {
        let is_believed = |key: &ServiceKey| resolvers.get(key) == Some(&Resolver::BELIEVED);
        let over = |key: &ServiceKey, protocol| ServiceKey::new(key.address, protocol, key.port);
        let both = resolvers.keys().filter(|key| {
            key.protocol == Protocol::Udp as u16
                && [Protocol::Udp, Protocol::Tcp].iter().all(|protocol| is_believed(&over(key, *protocol)))
        });
        let mut servers: Vec<SocketAddr> =
            both.map(|key| SocketAddr::new(key.address.into(), key.port)).collect();
        servers.sort_unstable_by_key(|server| (server.ip() != NODE_LOCAL, *server));
        Self(servers)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that one question goes to. Where there are several, each question begins with another one.
    fn for_question(&self, number: usize) -> impl Iterator<Item = SocketAddr> {
        let is_local = self.0.first().is_some_and(|server| server.ip() == NODE_LOCAL);
        let (local, others) = self.0.split_at(usize::from(is_local));
        let from = number.checked_rem(others.len()).unwrap_or(0);
        let others = others.iter().cycle().skip(from).take(others.len());
        local.iter().chain(others).copied().take(ATTEMPTS)
    }
}

/// The addresses of a name, as the first server says them that answers.
///
/// # Errors
///
/// When none does: of the last one.
pub(super) async fn ask(
    servers: Servers,
    number: usize,
    name: NamePlace,
    kind: AddressKind,
) -> Result<Vec<TimedAddress>> {
    let mut last = anyhow::anyhow!("no resolver is believed");
    for server in servers.for_question(number) {
        let query = DnsQuery::new(random_id()?, &name, kind);
        let asked = timeout(PATIENCE, ask_one(server, &query, &name)).await;
        match asked.unwrap_or_else(|_| bail!("no answer in {PATIENCE:?}")) {
            Ok(addresses) => return Ok(addresses),
            Err(error) => last = error.context(format!("resolver {server}")),
        }
    }
    Err(last)
}

async fn ask_one(server: SocketAddr, query: &DnsQuery, name: &NamePlace) -> Result<Vec<TimedAddress>> {
    match over_udp(server, query, name).await? {
        DnsReply::Truncated => {}
        other => return taken(other),
    }
    let message = over_tcp(server, query).await.context("over TCP")?;
    taken(query.reply(&message, name))
}

fn taken(reply: DnsReply) -> Result<Vec<TimedAddress>> {
    match reply {
        DnsReply::Addresses(addresses) => Ok(addresses),
        DnsReply::Failed => bail!("it answers with an error"),
        DnsReply::Truncated | DnsReply::Foreign => bail!("it answers something else over TCP"),
    }
}

async fn over_udp(server: SocketAddr, query: &DnsQuery, name: &NamePlace) -> Result<DnsReply> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.context("cannot open a socket")?;
    socket.connect(server).await.context("it cannot be reached")?;
    socket.send(query.bytes()).await.context("it cannot be reached")?;
    let mut message = [0; DnsQuery::LONGEST_DATAGRAM + 1];
    for _ in 0..DATAGRAMS {
        let length = socket.recv(&mut message).await.context("no answer")?;
        match query.reply(&message[..length], name) {
            DnsReply::Foreign => {}
            reply => return Ok(reply),
        }
    }
    bail!("{DATAGRAMS} datagrams were no answers")
}

async fn over_tcp(server: SocketAddr, query: &DnsQuery) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes().len())?;
    stream.write_all(&[&length.to_be_bytes(), query.bytes()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn random_id() -> Result<u16> {
    random_bytes().map(u16::from_ne_bytes).context("no random number")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Instant,
    };

    use super::{
        super::message::tests::{place, reply_to},
        *,
    };

    const NAME: &str = "api.example.com";

    /// What a server does with a query that has come over UDP: the datagrams that it sends.
    type Answers = fn(&[u8]) -> Vec<Vec<u8>>;

    /// What it says over TCP.
    type AnswerOverTcp = fn(&[u8]) -> Vec<u8>;

    /// A resolver on the loopback device, over UDP and, with an answer there, over TCP.
    async fn server(answers: Answers, over_tcp: Option<AnswerOverTcp>) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        if let Some(answer) = over_tcp {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                let answer = answer(&query);
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            });
        }
        tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut query).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                for answer in answers(&query[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        (address, asked)
    }

    async fn addresses(servers: &[SocketAddr]) -> Result<Vec<String>> {
        let found = ask(Servers(servers.to_vec()), 0, place(NAME), AddressKind::V4).await?;
        Ok(found.into_iter().map(|it| it.address.to_string()).collect())
    }

    fn good(query: &[u8]) -> Vec<u8> {
        reply_to(query, NAME, &["192.0.2.1"])
    }

    fn truncated(query: &[u8]) -> Vec<Vec<u8>> {
        let mut reply = reply_to(query, NAME, &["192.0.2.66"]);
        reply[2] |= 2;
        vec![reply]
    }

    #[tokio::test]
    async fn forged_replies_do_not_count_and_do_not_keep_the_true_one_away() {
        let (at, _) = server(
            |query| {
                let forged = |at: usize, bits: u8| {
                    let mut reply = reply_to(query, NAME, &["192.0.2.66"]);
                    reply[at] ^= bits;
                    reply
                };
                let other = reply_to(query, "evil.example.com", &["192.0.2.66"]);
                vec![
                    forged(0, 1),
                    forged(1, 0x80),
                    forged(2, 0x80),
                    forged(14, 1),
                    other,
                    vec![],
                    good(query),
                ]
            },
            None,
        )
        .await;
        assert_eq!(addresses(&[at]).await.unwrap(), ["192.0.2.1"]);
    }

    #[tokio::test]
    async fn a_flood_of_replies_ends() {
        let (at, _) = server(|_| vec![vec![0; 40]; 2 * DATAGRAMS], None).await;
        let began = Instant::now();
        let error = format!("{:#}", addresses(&[at]).await.unwrap_err());
        assert!(error.contains("were no answers"), "{error}");
        assert!(began.elapsed() < PATIENCE);
    }

    #[tokio::test]
    async fn a_truncated_reply_is_taken_over_tcp() {
        let (at, _) = server(truncated, Some(good)).await;
        assert_eq!(addresses(&[at]).await.unwrap(), ["192.0.2.1"]);
        let (at, _) = server(truncated, Some(|_| vec![7; 30])).await;
        assert!(addresses(&[at]).await.is_err());
        let (at, _) = server(truncated, None).await;
        assert!(addresses(&[at]).await.is_err());
    }

    #[tokio::test]
    async fn a_silent_server_is_given_up_and_another_one_asked() {
        let (silent, asked) = server(|_| Vec::new(), None).await;
        let (other, _) = server(|query| vec![good(query)], None).await;
        let (failing, _) = server(
            |query| {
                let mut reply = good(query);
                reply[3] |= 2;
                vec![reply]
            },
            None,
        )
        .await;
        let began = Instant::now();
        assert_eq!(addresses(&[silent, other]).await.unwrap(), ["192.0.2.1"]);
        assert_eq!(addresses(&[failing, other]).await.unwrap(), ["192.0.2.1"]);
        assert!(began.elapsed() >= PATIENCE && asked.load(Ordering::Relaxed) == 1);
        assert!(addresses(&[silent, silent, other]).await.is_err(), "two are asked at the most");
        assert!(began.elapsed() < 4 * PATIENCE);
    }

    #[test]
    fn a_server_is_asked_that_is_believed_as_it_is() {
        let key = |address: &str, protocol| {
            ServiceKey::new(address.parse::<IpAddr>().unwrap().into(), protocol, 53)
        };
        let both =
            |address: &str, believed| [Protocol::Udp, Protocol::Tcp].map(|it| (key(address, it), believed));
        let mut resolvers: BTreeMap<_, _> = both("10.96.0.10", Resolver::BELIEVED).into();
        resolvers.extend(both("10.96.0.11", Resolver::CLAIMED));
        resolvers.extend(both("10.1.0.53", Resolver::BELIEVED));
        resolvers.extend(both("169.254.20.10", Resolver::BELIEVED));
        resolvers.insert(key("10.96.0.12", Protocol::Udp), Resolver::BELIEVED);
        let servers = Servers::of(&resolvers);
        let order = |number| servers.for_question(number).map(|it| it.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(order(0), ["169.254.20.10", "10.1.0.53"]);
        assert_eq!(order(1), ["169.254.20.10", "10.96.0.10"]);
        assert_eq!(servers.0.len(), 3);
        resolvers.retain(|key, _| key.address != key_address("169.254.20.10"));
        assert_eq!(Servers::of(&resolvers).for_question(3).count(), 2);
        assert_eq!(Servers::default().for_question(3).count(), 0);
    }

    fn key_address(text: &str) -> podgate_common::Address {
        text.parse::<IpAddr>().unwrap().into()
    }
}
