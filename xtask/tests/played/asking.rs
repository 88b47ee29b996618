//! Asking: all questions of one place at once, over sockets that do not wait for each other.
//!
//! In: a place and its questions. Out: what came back of each: who answered, a refusal, or silence. Answers
//! that are expected are waited for; silence is believed after a while in which others were answered.

use std::{
    io::{ErrorKind, Read},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};
use xtask::lab::{PATIENT, Place};

use crate::cluster::{Expected, PlaceNumber, Protocol, Question};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Answer(PlaceNumber),
    Refused,
    Silence,
}

/// How long silence must last, after the questions and after the last expected answer.
const SILENCE: Duration = Duration::from_millis(300);
const SILENCE_AFTER_ANSWERS: Duration = Duration::from_millis(100);
/// How often an unanswered datagram is sent again.
const RESEND: Duration = Duration::from_millis(150);

struct Asked<'a> {
    question: &'a Question,
    socket: Socket,
    seen: Option<Seen>,
}

/// The outcomes, in the order of the questions.
pub(crate) fn ask(place: &Place, questions: &[&Question]) -> Result<Vec<Seen>> {
    place.run(|| {
        let mut asked = questions.iter().map(|question| Asked::open(question)).collect::<Result<Vec<_>>>()?;
        collect(&mut asked)?;
        Ok(asked.iter().map(|asked| asked.seen.unwrap_or(Seen::Silence)).collect())
    })
}

fn collect(asked: &mut [Asked<'_>]) -> Result<()> {
    let started = Instant::now();
    let (mut last_answer, mut last_sent) = (started, started);
    loop {
        let now = Instant::now();
        let is_waited_for = |it: &Asked<'_>| it.seen.is_none() && it.question.expected != Expected::Silence;
        let end = match asked.iter().any(is_waited_for) {
            true => started + PATIENT,
            false => (started + SILENCE).max(last_answer + SILENCE_AFTER_ANSWERS),
        };
        if now >= end || asked.iter().all(|it| it.seen.is_some()) {
            return Ok(());
        }
        if now >= last_sent + RESEND {
            asked.iter().filter(|it| it.seen.is_none()).for_each(Asked::send);
            last_sent = now;
        }
        let wait = end.min(last_sent + RESEND).saturating_duration_since(now) + Duration::from_millis(1);
        let open: Vec<usize> = (0..asked.len()).filter(|place| asked[*place].seen.is_none()).collect();
        let mut ready: Vec<_> =
            open.iter().map(|place| PollFd::new(asked[*place].socket.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut ready, PollTimeout::try_from(wait).context("time to wait")?).context("poll")?;
        let ready: Vec<bool> = ready.iter().map(|it| it.any().unwrap_or(true)).collect();
        for place in open.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(place, _)| place) {
            asked[place].read()?;
            if asked[place].question.expected != Expected::Silence {
                last_answer = Instant::now();
            }
        }
    }
}

impl<'a> Asked<'a> {
    fn open(question: &'a Question) -> Result<Self> {
        let (kind, protocol) = match question.protocol {
            Protocol::Tcp => (Type::STREAM, None),
            Protocol::Udp => (Type::DGRAM, None),
            Protocol::Icmp if question.source.is_ipv4() => (Type::DGRAM, Some(socket2::Protocol::ICMPV4)),
            Protocol::Icmp => (Type::DGRAM, Some(socket2::Protocol::ICMPV6)),
        };
        let domain = Domain::for_address(question.source);
        let socket = Socket::new(domain, kind.nonblocking(), protocol).context("socket")?;
        if question.protocol == Protocol::Tcp {
            // Nothing is left of it when it is closed.
            socket.set_linger(Some(Duration::ZERO)).context("SO_LINGER")?;
            socket.set_reuse_address(true).context("SO_REUSEADDR")?;
        }
        socket.bind(&question.source.into()).with_context(|| format!("binding to {}", question.source))?;
        let mut new = Self { question, socket, seen: None };
        match new.socket.connect(&question.to.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => new.fail(error)?,
            _ => new.send(),
        }
        Ok(new)
    }

    /// What is lost is sent again, by TCP itself.
    fn send(&self) {
        // What went wrong shows when the answer is read.
        let _ = match self.question.protocol {
            Protocol::Tcp => return,
            Protocol::Udp => self.socket.send(b"?"),
            // The kernel writes the checksum, and the socket's port for an identifier.
            Protocol::Icmp if self.question.to.is_ipv4() => self.socket.send(&[8, 0, 0, 0, 0, 0, 0, 0]),
            Protocol::Icmp => self.socket.send(&[128, 0, 0, 0, 0, 0, 0, 0]),
        };
    }

    fn read(&mut self) -> Result<()> {
        let mut answer = [0];
        match self.socket.read(&mut answer) {
            Ok(1) => {
                // The kernel that sends an echo back does not say whose it is.
                let of_echo = self.question.holder.filter(|_| self.question.protocol == Protocol::Icmp);
                self.seen = Some(Seen::Answer(of_echo.unwrap_or(answer[0])));
            }
            Ok(_) => self.seen = Some(Seen::Refused),
            Err(error) => self.fail(error)?,
        }
        Ok(())
    }

    fn fail(&mut self, error: std::io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::WouldBlock => {}
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => self.seen = Some(Seen::Refused),
            _ => return Err(error).with_context(|| format!("asking {:?}", self.question)),
        }
        Ok(())
    }
}
