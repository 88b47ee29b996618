//! The lines of a suite's output that name a test and its outcome.

/// Who writes the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `go test -v=test2json`: a test is a subtest of the only test.
    Go,
    /// `ginkgo -v` without colours.
    Ginkgo,
}

/// A test that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// As the suite writes it.
    pub(super) seconds: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// By the suite itself, as its log says.
    LeftOut,
}

/// Reads one output, line by line.
#[derive(Debug)]
pub(super) struct Reader {
    format: Format,
    /// Ginkgo: the name of the spec that runs; empty right after the line above it.
    name: Option<String>,
}

/// What ginkgo writes between specs.
const RULE: &str = "------------------------------";

/// What Go writes before a line of its own.
const MARK: char = '\u{16}';

impl Reader {
    pub(super) fn new(format: Format) -> Self {
        Self { format, name: None }
    }

    /// The test that ends with this line.
    pub(super) fn read(&mut self, line: &str) -> Option<Test> {
        match self.format {
            Format::Go => go(line),
            Format::Ginkgo => self.ginkgo(line),
        }
    }

    fn ginkgo(&mut self, line: &str) -> Option<Test> {
        if line == RULE {
            self.name = Some(String::new());
            return None;
        }
        let Some(end) = line.strip_prefix("• [").or_else(|| line.strip_prefix("S [")) else {
            // Lines of `BeforeSuite` and the like are no specs.
            if let Some(name) = self.name.as_mut().filter(|name| name.is_empty()) {
                without_labels(line.trim()).clone_into(name);
            }
            return None;
        };
        let outcome = match line.strip_prefix("S [") {
            Some(_) => Outcome::LeftOut,
            None if end.starts_with(|first: char| first.is_ascii_digit()) => Outcome::Passed,
            None => Outcome::Failed,
        };
        let seconds = line.rsplit_once('[')?.1.split_once(" seconds")?.0.to_owned();
        Some(Test { name: self.name.take()?, outcome, seconds })
    }
}

/// Ginkgo lists the labels of a spec behind its name, which has most of them itself.
fn without_labels(spec: &str) -> &str {
    spec.strip_suffix(']').and_then(|spec| spec.rsplit_once(" [")).map_or(spec, |(name, _)| name)
}

fn go(line: &str) -> Option<Test> {
    let (outcome, rest) = line.trim_start_matches([' ', MARK]).strip_prefix("--- ")?.split_once(": ")?;
    let (path, seconds) = rest.split_once(" (")?;
    let (_, name) = path.split_once('/')?;
    if name.contains('/') {
        return None;
    }
    let outcome = match outcome {
        "PASS" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::LeftOut,
        _ => return None,
    };
    Some(Test { name: name.to_owned(), outcome, seconds: seconds.strip_suffix("s)")?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(format: Format, output: &str) -> Vec<(String, Outcome, String)> {
        let mut reader = Reader::new(format);
        let tests = output.lines().filter_map(|line| reader.read(line));
        tests.map(|test| (test.name, test.outcome, test.seconds)).collect()
    }

    #[test]
    fn go_says_outcomes_of_subtests_and_of_their_steps() {
        let output = "=== RUN   TestAll/Gress\n    helper.go:12: --- not this\n\u{16}--- FAIL: TestAll/Gress/step (1.00s)\n\
                      \u{16}--- PASS: TestAll/Gress (12.30s)\n    --- FAIL: TestAll/TCP (0.10s)\n    \
                      --- SKIP: TestAll/Ports (0.00s)\n--- FAIL: TestAll (20.00s)\nFAIL\n";
        let expected = [
            ("Gress", Outcome::Passed, "12.30"),
            ("TCP", Outcome::Failed, "0.10"),
            ("Ports", Outcome::LeftOut, "0.00"),
        ];
        let expected =
            expected.map(|(name, outcome, seconds)| (name.to_owned(), outcome, seconds.to_owned()));
        assert_eq!(all(Format::Go, output), expected);
    }

    #[test]
    fn ginkgo_names_a_spec_first_and_its_outcome_last() {
        let output = "------------------------------\nNetpol denies all [LinuxOnly] [a, b]\nfile.go:117\n  STEP: ask\n• [32.1 seconds]\n\
                      ------------------------------\nNetpol allows\n• [FAILED] [1.5 seconds]\nNetpol allows [It]\n\
                      ------------------------------\nNetpol speaks SCTP\nS [SKIPPED] [0.002 seconds]\n";
        let expected = [
            ("Netpol denies all [LinuxOnly]", Outcome::Passed, "32.1"),
            ("Netpol allows", Outcome::Failed, "1.5"),
            ("Netpol speaks SCTP", Outcome::LeftOut, "0.002"),
        ];
        let expected =
            expected.map(|(name, outcome, seconds)| (name.to_owned(), outcome, seconds.to_owned()));
        assert_eq!(all(Format::Ginkgo, output), expected);
    }
}
