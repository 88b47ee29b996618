//! The flows that agents remember, merged: the newest of them.

use std::{collections::BTreeMap, process::ExitCode, sync::Mutex};

use anyhow::bail;

use super::{
    super::{
        super::{flows::Printer, output::print, output::say},
        Session, exit_code,
        lines::read_lines,
    },
    record,
};
use crate::{
    api::FlowRecord,
    fleet::{Fleet, Line},
};

/// The newest flows so far.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// By time, in the order in which they came; the times of all agents have one form.
    flows: BTreeMap<(String, u64), FlowRecord>,
    came: u64,
    left_out: u64,
    unreadable: u64,
}

impl Newest {
    fn push(&mut self, flow: FlowRecord, most: usize) {
        self.flows.insert((flow.time.clone(), self.came), flow);
        self.came += 1;
        if self.flows.len() > most {
            self.flows.pop_first();
            self.left_out += 1;
        }
    }
}

/// At most so many. `absent`: what to say where the pod in question does not exist, and has left no flow.
pub(super) async fn show(
    session: &Session,
    fleet: &Fleet,
    command: &[String],
    (most, absent): (usize, Option<String>),
    mut printer: Printer,
) -> anyhow::Result<ExitCode> {
    let newest = Mutex::new(Newest::default());
    let survey = read_lines(session, fleet, command, |node, line| {
        let mut newest = newest.lock().expect("no one panics with it");
        match line {
            Line::Printed(line) => match record(node, line) {
                Some(flow) => newest.push(flow, most),
                None => newest.unreadable += 1,
            },
            Line::TooLong => newest.unreadable += 1,
            Line::Said(_) => {}
        }
    })
    .await;
    let Newest { flows, left_out, unreadable, .. } = newest.into_inner().expect("no one panics with it");
    flows.values().for_each(|flow| printer.fit(flow));
    print(|stdout| {
        for flow in flows.values() {
            let text = printer.text(flow).map_err(std::io::Error::other)?;
            stdout.write_all(text.as_bytes())?;
        }
        Ok(())
    })?;
    if let Some(absent) = absent.filter(|_| flows.is_empty()) {
        say(survey.conclusion());
        bail!(absent);
    }
    if flows.is_empty() {
        session.note(format_args!("no flow{} that matches", session.scope()));
    }
    if left_out > 0 && most > 0 {
        session.note(format_args!("{left_out} older flows are left out (--last)"));
    }
    if unreadable > 0 {
        session.note(format_args!("{unreadable} lines could not be read"));
    }
    say(survey.conclusion());
    Ok(exit_code(&survey))
}
