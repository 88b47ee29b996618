//! Who one is, who is at the other end of a socket, and what one may do to files: calls that the standard
//! library lacks.

use std::{
    ffi::CString,
    io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    path::Path,
};

/// The user whose rights this thread has.
pub fn effective_user() -> u32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// The user who listens, or has connected, at the other end.
///
/// # Errors
///
/// When the kernel does not say it.
pub fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = u32::try_from(size_of_val(&peer)).expect("three numbers");
    // SAFETY: a valid descriptor, and room for the answer of this size.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// Whether files may be made, renamed and removed in a directory.
///
/// # Errors
///
/// When they may not, or the kernel cannot say it.
pub fn may_change(directory: &Path) -> io::Result<()> {
    let name = CString::new(directory.as_os_str().as_bytes())?;
    let wanted = libc::W_OK | libc::X_OK;
    // SAFETY: a string that ends in NUL and lives through the call.
    let result = unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), wanted, libc::AT_EACCESS) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Exchanges two files of one file system in one step.
///
/// # Errors
///
/// When the file system cannot do that (EINVAL), the kernel cannot (ENOSYS), or one of them is not there.
pub fn exchange_files(first: &Path, second: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (first, second) = (name(first)?, name(second)?);
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both strings end in NUL and live through the call. Not by the C library, which may lack it.
    let result =
        unsafe { libc::syscall(libc::SYS_renameat2, here, first.as_ptr(), here, second.as_ptr(), flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{Permissions, set_permissions},
        os::unix::{fs::PermissionsExt as _, net::UnixListener},
        thread,
    };

    use super::*;

    const OTHER: u32 = 65_534;

    /// Runs it as another user, who may do nothing that root may.
    fn as_another<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let acting = scope.spawn(|| {
                // SAFETY: takes plain numbers; past the C library it concerns this thread alone.
                assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, -1, OTHER, -1) }, 0, "needs root");
                act()
            });
            acting.join().unwrap()
        })
    }

    #[test]
    fn another_user_is_told_from_ones_own() {
        let directory = tempfile::tempdir().unwrap();
        set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let path = |name: &str| directory.path().join(name);
        let _listeners = [
            UnixListener::bind(path("own")).unwrap(),
            as_another(|| UnixListener::bind(path("other")).unwrap()),
        ];
        let user = |name: &str| peer_user(&UnixStream::connect(path(name)).unwrap()).unwrap();
        assert_eq!((user("own"), user("other")), (effective_user(), OTHER));
        assert_eq!(as_another(effective_user), OTHER);
    }

    #[test]
    fn files_can_be_changed_where_their_directory_can_be_written() {
        let directory = tempfile::tempdir().unwrap();
        set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        may_change(directory.path()).unwrap();
        let refused = as_another(|| may_change(directory.path())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    }
}
