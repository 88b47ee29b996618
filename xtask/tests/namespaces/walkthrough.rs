//! The walkthrough of the demo, as assertions.

use anyhow::{Result, ensure};
use xtask::{
    lab::{Agent, Lab, Seen, Traffic},
    walkthrough::{POLICY, STEPS, Walkthrough},
};

use super::{
    Test,
    scene::{becomes, expect, together},
};

pub(crate) const TESTS: &[(&str, Test)] = &[("each_step_of_the_walkthrough_does_what_it_says", walkthrough)];

fn walkthrough(lab: &mut Lab) -> Result<()> {
    let cluster = Walkthrough::new(lab)?;
    let _agents = cluster.nodes.iter().map(|node| Agent::start(node, &[])).collect::<Result<Vec<_>>>()?;
    let to = cluster.backend.addresses;
    for step in &STEPS {
        if let Some(yaml) = step.yaml()? {
            lab.manifests().write(POLICY, &yaml)?;
        }
        let asked: Vec<_> = cluster.askers.iter().zip(step.expected()).collect();
        together(&asked, |(asker, expected)| {
            becomes(&asker.place, to.v4.into(), Traffic::Http(80), *expected)
        })?;
        together(&asked, |(asker, expected)| expect(&asker.place, to, &[Traffic::Http(80)], *expected))?;
    }

    let (production, backend) = (&cluster.askers[2].place, cluster.backend.name());
    let question = ["explain", "--from", production.name(), "--to", backend, "--port", "TCP/80"];
    let node = &cluster.nodes[0];
    let answer = node.podgate(&[&question[..], &["-o", "json"]].concat())?;
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout)?;
    ensure!(answer["verdict"] == "deny" && answer["ingress"]["isolated"] == true, "explain says {answer}");
    ensure!(answer["ingress"]["policies"][0]["name"] == "backend-policy", "explain says {answer}");
    expect(production, to, &[Traffic::Http(80)], Seen::Blocked)
}
