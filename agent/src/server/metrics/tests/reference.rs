//! The page of metrics, `agent/docs/metrics.md`: it is made of an exposition that has samples of each family.
//!
//! After a metric was added or changed, `PODGATE_WRITE_EXPECTED=1` writes the page again.

use std::{env, fmt::Write, fs};

use podgate_common::Outcome;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

const HEAD: &str = "\
# Metrics

<!-- Generated from agent/src/server/metrics.rs. Do not edit: PODGATE_WRITE_EXPECTED=1 cargo test --lib metrics -->

The agent of each node serves these at `/metrics` (`--metrics`, by default `127.0.0.1:9177`), in Prometheus'
text format; [operations](operations.md#metrics) says how to scrape them. Names are a contract: a change is
listed in the [changelog](../../.github/CHANGELOG.md). Labels have few values: `policy` and `pod` name local
ones only, at most 500 series per metric, and the rest is summed up as `(others)`.

| metric | type | labels | meaning |
|---|---|---|---|
";

#[test]
fn the_page_of_metrics_lists_each_family() {
    let page = page(&super::example());
    if env::var_os("PODGATE_WRITE_EXPECTED").is_some() {
        fs::write(PATH, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(PATH).expect("the page");
    assert!(written == page, "{PATH} is out of date: see PODGATE_WRITE_EXPECTED in {}", file!());
}

fn page(exposition: &str) -> String {
    let mut page = HEAD.to_owned();
    let mut put = |line: String| writeln!(page, "{line}").expect("a string takes all");
    for family in exposition.split("# HELP ").skip(1) {
        let (help, rest) = family.split_once("\n# TYPE ").expect("help is followed by a type");
        let (name, help) = help.split_once(' ').expect("a name, then its help");
        let (kind, samples) = rest.split_once('\n').expect("a type is followed by samples");
        let kind = kind.rsplit(' ').next().expect("a name, then its type");
        let sample = samples.lines().next().unwrap_or_else(|| panic!("no sample of {name}"));
        put(format!("| `{name}` | {kind} | {} | {help} |", labels(sample).join(", ")));
    }
    put("\n| `outcome` | packet | meaning |\n|---|---|---|".to_owned());
    for outcome in Outcome::ALL {
        let becomes = if outcome.passes() { "passes" } else { "is dropped" };
        put(format!("| `{outcome}` | {becomes} | {} |", outcome.meaning()));
    }
    page
}

/// The names of a sample's labels; `le` belongs to the format of histograms.
fn labels(sample: &str) -> Vec<String> {
    let names = sample.split("=\"").map(|part| part.rsplit(['{', ',', '"']).next().unwrap_or_default());
    let count = sample.matches("=\"").count();
    names.take(count).filter(|name| *name != "le").map(|name| format!("`{name}`")).collect()
}
