//! The unix socket that verbs ask: one question and one answer for each connection.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixSocket, UnixStream},
    task, time,
};

use super::{Later, Server, connection_limit::ConnectionLimit};
use crate::api::LONGEST_REQUEST;

/// Connections that are served at once.
const MAX_CONNECTIONS: usize = 64;
const BACKLOG: u32 = 64;
/// From the connection to the last byte of the answer. Clients are on this machine, and answers are at hand.
const TIME_FOR_ONE: Duration = Duration::from_secs(2);
/// After an accept that failed for lack of descriptors or memory, which only time gives back.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket. Its file goes with it.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket, for its owner alone (mode 0600), and the directory that it lies in. A file that a
    /// dead agent left behind is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When another agent answers there, or something else than a socket is there.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let at = || format!("socket {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(at)?;
        }
        remove_stale(path).with_context(at)?;
        let socket = UnixSocket::new_stream().with_context(at)?;
        // Linux gives the file the mode of the descriptor (unix_bind_bsd in net/unix/af_unix.c), so that
        // there is no moment at which others may connect.
        let descriptor = File::from(socket.as_fd().try_clone_to_owned().with_context(at)?);
        descriptor.set_permissions(Permissions::from_mode(0o600)).with_context(at)?;
        socket.bind(path).with_context(at)?;
        let listener = socket.listen(BACKLOG).with_context(at)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers for ever. A newcomer takes the place of the oldest connection if there is none.
    pub async fn serve(self, server: Server) -> anyhow::Result<()> {
        let mut connection_limit = ConnectionLimit::new(MAX_CONNECTIONS);
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    connection_limit.serve(connection(stream, server.clone()));
                    // A question that came with the connection is answered before the next connection is
                    // taken.
                    task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "cannot accept a connection");
                    time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "socket file");
        }
    }
}

async fn connection(stream: UnixStream, server: Server) {
    match time::timeout(TIME_FOR_ONE, serve_one(stream, &server)).await {
        Ok(Ok(None)) => {}
        // It has a place of another kind: it needs none here any more.
        Ok(Ok(Some((mut stream, later)))) => {
            task::spawn(async move {
                let done = match later {
                    Later::FlowReplies(flows) => flows.write(stream).await,
                    Later::Trace(trace) => trace.write(stream).await,
                    Later::Pod(wait) => stream.write_all(wait.answer().await.as_bytes()).await,
                };
                if let Err(error) = done {
                    tracing::debug!(%error, "a client that was served for long has gone");
                }
            });
        }
        Ok(Err(error)) => tracing::debug!(%error, "socket client"),
        Err(_) => tracing::debug!(limit = ?TIME_FOR_ONE, "socket client is too slow"),
    }
}

/// Out: what is left to do after the answer.
async fn serve_one(stream: UnixStream, server: &Server) -> io::Result<Option<(UnixStream, Later)>> {
    let mut stream = BufReader::new(stream);
    let mut request = Vec::new();
    let limit = LONGEST_REQUEST as u64;
    (&mut stream).take(limit).read_until(b'\n', &mut request).await?;
    if request.last() != Some(&b'\n') {
        let error =
            if request.len() < LONGEST_REQUEST { "it does not end in a new line" } else { "it is too long" };
        stream.write_all(super::refuse(error).as_bytes()).await?;
        return Ok(None);
    }
    let (answer, later) = server.answer(&request).await;
    stream.write_all(answer.as_bytes()).await?;
    Ok(later.map(|later| (stream.into_inner(), later)))
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !kind.is_socket() {
        bail!("something else is there");
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another agent answers there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}
