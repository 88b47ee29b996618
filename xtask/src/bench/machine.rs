//! The machine under a benchmark: what a reader must know before comparing two of them.
//!
//! In: /proc, /sys and the kernel's configuration. Out: kernel, CPU, mitigations, HZ and so on, as text; what
//! this machine does not tell is left out. Also here: holding a thread to one CPU.

use std::{collections::BTreeMap, fs, io::Read, thread};

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{UsageWho, getrusage},
        utsname::uname,
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// What the figures were measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) hypervisor: Option<String>,
    /// By vulnerability, those that have one.
    pub(crate) mitigations: BTreeMap<String, String>,
    /// Timer interrupts a second.
    pub(crate) hz: Option<u32>,
    pub(crate) preemption: Option<String>,
    pub(crate) bpf_jit: Option<bool>,
    /// Processes that wanted to run in the minute before.
    pub(crate) load: Option<f64>,
}

impl Machine {
    /// Looks at the machine; before a sandbox, which hides some of it.
    pub(crate) fn probe() -> Result<Self> {
        let name = uname().context("uname")?;
        let release = name.release().to_string_lossy().into_owned();
        let processors = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let config = configuration(&release);
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Ok(Self {
            kernel: format!("Linux {release} {}", name.machine().to_string_lossy()),
            cpu: field(&processors, "model name").unwrap_or("unknown").to_owned(),
            cpus: thread::available_parallelism().context("counting CPUs")?.get(),
            hypervisor: has_flag(&processors, "hypervisor").then(|| "virtual machine".to_owned()),
            mitigations: mitigations(),
            hz: config.as_deref().and_then(hertz),
            preemption: config.as_deref().and_then(preemption).map(str::to_owned),
            bpf_jit: line("/proc/sys/net/core/bpf_jit_enable").map(|value| value != "0"),
            load: line("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        })
    }

    /// Names and values, in the order in which a reader wants them.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("Kernel", self.kernel.clone())];
        let processor = match &self.hypervisor {
            Some(hypervisor) => format!("{} × {} ({hypervisor})", self.cpus, self.cpu),
            None => format!("{} × {}", self.cpus, self.cpu),
        };
        facts.push(("CPU", processor));
        facts.extend(self.hz.map(|hz| ("HZ", hz.to_string())));
        facts.extend(self.preemption.clone().map(|model| ("Preemption", model)));
        let jit = |on| if on { "on" } else { "off" };
        facts.extend(self.bpf_jit.map(|on| ("BPF JIT", jit(on).to_owned())));
        facts.extend(self.load.map(|load| ("Load before", format!("{load:.2}"))));
        let mitigations = self.mitigations.iter().map(|(name, how)| format!("{name}: {how}"));
        let mitigations: Vec<_> = mitigations.collect();
        let none = "none in use".to_owned();
        let mitigations = if mitigations.is_empty() { none } else { mitigations.join("; ") };
        facts.push(("Mitigations", mitigations));
        facts
    }
}

/// Holds this thread, and those that it starts from now on, to the machine's last CPU, before all others of
/// its class. Out: the CPU's number.
///
/// Interrupts of devices are mostly on the first one.
pub(crate) fn claim() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for this thread's CPUs")?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu) == Ok(true));
    let last = last.context("a thread has a CPU")?;
    let mut set = CpuSet::new();
    set.set(last).context("a CPU's number")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("holding a thread to CPU {last}"))?;
    // SAFETY: setpriority(2) takes numbers alone; on Linux 0 is the calling thread.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, HIGHEST) };
    Errno::result(done).context("raising this thread's priority")?;
    Ok(last)
}

/// The nice value of the highest priority (sched(7)).
const HIGHEST: i32 = -20;

/// How many times this thread has left its CPU: another one ran, or it waited.
pub(crate) fn switches() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).context("asking for this thread's usage")?;
    Ok(usage.involuntary_context_switches() + usage.voluntary_context_switches())
}

/// What the kernel was configured with, where it or the distribution tells.
fn configuration(release: &str) -> Option<String> {
    let mut text = String::new();
    let own = fs::File::open("/proc/config.gz").ok();
    match own {
        Some(file) => GzDecoder::new(file).read_to_string(&mut text).ok().map(|_| text),
        None => fs::read_to_string(format!("/boot/config-{release}")).ok(),
    }
}

fn hertz(config: &str) -> Option<u32> {
    config.lines().find_map(|line| line.strip_prefix("CONFIG_HZ=")?.parse().ok())
}

fn preemption(config: &str) -> Option<&'static str> {
    let models = [
        ("CONFIG_PREEMPT_NONE=y", "none"),
        ("CONFIG_PREEMPT_VOLUNTARY=y", "voluntary"),
        ("CONFIG_PREEMPT_LAZY=y", "lazy"),
        ("CONFIG_PREEMPT_RT=y", "real time"),
        ("CONFIG_PREEMPT=y", "full"),
    ];
    models.into_iter().find_map(|(line, model)| config.lines().any(|found| found == line).then_some(model))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then_some(value.trim())
    })
}

fn has_flag(processors: &str, flag: &str) -> bool {
    field(processors, "flags").is_some_and(|flags| flags.split(' ').any(|found| found == flag))
}

fn mitigations() -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return BTreeMap::new() };
    let entries = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let state = fs::read_to_string(entry.path()).ok()?;
        let how = state.trim().strip_prefix("Mitigation: ")?.to_owned();
        Some((entry.file_name().to_string_lossy().into_owned(), how))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# CONFIG_HZ_100 is not set\nCONFIG_HZ_250=y\nCONFIG_HZ=250\nCONFIG_PREEMPT_NONE=y\n\
                          # CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_DYNAMIC=y\n";
    const PROCESSORS: &str =
        "processor\t: 0\nmodel name\t: A Processor @ 2.50GHz\nflags\t\t: fpu hypervisor sse\n";

    #[test]
    fn facts_are_read_from_the_kernels_texts() {
        assert_eq!((hertz(CONFIG), preemption(CONFIG)), (Some(250), Some("none")));
        assert_eq!(field(PROCESSORS, "model name"), Some("A Processor @ 2.50GHz"));
        assert!(has_flag(PROCESSORS, "hypervisor") && !has_flag(PROCESSORS, "hyper"));
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_processor() {
        let machine = Machine::probe().expect("/proc is there");
        assert!(machine.kernel.starts_with("Linux ") && machine.cpus > 0, "{machine:?}");
    }
}
