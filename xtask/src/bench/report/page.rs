//! The page: one file of HTML that needs nothing else, in light and dark.
//!
//! In: a report. Out: plots first, then goals, the machine, all figures, and what they do not show.

use super::{Findings, Report, plot::Plot};
use crate::bench::figure::{Figure, readable};

const STYLE: &str = include_str!("page.css");

pub(super) fn page(report: &Report) -> String {
    let Report { findings, title, lead, plots } = report;
    let Findings { command, machine, figures, refused, notes, limits, variants: _ } = findings;
    let title = escaped(title);
    let goals: Vec<&Figure> = figures.iter().filter(|figure| figure.goal.is_some()).collect();
    let met = goals.iter().filter(|figure| figure.met == Some(true)).count();
    let facts = machine
        .facts()
        .into_iter()
        .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escaped(&value)));
    let mut body = format!("<h1>{title}</h1><p class=\"lead\">{}</p>", escaped(lead));
    if !refused.is_empty() {
        let lines = refused.iter().map(|refusal| refusal.to_string());
        body += &format!(
            "<div class=\"card refused\"><h3>Refused</h3><p>These measures have no figures: the machine was not quiet \
             enough for them.</p>{}</div>",
            list(lines)
        );
    }
    if !plots.is_empty() {
        body += "<h2>Plots</h2>";
        body.extend(plots.iter().map(drawing));
    }
    body += &format!("<h2>Goals: {met} of {} met</h2>{}", goals.len(), table(goals.into_iter()));
    body += &format!("<h2>The machine</h2><div class=\"card\"><dl>{}</dl></div>", facts.collect::<String>());
    body += &format!(
        "<h2>How it was measured</h2><p><code>{}</code></p>{}",
        escaped(command),
        list(notes.iter().cloned())
    );
    body += &format!("<h2>What it does not show</h2>{}", list(limits.iter().cloned()));
    body += &format!(
        "<h2>All figures</h2><details><summary>{} figures</summary>{}</details>",
        figures.len(),
        table(figures.iter())
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )
}

fn drawing(plot: &Plot) -> String {
    format!("<figure><h3>{}</h3>{}{}</figure>\n", escaped(plot.title()), plot.legend(), plot.svg())
}

fn table<'a>(figures: impl Iterator<Item = &'a Figure>) -> String {
    let mut rows = String::new();
    for figure in figures {
        let Figure { name, variant, policies, place, unit, median, quartiles: [q1, q3], control, goal, met } =
            figure;
        let text = |value: Option<String>| value.map(|text| escaped(&text)).unwrap_or_default();
        let verdict = match met {
            Some(true) => "<span class=\"good\">✓ met</span>",
            Some(false) => "<span class=\"bad\">✗ missed</span>",
            None => "",
        };
        rows += &format!(
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td class=\"n\">{} {}</td>\
             <td class=\"n q\">{} to {}</td><td class=\"n q\">{}</td><td class=\"n\">{}</td><td>{verdict}</td></tr>\n",
            escaped(name),
            escaped(variant),
            text(policies.map(|count| count.to_string())),
            text(place.map(|place| place.to_string())),
            readable(*median),
            escaped(unit),
            readable(*q1),
            readable(*q3),
            text(control.map(|control| format!("{control:+.2} %"))),
            text(goal.map(|goal| goal.to_string())),
        );
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>Figure</th><th>Variant</th><th class=\"n\">Policies</th>\
         <th>Matching</th><th class=\"n\">Median</th><th class=\"n\">Quartiles</th><th class=\"n\">Control</th>\
         <th class=\"n\">Goal</th><th></th></tr></thead><tbody>\n{rows}</tbody></table></div>"
    )
}

fn list(lines: impl Iterator<Item = String>) -> String {
    format!("<ul>{}</ul>", lines.map(|line| format!("<li>{}</li>", escaped(&line))).collect::<String>())
}

/// Text that stays text in HTML and SVG.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::{
        bench::{figure::Goal, machine::Machine, report::Refusal, statistics::Quartiles},
        flags::ReportFlags,
    };

    fn report() -> Report {
        let value = |median| Quartiles { q1: median - 1.0, median, q3: median + 1.0 };
        let figures = vec![
            Figure::new("cost", "a <filter>", "ns", value(100.0)).with_goal(Goal::AtMost(150.0)),
            Figure::new("cost", "another", "ns", value(200.0)).with_goal(Goal::AtMost(150.0)),
            Figure::new("cost", "nothing", "ns", value(1.0)),
        ];
        let refused = vec![Refusal { name: "bulk".into(), off: Some(3.0), tolerance: 1.5 }];
        let findings = Findings {
            command: "cargo xtask bench".into(),
            machine: Machine::probe().expect("/proc is there"),
            variants: vec!["a <filter>".into()],
            figures,
            refused,
            notes: vec!["paired".into()],
            limits: vec!["other machines".into()],
        };
        Report { findings, title: "A title", lead: "A lead", plots: Vec::new() }
    }

    #[test]
    fn the_page_tells_goals_refusals_machine_and_limits() {
        let report = report();
        let page = page(&report);
        for expected in [
            "Goals: 1 of 2 met",
            "✓ met",
            "✗ missed",
            "a &lt;filter&gt;",
            "bulk: two equal variants differ by +3.0 %, more than 1.5 %",
            "other machines",
            &escaped(&report.findings.machine.kernel),
        ] {
            assert!(page.contains(expected), "{expected} is not in the page");
        }
        assert!(!page.contains("<filter>"), "text of a figure became an element");
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = page(&report());
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_json_has_machine_variants_and_figures() {
        let json = serde_json::to_value(report().findings).expect("plain data");
        assert!(json["machine"]["kernel"].is_string());
        assert_eq!(json["figures"][0]["goal"]["at_most"], 150.0);
        assert_eq!(json["figures"][1]["met"], false);
        assert_eq!(json["refused"][0]["name"], "bulk");
    }

    #[test]
    fn a_page_drawn_from_the_json_is_the_page_of_the_run() {
        let directory = tempfile::tempdir().expect("a directory");
        let [json, page] = ["run.json", "run.html"].map(|name| Some(directory.path().join(name)));
        let run = report();
        run.write(&ReportFlags { from: None, json: json.clone(), report: page.clone() }).expect("written");
        let written =
            |file: &Option<PathBuf>| fs::read_to_string(file.as_ref().expect("named")).expect("read");
        let first = written(&page);
        let findings = Findings::read(json.as_ref().expect("named")).expect("what was written is read");
        let again = Report { findings, ..run };
        again.write(&ReportFlags { from: json, json: None, report: page.clone() }).expect("written");
        assert_eq!(written(&page), first);
    }
}
