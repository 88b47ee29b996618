//! Capabilities that only the start of the agent needs (capabilities(7)).
//!
//! CAP_SYS_ADMIN mounts the BPF file system and enters the network namespaces of pods, CAP_PERFMON is for
//! loading the programs and CAP_NET_BROADCAST for opening the socket that hears of all namespaces. Whoever
//! takes over a running agent finds none of them, nor any other that root has by default.

use std::io;

use anyhow::{Context as _, Result, ensure};

/// Bits of a capability set (linux/capability.h).
const DAC_READ_SEARCH: u32 = 2;
const NET_BROADCAST: u32 = 11;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const LAST: u32 = 63;

/// What no agent starts without, and what for.
const REQUIRED: [(u32, &str, &str); 4] = [
    (BPF, "CAP_BPF", "to make maps and load programs"),
    (PERFMON, "CAP_PERFMON", "to load programs that read packets by pointers and the kernel's types"),
    (NET_ADMIN, "CAP_NET_ADMIN", "to attach programs to interfaces"),
    (NET_BROADCAST, "CAP_NET_BROADCAST", "to hear of changes in the network namespaces of pods"),
];

/// CAP_SYS_ADMIN stands for them: it had their part before Linux 5.8.
const OF_SYS_ADMIN: [u32; 2] = [BPF, PERFMON];

/// What a running agent needs: writing maps, and programs at interfaces.
const KEPT: u64 = 1 << NET_ADMIN | 1 << BPF;

/// `_LINUX_CAPABILITY_VERSION_3`: two words for each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// # Errors
///
/// When one is not held that no agent starts without: the error names it.
pub fn required() -> Result<()> {
    let [low, high] = read()?.map(|word| word.effective);
    let held = u64::from(low) | u64::from(high) << 32;
    let has = |capability: u32| held >> capability & 1 != 0;
    for (capability, name, purpose) in REQUIRED {
        let by_another = OF_SYS_ADMIN.contains(&capability) && has(SYS_ADMIN);
        ensure!(has(capability) || by_another, "{name} is not held, {purpose}: run as root or give it");
    }
    Ok(())
}

/// Gives up all capabilities but those that a running agent needs, for this thread and those that it starts;
/// no program that these execute gets them back. `files`: CAP_DAC_READ_SEARCH is kept, if it is held. Where
/// CAP_BPF is not held, CAP_SYS_ADMIN stands for it and stays.
pub(super) fn give_up(files: bool) -> Result<()> {
    let mut words = read()?;
    let [low, high] = words.map(|word| word.permitted);
    let permitted = u64::from(low) | u64::from(high) << 32;
    if permitted >> BPF & 1 == 0 {
        tracing::warn!("CAP_BPF is not held: the agent keeps its other capabilities in its place");
        return Ok(());
    }
    let kept = if files { KEPT | 1 << DAC_READ_SEARCH } else { KEPT };
    // SAFETY: takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot set no_new_privs");
    }
    for capability in (0..=LAST).filter(|capability| kept >> capability & 1 == 0) {
        // Only who holds CAP_SETPCAP may; without it no_new_privs is the bound. Most of these numbers are no
        // capability. SAFETY: takes plain numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    }
    // SAFETY: takes plain numbers.
    if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot clear the ambient capabilities");
    }
    for (word, half) in words.iter_mut().zip([kept, kept >> 32]) {
        let mask = u32::try_from(half & u64::from(u32::MAX)).expect("one half has 32 bits");
        word.effective &= mask;
        word.permitted &= mask;
        word.inheritable = 0;
    }
    let header = Header { version: VERSION, pid: 0 };
    // SAFETY: the header and both words have the kernel's layout (linux/capability.h) and live through the
    // call.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot give up capabilities");
    }
    Ok(())
}

fn read() -> Result<[Word; 2]> {
    let header = Header { version: VERSION, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: room for both words, in the kernel's layout; the header lives through the call.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the capabilities");
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, process::Command, thread};

    use super::*;

    /// The sets of a process or thread, as `/proc` shows them.
    fn sets(status: &str) -> BTreeMap<String, u64> {
        let sets = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
        sets.map(|(name, set)| (name.to_owned(), u64::from_str_radix(set, 16).unwrap())).collect()
    }

    fn own() -> BTreeMap<String, u64> {
        sets(&fs::read_to_string("/proc/thread-self/status").unwrap())
    }

    #[test]
    fn a_thread_gives_up_what_it_does_not_need_and_its_children_get_nothing_back() {
        let before = own();
        if before["Prm"] >> BPF & 1 == 0 {
            let why = "needs root: gives up capabilities";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            eprintln!("skipped, {why}");
            return;
        }
        for (files, kept) in [(false, KEPT), (true, KEPT | 1 << DAC_READ_SEARCH)] {
            let given_up = thread::spawn(move || {
                give_up(files).unwrap();
                let child = thread::spawn(own).join().unwrap();
                let executed = Command::new("cat").arg("/proc/self/status").output().unwrap();
                [own(), child, sets(&String::from_utf8(executed.stdout).unwrap())]
            });
            for (who, sets) in
                ["the thread", "its thread", "its program"].iter().zip(given_up.join().unwrap())
            {
                for name in ["Prm", "Eff", "Bnd"] {
                    assert_eq!(sets[name], before[name] & kept, "{who}: {name}");
                }
                assert_eq!((sets["Inh"], sets["Amb"]), (0, 0), "{who}");
            }
        }
        assert_eq!(own(), before, "other threads keep theirs");
    }
}
