//! Whether the node can be reached: the API server and the kubelet answer. A change of host endpoints is
//! undone unless both do.
//!
//! In: questions, one for each change. Out: the number of the last question that all have answered. Each
//! question takes new connections, because established ones pass whatever policies say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{options::HealthUrl, source::kube::ApiProbe};

/// Time limit of one answer: a server nearby answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the kubelet's answer that are read: its status line.
const MOST: u64 = 64;

/// Asks the API server and the kubelet, and knows the last question that both have answered. Clones share
/// their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReachabilityProbe(Arc<ProbeState>);

#[derive(Debug, Default)]
struct ProbeState {
    asked: AtomicU64,
    answered: AtomicU64,
    is_asked: Notify,
}

impl ReachabilityProbe {
    /// Asks whether the node can be reached from now on. Out: the question's number.
    pub(crate) fn request(&self) -> u64 {
        let number = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.is_asked.notify_one();
        number
    }

    /// Whether all have answered since this question was asked.
    pub(crate) fn answered_since(&self, question: u64) -> bool {
        self.0.answered.load(Ordering::SeqCst) >= question
    }

    /// Answers the questions, for ever.
    pub(crate) async fn run(&self, server: Option<ApiProbe>, kubelet: Option<HealthUrl>) -> anyhow::Error {
        loop {
            let question = self.0.asked.load(Ordering::SeqCst);
            if question <= self.0.answered.load(Ordering::SeqCst) {
                self.0.is_asked.notified().await;
                continue;
            }
            match reach(server.as_ref(), kubelet.as_ref()).await {
                Ok(()) => self.0.answered.store(question, Ordering::SeqCst),
                Err(error) => {
                    tracing::warn!("a change of host endpoints is not confirmed yet: {error:#}");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn reach(server: Option<&ApiProbe>, kubelet: Option<&HealthUrl>) -> Result<()> {
    if let Some(server) = server {
        let answer = timeout(ANSWER, server.ask()).await;
        answer.context("no answer in time").flatten().context("the API server")?;
    }
    if let Some(kubelet) = kubelet {
        let answer = timeout(ANSWER, ask_health(kubelet)).await;
        answer.context("no answer in time").flatten().with_context(|| format!("the kubelet at {kubelet}"))?;
    }
    Ok(())
}

/// Succeeds if the server answers with status 200 (HTTP/1.0, since one line is enough).
async fn ask_health(HealthUrl { authority, path }: &HealthUrl) -> Result<()> {
    let mut stream = TcpStream::connect(authority.as_str()).await.context("cannot connect")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.context("cannot ask")?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await.context("cannot read the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    ensure!(status == Some("200"), "it says {:?}", answer.lines().next().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, task::LocalSet};

    use super::*;

    /// A kubelet that gives these answers, one after the other.
    async fn answering(answers: &'static [&'static str]) -> HealthUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap()).parse().unwrap();
        tokio::task::spawn_local(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Read all of it: closing with unread data resets the connection.
                let mut request = [0; 512];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]);
                assert!(request.starts_with("GET /healthz HTTP/1.0\r\n"), "{request}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn a_kubelet_is_well_when_it_says_200_and_not_otherwise() {
        LocalSet::new()
            .run_until(async {
                let url =
                    answering(&["HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 500 no\r\n\r\n", "SSH-2.0"]).await;
                assert!(ask_health(&url).await.is_ok());
                assert!(ask_health(&url).await.is_err());
                assert!(ask_health(&url).await.is_err());
                assert!(ask_health(&url).await.is_err(), "no one listens any more");
            })
            .await;
    }

    #[tokio::test]
    async fn a_question_is_answered_by_what_answers_after_it() {
        LocalSet::new()
            .run_until(async {
                let lines = ReachabilityProbe::default();
                let url = answering(&["HTTP/1.0 503 not yet\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"]).await;
                let question = lines.request();
                assert!(!lines.answered_since(question) && lines.answered_since(0));
                let prober = lines.clone();
                tokio::task::spawn_local(async move { prober.run(None, Some(url)).await });
                while !lines.answered_since(question) {
                    sleep(Duration::from_millis(10)).await;
                }
                let next = lines.request();
                assert!(!lines.answered_since(next), "it is asked again");
            })
            .await;
    }
}
