//! The results: counts, and the differences with the data to investigate them.
//!
//! In: each cluster's differences. Out: lines on the terminal, and a file with the objects and Felix's rules
//! of each cluster that differs.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::workspace;

use crate::{
    asking::Seen,
    cluster::{Cluster, Expected, Question},
    datastore::Refused,
    stated,
};

#[derive(Debug)]
pub(crate) struct Report {
    clusters: u32,
    directory: PathBuf,
    /// Policies of Calico's.
    policies: usize,
    asked: usize,
    allowed: usize,
    differ: usize,
    /// Differences that the documents name.
    stated: BTreeMap<&'static str, usize>,
    refused: BTreeMap<String, usize>,
}

/// How many differences of one cluster are shown.
const SHOWN: usize = 8;

impl Report {
    pub(crate) fn new(clusters: u32) -> Result<Self> {
        let directory = workspace::target()?.join("calico");
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        let (stated, refused) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { clusters, directory, policies: 0, asked: 0, allowed: 0, differ: 0, stated, refused })
    }

    pub(crate) fn has_differences(&self) -> bool {
        self.differ > 0
    }

    pub(crate) fn refused(&mut self, refused: &[Refused]) {
        for (_, reason) in refused {
            *self.refused.entry(first_reason(reason)).or_default() += 1;
        }
    }

    pub(crate) fn cluster(
        &mut self,
        cluster: &Cluster,
        asked: &[&Question],
        differences: &[(&Question, Seen)],
        rules: impl FnOnce() -> Result<String>,
    ) -> Result<()> {
        let mut left = Vec::new();
        for (question, seen) in differences {
            match stated::reason(cluster, question, *seen) {
                Some(reason) => *self.stated.entry(reason).or_default() += 1,
                None => left.push((*question, *seen)),
            }
        }
        let differences = left;
        self.policies += cluster.objects.iter().filter(|object| is_policy_of_calico(object)).count();
        self.asked += asked.len();
        self.allowed += asked.iter().filter(|it| matches!(it.expected, Expected::Answer(_))).count();
        println!(
            "cluster {} of {}: {} questions, {} differ",
            cluster.number + 1,
            self.clusters,
            asked.len(),
            differences.len()
        );
        self.differ += differences.len();
        for (question, seen) in differences.iter().take(SHOWN) {
            println!("  {question}: {seen:?}, not {:?}", question.expected);
        }
        if !differences.is_empty() {
            let file = self.directory.join(format!("cluster-{}.txt", cluster.number));
            let text = format!("{}\n{}", cluster.text(), rules()?);
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            println!("  objects and rules: {}", file.display());
        }
        Ok(())
    }

    pub(crate) fn conclude(&self) {
        for (reason, count) in &self.refused {
            println!("{count} objects left out, for they are refused: {reason}");
        }
        println!("{} policies of Calico's", self.policies);
        for (reason, count) in &self.stated {
            println!("{count} as stated: {reason}");
        }
        println!("{} allowed", self.allowed);
        println!("{} clusters, {} questions, {} differ", self.clusters, self.asked, self.differ);
    }
}

fn is_policy_of_calico(object: &Value) -> bool {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    text("apiVersion").contains("projectcalico.org") && text("kind").ends_with("Policy")
}

/// The first thing that an error complains of, without what it is about.
fn first_reason(error: &str) -> String {
    let in_brackets = error.split('(').skip(1).filter_map(|rest| rest.split(')').next());
    let sentence = in_brackets.map(str::trim).find(|text| text.contains(' ') && !text.starts_with("Status"));
    sentence.unwrap_or_else(|| error.split(':').next().unwrap_or_default()).to_owned()
}
