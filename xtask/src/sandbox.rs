//! A place where networks can be made and nothing stays behind.
//!
//! In: a single-threaded process of root. Out: a forked copy of it that runs `body` in mount, network and
//! process namespaces of its own, with a private `/run`, its own bpffs, and a `/proc` and `/sys` that fit.
//! When that copy ends, by return, panic, Ctrl-C or `kill -9` of either process, the kernel takes away every
//! process, interface, pin and mount that was made inside. The machine's own network namespace is never
//! entered again. Left out: cgroups, users and host names stay the machine's.

use std::{fs, io, process};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, geteuid},
};

/// Proof that this process is inside a sandbox; whatever makes networks asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox(());

/// Runs `body` in a sandbox and hands back its exit code. A signal that ends the sandbox gives 128 + its
/// number.
///
/// Errors: not root, other threads are running already, or the kernel refuses a namespace or a mount.
pub fn enter(body: impl FnOnce(Sandbox) -> u8) -> Result<u8> {
    isolate(settle, || body(Sandbox(())))
}

/// The same with other namespaces than that of processes, which `settle` makes, and its mounts.
pub(crate) fn isolate(settle: impl FnOnce() -> Result<()>, body: impl FnOnce() -> u8) -> Result<u8> {
    ensure!(geteuid().is_root(), "a sandbox needs root");
    let threads = fs::read_dir("/proc/self/task").context("counting threads")?.count();
    ensure!(threads == 1, "a sandbox must be entered before threads start; {threads} are running");

    let (lifeline, outside_end) = io::pipe().context("making the lifeline pipe")?;
    // Blocked before the fork, so that no signal is lost between the fork and the wait.
    let watched = watched_signals();
    let before =
        watched.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).context("blocking signals")?;
    // Only children enter the new process namespace: the first one is its init, and everything dies with it.
    unshare(CloneFlags::CLONE_NEWPID).context("unshare(CLONE_NEWPID)")?;

    // SAFETY: this process has one thread (checked above), so the copy holds no lock that a lost thread
    // owned.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Parent { child } => {
            drop(lifeline);
            let code = wait_for(child, &watched);
            drop(outside_end);
            code
        }
        ForkResult::Child => {
            drop(outside_end);
            let entered = before
                .thread_set_mask()
                .context("restoring the signal mask")
                .and_then(|()| die_with_parent(&lifeline))
                .and_then(|()| settle());
            if let Err(error) = entered {
                eprintln!("error: sandbox: {error:#}");
                process::exit(1);
            }
            process::exit(i32::from(body()))
        }
    }
}

/// Signals that end the sandbox when the parent gets them, and the one that says it ended by itself.
///
/// The child is the init of its process namespace: the kernel drops signals that it has no handler for, so a
/// Ctrl-C from the terminal must be turned into SIGKILL from here.
fn watched_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD].into_iter().collect()
}

fn wait_for(child: Pid, watched: &SigSet) -> Result<u8> {
    loop {
        match watched.wait().context("sigwait")? {
            Signal::SIGCHLD => match waitpid(child, Some(WaitPidFlag::WNOHANG)).context("waitpid")? {
                WaitStatus::Exited(_, code) => return u8::try_from(code).context("exit code"),
                WaitStatus::Signaled(_, signal, _) => return Ok(exit_code(signal)),
                _ => {}
            },
            signal => {
                match kill(child, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => bail!("ending the sandbox: {error}"),
                }
                waitpid(child, None).context("waitpid")?;
                return Ok(exit_code(signal));
            }
        }
    }
}

/// 128 + signal number, as shells report it.
fn exit_code(signal: Signal) -> u8 {
    u8::try_from(signal as i32 + 128).expect("signal numbers are below 65")
}

fn die_with_parent(lifeline: &io::PipeReader) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    // A parent that died before the prctl sends no signal, but its end of the pipe is closed.
    use std::os::fd::AsFd;
    let mut ends = [PollFd::new(lifeline.as_fd(), PollFlags::empty())];
    poll(&mut ends, PollTimeout::ZERO).context("poll")?;
    ensure!(ends[0].revents() == Some(PollFlags::empty()), "the parent is gone");
    Ok(())
}

fn settle() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("unshare(CLONE_NEWNS|CLONE_NEWNET)")?;
    mount_own()
}

/// Makes the mounts of this mount namespace private, and mounts what fits the others.
pub(crate) fn mount_own() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making mounts private")?;
    // A sysfs shows the network namespace of the process that mounts it, a procfs its process namespace.
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf"), ("tmpfs", "/run")] {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("mounting {kind} on {target}"))?;
    }
    Ok(())
}
