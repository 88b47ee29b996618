//! One command in one agent's container.

use std::{convert::Infallible, pin::pin, time::Duration};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client, Error,
    api::{AttachParams, AttachedProcess},
    client::UpgradeConnectionError,
};
use podgate_core::printable::printable;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::{Agent, Failure, agents::CONTAINER, connection::chain};

/// The program in the agent's image.
const PROGRAM: &str = "/podgate";

/// No answer is longer, in bytes; that of an agent with 5,000 policies is about 2 MB. Parsed, it takes
/// several times as much for a moment, one answer after the other.
const LONGEST_ANSWER: usize = 8 << 20;

/// Of what it says on stderr, in bytes.
const LONGEST_COMPLAINT: usize = 4 << 10;

/// Bytes between the network and the reader.
const BUFFER: usize = 64 << 10;

/// Whether the command's standard input stays open while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdin {
    Closed,
    Open,
}

/// Runs podgate's commands beside agents.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "its client has none")]
pub struct Executor {
    pods: Api<Pod>,
    namespace: String,
}

impl Executor {
    /// `namespace`: in which the agents run.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self { pods: Api::namespaced(client.clone(), namespace), namespace: namespace.to_owned() }
    }

    /// What the command prints. `deadline`: from the connection to the last byte.
    ///
    /// # Errors
    ///
    /// Why there is no complete answer.
    pub async fn output(
        &self,
        agent: &Agent,
        arguments: &[String],
        deadline: Option<Duration>,
    ) -> Result<Vec<u8>, Failure> {
        let run = async {
            let (answer, end) = self.run(agent, arguments, None).await?;
            end.map(|()| answer)
        };
        within(deadline, run).await
    }

    /// The same of a command that may fail after a complete answer, as `explain` does where it is uncertain.
    /// `input`: what it reads on standard input. The stream does not end there, because API servers before
    /// Kubernetes 1.30 cannot end it without the answer: the command has to know how long it is.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub(crate) async fn answer(
        &self,
        agent: &Agent,
        arguments: &[String],
        input: Option<&[u8]>,
        deadline: Option<Duration>,
    ) -> Result<Vec<u8>, Failure> {
        let run = async {
            match self.run(agent, arguments, input).await? {
                (answer, Err(failure)) if answer.is_empty() => Err(failure),
                (answer, _) => Ok(answer),
            }
        };
        within(deadline, run).await
    }

    /// Starts the command, to be read as it prints.
    ///
    /// # Errors
    ///
    /// When it could not be started.
    pub(super) async fn start(
        &self,
        agent: &Agent,
        arguments: &[String],
        stdin: Stdin,
    ) -> Result<AttachedProcess, Failure> {
        let parameters = AttachParams::default()
            .container(CONTAINER)
            .stdin(stdin == Stdin::Open)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(BUFFER)
            .max_stdout_buf_size(BUFFER)
            .max_stderr_buf_size(LONGEST_COMPLAINT);
        let command = std::iter::once(PROGRAM).chain(arguments.iter().map(String::as_str));
        let command: Vec<&str> = command.collect();
        self.pods.exec(&agent.pod, command, &parameters).await.map_err(|error| self.refusal(&error))
    }

    /// All that the command prints, and whether it succeeded then.
    async fn run(
        &self,
        agent: &Agent,
        arguments: &[String],
        input: Option<&[u8]>,
    ) -> Result<(Vec<u8>, Result<(), Failure>), Failure> {
        let stdin = if input.is_some() { Stdin::Open } else { Stdin::Closed };
        let mut process = self.start(agent, arguments, stdin).await?;
        let mut stdin = process.stdin();
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let status = process.take_status();
        let complaint = async { Ok(read_start(stderr, LONGEST_COMPLAINT).await) };
        let answer = async { tokio::try_join!(read(stdout, LONGEST_ANSWER), complaint) };
        // A command that ends before it has read all says why on stderr; what is left is written nowhere.
        let feed = async {
            if let (Some(stdin), Some(input)) = (&mut stdin, input) {
                let _ = stdin.write_all(input).await;
            }
            std::future::pending::<Infallible>().await
        };
        let mut answer = pin!(answer);
        let mut ended = pin!(ended(status));
        let ((answer, complaint), status) = tokio::select! {
            biased;
            answer = &mut answer => (answer?, ended.await?),
            status = &mut ended => {
                let status = status?;
                (answer.await?, status)
            }
            never = feed => match never {},
        };
        Ok((answer, finish(&status, &complaint)))
    }

    fn refusal(&self, error: &Error) -> Failure {
        let status = match error {
            Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => status.as_u16(),
            Error::Api(status) => status.code,
            error => return Failure::Connection(printable(&chain(error)).into_owned()),
        };
        match status {
            401 => Failure::Unauthorized,
            403 => Failure::Forbidden(self.namespace.clone()),
            404 => Failure::Gone,
            other => Failure::Refused(other),
        }
    }
}

async fn within<T>(
    deadline: Option<Duration>,
    run: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match deadline {
        None => run.await,
        Some(deadline) => {
            tokio::time::timeout(deadline, run).await.unwrap_or(Err(Failure::TimedOut(deadline)))
        }
    }
}

/// Waits for the end of the command. Of a connection that breaks the client closes neither stream: its end
/// is known from here alone.
///
/// # Errors
///
/// When the connection has ended without the end of the command: an answer without its end is none.
pub(super) async fn ended(status: Option<impl Future<Output = Option<Status>>>) -> Result<Status, Failure> {
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    status.ok_or_else(|| Failure::Connection("it ended before the answer was complete".into()))
}

/// Whether the command succeeded.
pub(super) fn finish(status: &Status, complaint: &[u8]) -> Result<(), Failure> {
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(complaint);
    let mut lines = complaint.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines.clone().find_map(|line| line.strip_prefix("error: "));
    let line = error.or_else(|| lines.next_back());
    let message = line.or(status.message.as_deref()).unwrap_or("it failed without a word");
    Err(Failure::Failed(printable(message).into_owned()))
}

async fn read(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let Some(stream) = stream else { return Ok(bytes) };
    let read = stream.take(limit as u64 + 1).read_to_end(&mut bytes).await;
    match read {
        Ok(_) if bytes.len() > limit => Err(Failure::TooLong(limit)),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::Connection(printable(&error.to_string()).into_owned())),
    }
}

/// The first bytes; the rest is read and forgotten, so that the command can go on.
async fn read_start(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream
        && (&mut stream).take(limit as u64).read_to_end(&mut bytes).await.is_ok()
    {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    bytes
}
