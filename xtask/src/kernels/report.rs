//! The results on each kernel: a line for each part, and a table of the kernel's features and podgate's
//! fallbacks.

use std::{collections::BTreeMap, fmt};

use super::{
    catalogue::{KernelFeatures, TestedKernel},
    inside::{ConsoleLine, Part},
    parts::NETKIT,
};
use crate::{
    screen::{Cell, mark},
    test::programs::Count,
};

/// One kernel's.
#[derive(Debug)]
pub(super) struct KernelReport {
    kernel: &'static TestedKernel,
    parts: Vec<PartReport>,
    /// Of the part that runs.
    running: Option<usize>,
    found: Option<KernelFeatures>,
    /// How many instructions the verifier has walked over, by program: the most.
    verified: BTreeMap<String, u32>,
    /// The reason why the run did not finish.
    broken: Option<String>,
}

/// One part's.
#[derive(Debug)]
pub(super) struct PartReport {
    pub(super) name: String,
    so_far: PartOutcome,
    /// Once it has come to its end.
    pub(super) outcome: Option<PartOutcome>,
}

/// How a part ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PartOutcome {
    count: Count,
    ran_badly: bool,
    /// A test program ran no test at all.
    has_empty_run: bool,
}

impl PartOutcome {
    pub(super) fn is_good(&self) -> bool {
        !self.ran_badly && !self.has_empty_run && self.count.failed == 0
    }
}

impl fmt::Display for PartOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count: Count { passed, failed, ignored }, ran_badly, has_empty_run } = *self;
        match (passed + failed + ignored, ran_badly) {
            (0, false) => f.write_str("as it must be")?,
            (0, true) => f.write_str("not as it must be")?,
            _ => write!(f, "{passed} passed, {failed} failed")?,
        }
        if ignored > 0 {
            write!(f, ", {ignored} ignored")?;
        }
        if has_empty_run {
            f.write_str(", a program ran no test")?;
        }
        Ok(())
    }
}

impl KernelReport {
    pub(super) fn new(kernel: &'static TestedKernel, parts: &[Part]) -> Self {
        let part = |part: &Part| PartReport {
            name: part.name.clone(),
            so_far: PartOutcome::default(),
            outcome: None,
        };
        let parts = parts.iter().map(part).collect();
        Self { kernel, parts, running: None, found: None, verified: BTreeMap::new(), broken: None }
    }

    /// Of one that was not tried, or not to its end.
    pub(super) fn broken(kernel: &'static TestedKernel, error: &anyhow::Error) -> Self {
        Self { broken: Some(format!("{error:#}")), ..Self::new(kernel, &[]) }
    }

    /// Notes what a line says; the part that ends with it.
    pub(super) fn hear(&mut self, line: &str) -> Option<&PartReport> {
        match ConsoleLine::of_line(line) {
            Some(ConsoleLine::Begin(name)) => {
                self.running = self.parts.iter().position(|part| part.name == name);
            }
            Some(ConsoleLine::Ran(well)) => self.running()?.so_far.ran_badly |= !well,
            Some(ConsoleLine::End(_)) => {
                let running = self.running.take()?;
                let part = self.parts.get_mut(running)?;
                part.outcome = Some(part.so_far);
                return self.parts.get(running);
            }
            None => self.hear_test(line),
        }
        None
    }

    fn hear_test(&mut self, line: &str) {
        if let Some(count) = Count::from_line(line)
            && let Some(part) = self.running()
        {
            let Count { passed, failed, ignored } = count;
            part.so_far.count.passed += passed;
            part.so_far.count.failed += failed;
            part.so_far.count.ignored += ignored;
            part.so_far.has_empty_run |= passed + failed + ignored == 0;
        }
        if let Some(found) = abilities(line) {
            self.found = Some(found);
        }
        if let Some((name, count)) = verified(line) {
            let most = self.verified.entry(name.to_owned()).or_default();
            *most = count.max(*most);
        }
    }

    fn running(&mut self) -> Option<&mut PartReport> {
        self.parts.get_mut(self.running?)
    }

    /// What was found, with netkit, of which its tests say whether it is there.
    fn found(&self) -> Option<KernelFeatures> {
        let netkit = self.parts.iter().find(|part| part.name == NETKIT)?.outcome?;
        Some(KernelFeatures { netkit: netkit.count.passed + netkit.count.failed > 0, ..self.found? })
    }

    /// Whether the features found differ from those expected.
    fn surprise(&self) -> Option<String> {
        let (expected, found) = (self.kernel.expected?, self.found()?);
        (expected != found).then(|| format!("expected was {expected:?}, found was {found:?}"))
    }

    pub(super) fn is_good(&self) -> bool {
        let part_is_good = |part: &PartReport| part.outcome.is_some_and(|outcome| outcome.is_good());
        self.broken.is_none() && self.surprise().is_none() && self.parts.iter().all(part_is_good)
    }

    /// A line for each part.
    pub(super) fn lines(&self) -> String {
        let name = self.kernel.name;
        let mut text = String::from("\n");
        for PartReport { name: part, outcome, .. } in &self.parts {
            let outcome_text =
                outcome.map_or("did not come to its end".to_owned(), |outcome| outcome.to_string());
            let good = outcome.is_some_and(|outcome| outcome.is_good());
            text += &format!("{} {name} {part}: {outcome_text}\n", mark(good));
        }
        for problem in self.surprise().iter().chain(&self.broken) {
            text += &format!("{} {name}: {problem}\n", mark(false));
        }
        text
    }

    fn row(&self) -> Vec<Cell> {
        let tests: usize =
            self.parts.iter().filter_map(|part| part.outcome).map(|outcome| outcome.count.passed).sum();
        let mut row: Vec<Cell> = vec![self.kernel.name.into(), mark(self.is_good())];
        if !self.kernel.is_supported {
            row.push("refused, by check and by the agent".into());
            return row;
        }
        row.push(tests.to_string().into());
        let Some(found) = self.found() else { return row };
        let KernelFeatures { tcx, tracking, hooks, names, netkit, barriers } = found;
        row.extend(
            [
                if tcx { "TCX" } else { "clsact" },
                if tracking { "read" } else { "not read" },
                if hooks { "one for both" } else { "one each" },
                if names { "read" } else { "not read" },
                if netkit { "yes" } else { "no" },
                if barriers { "yes" } else { "no" },
            ]
            .map(Cell::from),
        );
        row.push(self.verified.values().max().map_or_else(String::new, u32::to_string).into());
        row
    }
}

const TITLES: [&str; 10] = [
    "KERNEL",
    "",
    "TESTS",
    "HOOKS",
    "CONNTRACK",
    "PROGRAMS OF A VETH",
    "NAMES",
    "NETKIT",
    "BARRIERS",
    "VERIFIED",
];

/// The table of all kernels: features and fallbacks.
pub(super) fn table(reports: &[KernelReport]) -> String {
    let titles = TITLES.map(|title| Cell::new(title, crate::screen::Tone::Title)).to_vec();
    let rows: Vec<_> = [titles].into_iter().chain(reports.iter().map(KernelReport::row)).collect();
    crate::screen::table(&rows)
}

/// From the line that the tests of loading print: `kernel: tcx=true tracking=false …`.
fn abilities(line: &str) -> Option<KernelFeatures> {
    // The name of the test may stand before it.
    let words: BTreeMap<&str, bool> = line
        .split_once("kernel: ")?
        .1
        .split(' ')
        .map(|word| word.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?))))
        .collect::<Option<_>>()?;
    let has = |name: &str| words.get(name).copied();
    Some(KernelFeatures {
        tcx: has("tcx")?,
        tracking: has("tracking")?,
        hooks: has("hooks")?,
        names: has("names")?,
        netkit: false,
        barriers: has("barriers")?,
    })
}

/// From `from_pod: 61000 instructions verified, …`.
fn verified(line: &str) -> Option<(&str, u32)> {
    let (name, rest) = line.split_once(": ")?;
    let count = rest.split_once(" instructions verified")?.0.parse().ok()?;
    Some((name.rsplit(' ').next().unwrap_or(name), count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::catalogue::KERNELS;

    fn kernel(name: &str) -> &'static TestedKernel {
        KERNELS.iter().find(|kernel| kernel.name == name).expect("in the catalogue")
    }

    fn report(kernel: &'static TestedKernel, lines: &[&str]) -> KernelReport {
        let part = |name: &str| Part { name: name.to_owned(), runs: Vec::new() };
        let mut report = KernelReport::new(kernel, &[part("programs"), part(NETKIT)]);
        for line in lines {
            report.hear(line);
        }
        report
    }

    const BEGIN: &str = "## kernels: begin programs";
    const FACTS: &str =
        "test loading::of ... kernel: tcx=false tracking=false hooks=false names=true barriers=false";
    const PASSED: &str = "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
    const WELL: &str = "## kernels: ran well";
    const END: &str = "## kernels: end programs";
    const NO_NETKIT: [&str; 4] = [
        "## kernels: begin netkit",
        "test result: ok. 0 passed; 0 failed; 8 ignored; 0 measured; 0 filtered out",
        WELL,
        "## kernels: end netkit",
    ];

    #[test]
    fn a_kernel_is_good_when_each_part_came_to_a_good_end_and_it_has_what_it_should() {
        let all = [&[BEGIN, FACTS, PASSED, WELL, END][..], &NO_NETKIT].concat();
        let good = report(kernel("6.1-amd64"), &all);
        assert!(good.is_good(), "{}", good.lines());
        assert_eq!(
            good.lines(),
            "\n✓ 6.1-amd64 programs: 4 passed, 0 failed\n✓ 6.1-amd64 netkit: 0 passed, 0 failed, 8 ignored\n"
        );
        let failed = PASSED.replace("0 failed", "1 failed");
        let nothing = PASSED.replace("4 passed", "0 passed");
        for (what, lines) in [
            ("a part that has no end", vec![BEGIN, FACTS, PASSED, WELL]),
            ("a failed test", vec![BEGIN, FACTS, &failed, WELL, END]),
            ("a program that ran no test", vec![BEGIN, FACTS, &nothing, WELL, END]),
            ("a program that ended badly", vec![BEGIN, FACTS, PASSED, "## kernels: ran badly", END]),
        ] {
            assert!(!report(kernel("6.1-amd64"), &[&lines[..], &NO_NETKIT].concat()).is_good(), "{what}");
        }
        // A fallback that no one expects.
        let newer = report(kernel("6.12-amd64"), &all);
        assert!(!newer.is_good() && newer.lines().contains("expected was"), "{}", newer.lines());
    }

    #[test]
    fn the_most_instructions_of_each_program_are_kept() {
        let lines = [
            BEGIN,
            "test loading::of_few ... from_pod: 61000 instructions verified, 9 bytes",
            "from_pod: 62000 instructions verified, 9 bytes",
            "from_pod: 60000 instructions verified, 9 bytes",
        ];
        assert_eq!(report(kernel("6.1-amd64"), &lines).verified["from_pod"], 62_000);
    }
}
