//! An id means one thing for as long as a packet can see it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use podgate_common::{ClassId, IdentityId, PolicyId, RuleProtocol};
use podgate_core::compiler::{PortSignature, RuleSet, Signature, name_key};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{generate::clusters, node::Node, world::World};

#[test]
fn an_id_is_not_given_to_another_content_by_the_next_publication() {
    let node = std::cell::RefCell::new(Node::new(&World::new()));
    let config = Config { cases: 30, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let reused = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&prop::collection::vec(clusters(), 4), |worlds| {
        let mut node = node.borrow_mut();
        node.publish(&World::new());
        node.publish(&World::new());
        let mut past: Vec<Meanings> = Vec::new();
        for world in &worlds {
            node.publish(world);
            let now = Meanings::of(&node);
            if let Some(before) = past.last() {
                now.assert_agrees_with(before);
            }
            reused.set(reused.get() + past.iter().rev().skip(1).filter(|older| now.differs(older)).count());
            past.push(now);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(reused.get() > 0, "ids are used again in the end");
}

/// What each id in the kernel's tables stands for.
#[derive(Debug, Default)]
struct Meanings {
    policies: BTreeMap<PolicyId, Arc<RuleSet>>,
    identities: BTreeMap<IdentityId, Arc<Signature>>,
    classes: BTreeMap<ClassId, PortSignature>,
}

impl Meanings {
    fn of(node: &Node) -> Self {
        let (snapshot, tables) = (node.pinned.read(), node.tables());
        let mut meanings = Self::default();
        for (ifindex, evaluated) in &node.wanted().endpoints {
            let endpoint = snapshot.endpoints[ifindex];
            for (id, place) in
                [(endpoint.ingress, evaluated.subject.ingress), (endpoint.egress, evaluated.subject.egress)]
            {
                learn(&mut meanings.policies, id, tables.rule_sets[&place].clone());
            }
        }
        let identities = &tables.identities;
        // Names stand under other keys there.
        let names: Vec<IpAddr> = tables.names.iter().map(name_key).collect();
        let addresses = identities.addresses.iter().filter(|(address, _)| !names.contains(address));
        for (address, place) in addresses {
            let id = snapshot.set().addresses[&(*address).into()];
            learn(&mut meanings.identities, id, identities.signatures[place].clone());
        }
        for (prefix, place) in &*identities.prefixes {
            let id = snapshot.set().prefixes[prefix];
            learn(&mut meanings.identities, id, identities.signatures[place].clone());
        }
        for protocol in RuleProtocol::ALL {
            for (first, place) in &tables.classes.runs[protocol.index() as usize] {
                let id = snapshot.set().class(protocol, *first);
                learn(&mut meanings.classes, id, tables.classes.signatures[*place].clone());
            }
        }
        meanings
    }

    fn assert_agrees_with(&self, before: &Self) {
        for (id, content) in &self.policies {
            assert!(before.policies.get(id).is_none_or(|other| other == content), "policy {id}");
        }
        for (id, content) in &self.identities {
            assert!(before.identities.get(id).is_none_or(|other| other == content), "identity {id}");
        }
        for (id, content) in &self.classes {
            assert!(before.classes.get(id).is_none_or(|other| other == content), "class {id}");
        }
    }

    fn differs(&self, other: &Self) -> bool {
        self.identities
            .iter()
            .any(|(id, content)| other.identities.get(id).is_some_and(|before| before != content))
    }
}

/// One id, one content.
fn learn<I: Ord + Copy + std::fmt::Debug, C: PartialEq + std::fmt::Debug>(
    known: &mut BTreeMap<I, C>,
    id: I,
    content: C,
) {
    if let Some(other) = known.get(&id) {
        assert_eq!(*other, content, "{id:?} stands for two things");
    }
    known.insert(id, content);
}
