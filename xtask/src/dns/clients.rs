//! Clients in a pod, and the counts of their connections.

use std::{
    ops::AddAssign,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::programs::Programs;
use crate::lab::Place;

/// A way to look names up.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) name: &'static str,
    program: PathBuf,
    /// Behind family, first name and count.
    options: &'static [&'static str],
    /// Connections for each name.
    connections: u32,
}

/// Counts of connections by how they came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connections {
    /// With their first packet.
    pub(super) at_once: u32,
    /// With a later one.
    pub(super) late: u32,
    /// Not at all, or no answer came.
    pub(super) failed: u32,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Client {
    /// One for each library, and a cache that keeps answers for longer than they count.
    pub(super) fn all(programs: &Programs) -> [Self; 5] {
        let client = |name, program: &Path, options, connections| Self {
            name,
            program: program.to_owned(),
            options,
            connections,
        };
        [
            client("glibc", &programs.glibc, &[], 1),
            client("musl", &programs.musl, &[], 1),
            client("c-ares", &programs.c_ares, &[], 1),
            client("Go", &programs.go, &["4", "0"], 1),
            // One second is the time to live.
            client("cache", &programs.go, &["4", "5"], 2),
        ]
    }

    /// One that looks many names up at a time.
    pub(super) fn many(programs: &Programs) -> Self {
        Self { name: "Go", program: programs.go.clone(), options: &["16", "0"], connections: 1 }
    }

    /// A client that looks nothing up, and connects to the addresses of names.
    pub(super) fn blind(programs: &Programs) -> Self {
        Self { name: "blind", program: programs.go.clone(), options: &["100", "0", "blind"], connections: 1 }
    }

    /// Looks up `count` names from number `first` on, by the resolver that the file names, and connects to
    /// each at once.
    pub(super) fn run(
        &self,
        place: &Place,
        resolver: &Path,
        family: Family,
        first: u32,
        count: u32,
    ) -> Result<Connections> {
        // The C library reads its resolver from one file only.
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let mut command = place.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(resolver);
        command.arg(&self.program).arg(family.number());
        command.args([first, count].map(|number| number.to_string())).args(self.options);
        let output = command.output().with_context(|| format!("starting {command:?}"))?;
        let (text, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {}\n{}", self.name, output.status, complaint.trim());
        let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
        let numbers: [u32; 3] =
            numbers.ok().and_then(|numbers| numbers.try_into().ok()).with_context(|| format!("{text:?}"))?;
        let [at_once, late, failed] = numbers;
        let made = Connections { at_once, late, failed };
        ensure!(made.sum() == count * self.connections, "{}: {made:?} of {count}", self.name);
        Ok(made)
    }
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    const fn number(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
        }
    }
}

impl Connections {
    pub(super) const fn sum(&self) -> u32 {
        self.at_once + self.late + self.failed
    }
}

impl AddAssign for Connections {
    fn add_assign(&mut self, other: Self) {
        self.at_once += other.at_once;
        self.late += other.late;
        self.failed += other.failed;
    }
}
