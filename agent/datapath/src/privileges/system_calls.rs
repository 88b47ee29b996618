//! The system calls of a running agent; the kernel refuses all others (seccomp(2)).
//!
//! What is missing here is answered as a kernel does that has no such call: libraries fall back then, as from
//! `clone3`, whose flags no filter can see, to `clone`. What a container run-time filters besides stays
//! filtered: the strictest answer counts.

use std::{collections::BTreeMap, env::consts::ARCH, io};

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Memory, threads, signals, clocks, and who one is.
const PROCESS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_prctl,
    libc::SYS_prlimit64,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Files that are read, the deny log that is written, and the agent's pins and socket.
const FILES: &[i64] = &[
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Sockets, waiting for them, and BPF.
const NETWORK: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
];

/// Older forms of those above, which other architectures have never had.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// The flags of `clone` that make a new namespace of any kind.
const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Requests that type into the terminal from which the agent was started: TIOCSTI and TIOCLINUX
/// (ioctl_tty(2)).
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// What the agent talks by.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Restricts this thread, and those that it starts, to the system calls of a running agent. A kernel or
/// architecture without such filters is a warning.
pub(super) fn restrict() -> Result<()> {
    let Ok(architecture) = TargetArch::try_from(ARCH) else {
        tracing::warn!("no system calls are filtered on {ARCH}");
        return Ok(());
    };
    match seccompiler::apply_filter(&program(architecture)?) {
        Err(seccompiler::Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) =>
        {
            tracing::warn!("this kernel filters no system calls (CONFIG_SECCOMP_FILTER)");
            Ok(())
        }
        applied => applied.map_err(io::Error::other).context("cannot filter system calls"),
    }
}

fn program(architecture: TargetArch) -> Result<BpfProgram> {
    let flags = SeccompCmpOp::MaskedEq(u64::from(NEW_NAMESPACES.cast_unsigned()));
    let threads = vec![SeccompRule::new(vec![SeccompCondition::new(0, Dword, flags, 0)?])?];
    let families = FAMILIES.map(|family| {
        let family = SeccompCondition::new(0, Dword, SeccompCmpOp::Eq, u64::from(family.cast_unsigned()))?;
        SeccompRule::new(vec![family])
    });
    let families = families.into_iter().collect::<Result<_, _>>()?;
    // SAFETY: has no arguments and cannot fail.
    let own = u64::from(unsafe { libc::getpid() }.cast_unsigned());
    let signals = vec![SeccompRule::new(vec![SeccompCondition::new(0, Dword, SeccompCmpOp::Eq, own)?])?];
    let no_input = TERMINAL_INPUT
        .map(|request| SeccompCondition::new(1, Dword, SeccompCmpOp::Ne, request))
        .into_iter()
        .collect::<Result<_, _>>()?;
    let devices = vec![SeccompRule::new(no_input)?];
    let unconditional = [PROCESS, FILES, NETWORK, OLD].concat().into_iter().map(|call| (call, Vec::new()));
    let conditional = [
        (libc::SYS_clone, threads),
        (libc::SYS_ioctl, devices),
        (libc::SYS_socket, families),
        (libc::SYS_tgkill, signals),
    ];
    let rules: BTreeMap<i64, Vec<SeccompRule>> = unconditional.chain(conditional).collect();
    let refused = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    Ok(SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::UdpSocket, os::fd::AsRawFd as _, process::Command, thread};

    use super::*;

    #[test]
    fn a_restricted_thread_reads_talks_and_starts_threads_and_can_do_nothing_else() {
        let ran = thread::spawn(move || {
            restrict().unwrap();
            let file = File::open("/proc/thread-self/ns/net").unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            assert!(Command::new("true").status().is_err());
            let calls = [
                ("setns", libc::SYS_setns, file.as_raw_fd(), libc::CLONE_NEWNET),
                ("unshare", libc::SYS_unshare, 0, 0),
                ("clone", libc::SYS_clone, libc::CLONE_NEWNET | libc::CLONE_SIGHAND, 0),
                ("clone3", libc::SYS_clone3, 0, 0),
                ("execve", libc::SYS_execve, 0, 0),
                ("ptrace", libc::SYS_ptrace, libc::c_int::MAX, 0),
                ("mount", libc::SYS_mount, 0, 0),
                ("open_by_handle_at", libc::SYS_open_by_handle_at, -1, 0),
                ("a packet socket", libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW),
                ("init_module", libc::SYS_init_module, 0, 0),
                ("a signal to another process", libc::SYS_tgkill, 1, 1),
                ("input of a terminal", libc::SYS_ioctl, -1, 0x5412),
                ("io_uring_setup", libc::SYS_io_uring_setup, 0, 0),
            ];
            let other = thread::spawn(move || {
                calls.map(|(name, call, first, second)| {
                    // SAFETY: it is refused; where it is not, these arguments change nothing.
                    let result = unsafe { libc::syscall(call, first, second, 0, 0, 0) };
                    (name, result, io::Error::last_os_error().raw_os_error())
                })
            });
            other.join().unwrap()
        });
        for (name, result, error) in ran.join().unwrap() {
            assert_eq!((result, error), (-1, Some(libc::ENOSYS)), "{name}");
        }
        assert!(Command::new("true").status().unwrap().success(), "other threads are as they were");
    }

    #[test]
    fn the_filter_is_made_for_every_architecture_that_podgate_runs_on() {
        for architecture in [TargetArch::x86_64, TargetArch::aarch64] {
            assert!(program(architecture).unwrap().len() > PROCESS.len());
        }
    }
}
