//! Figures: what was measured, its goal, and whether it was met; and what the process and its maps take.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Prints figures of one cluster.
pub(crate) struct Figures {
    pub(crate) variant: String,
}

impl Figures {
    /// A figure with its quartiles. `goal`: not more than this.
    pub(crate) fn print(&self, name: &str, unit: &str, mut samples: Vec<f64>, goal: Option<f64>) {
        samples.sort_by(f64::total_cmp);
        let [q1, median, q3] = [25, 50, 75].map(|percent| percentile(&samples, percent));
        self.line(name, unit, median, [q1, q3], goal);
    }

    /// One of the samples, that so many percent do not exceed.
    pub(crate) fn print_percentile(
        &self,
        name: &str,
        unit: &str,
        percent: usize,
        samples: &[f64],
        goal: Option<f64>,
    ) {
        let mut samples = samples.to_vec();
        samples.sort_by(f64::total_cmp);
        let value = percentile(&samples, percent);
        self.line(name, unit, value, [value; 2], goal);
    }

    pub(crate) fn print_one(&self, name: &str, unit: &str, value: f64, goal: Option<f64>) {
        self.line(name, unit, value, [value; 2], goal);
    }

    fn line(&self, name: &str, unit: &str, median: f64, quartiles: [f64; 2], goal: Option<f64>) {
        let rounded = |value: f64| (value * 1_000.0).round() / 1_000.0;
        let figure: Value = json!({
            "name": name,
            "variant": self.variant,
            "unit": unit,
            "median": rounded(median),
            "quartiles": quartiles.map(rounded),
            "control": null,
            "goal": goal,
            "met": goal.map(|goal| median <= goal),
        });
        println!("{figure}");
    }
}

/// Of sorted samples.
fn percentile(samples: &[f64], percent: usize) -> f64 {
    let place = (samples.len() * percent).div_ceil(100).saturating_sub(1);
    samples.get(place).copied().unwrap_or(f64::NAN)
}

/// What this thread has used of a CPU.
pub(crate) fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the struct, which lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every thread has this clock");
    let seconds = u64::try_from(time.tv_sec).expect("no CPU time is negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// Bytes that are allocated.
pub(crate) fn allocated() -> usize {
    // SAFETY: has no arguments and only reads.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Resident memory and its peak, in MiB.
pub(crate) fn resident() -> Result<[f64; 2]> {
    let status = fs::read_to_string("/proc/self/status").context("the status of this process")?;
    let of = |field: &str| -> Result<f64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(field)).context("a field of the status")?;
        let kib: f64 = line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse().context("KiB")?;
        Ok(kib / 1_024.0)
    };
    Ok([of("VmRSS")?, of("VmHWM")?])
}
