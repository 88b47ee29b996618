//! Descriptors of inotify and netlink, waited for by tokio.

use std::io;

use inotify::Inotify;
use netlink_sys::Socket;
use tokio::io::{Interest, unix::AsyncFd};

/// Must be called within a tokio runtime.
///
/// # Errors
/// When the runtime cannot wait for the descriptor.
pub fn watch_inotify(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    // SAFETY: Inotify owns its descriptor, never replaces it, and is owned by the AsyncFd until both are
    // dropped.
    unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }.map_err(io::Error::from)
}

/// Must be called within a tokio runtime.
pub(crate) fn watch_socket(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor, never replaces it, and is owned by the AsyncFd until both are
    // dropped.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}
