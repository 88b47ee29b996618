//! How much the NetworkPolicies of one namespace may say, and the cluster's policies all together. What they
//! distinguish, addresses and ports, stands in tables that all pods of a node share: so what it costs others
//! is bounded.
//!
//! In: the policies of a namespace, or the cluster's. Out: those of which rules do not fit. Such a rule
//! matches nothing, and its policy isolates all the same; of a ClusterNetworkPolicy, one that does not accept
//! denies everything. Smaller policies come first: a large one never takes the room of a small one.

mod calico;
mod limit;
mod network_sets;
mod service_peers;
mod services;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use podgate_common::Direction;

pub use calico::{limited_of_calico, without_services};
pub use limit::Limit;
pub use network_sets::{MAX_GROUPS_OF_ALL_SETS, NetworkSetLimit, network_sets_over_limit};
pub use service_peers::{NamedServices, named_services, services_over_room};
pub use services::{MAX_FRONTENDS, MAX_FRONTENDS_OF_SMALL, SMALL_SERVICE, services_over_limit};

use super::{
    Action, CalicoEnds, ClusterNetworkPolicy, ClusterRule, IpBlock, LabelExpression, NetworkPolicy, Peer,
    Peers, PortRule, PortSet, Ports, Rule, Selector, policy::PeerTerms,
};

/// Networks in `ipBlock`s, those of `except` too; of a list that several rules share they count once, as do
/// ports.
pub const MAX_NETWORKS: usize = 16_384;
/// Ranges of ports, those of a rule that overlap or touch being one.
pub const MAX_RANGES: usize = 16_384;
/// Different selectors of pods and namespaces; one with many requirements counts once more for every four of
/// them.
pub const MAX_SELECTORS: usize = 1_024;
/// Rules, of both directions; one with several names of the DNS counts once for each.
pub const MAX_RULES: usize = 8_192;
/// Groups of ports, and groups of addresses in blocks, that the rules distinguish. One list of them, however
/// long, makes two groups; a list that overlaps others may divide each of theirs, but makes no more groups
/// than it has entries.
pub const MAX_GROUPS: usize = 512;

/// A policy of which rules do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited<P = NetworkPolicy> {
    /// With something else in the place of those rules.
    pub policy: Arc<P>,
    /// The first of them.
    pub first: (Direction, usize),
    /// What there is too much of.
    pub limit: Limit,
    /// How many there are.
    pub rules: usize,
}

/// The policies of one namespace of which not all fits.
pub fn limited<'a>(policies: impl IntoIterator<Item = &'a Arc<NetworkPolicy>>) -> Vec<Limited> {
    let fitted = fitted(policies.into_iter().map(|policy| (policy, &policy.name)));
    fitted.into_iter().map(|(_, limited)| limited).collect()
}

/// The cluster's policies of which not all fits.
pub fn limited_of_cluster<'a>(
    policies: impl IntoIterator<Item = &'a Arc<ClusterNetworkPolicy>>,
) -> Vec<Limited<ClusterNetworkPolicy>> {
    let fitted = fitted(policies.into_iter().map(|policy| (policy, &policy.name)));
    fitted.into_iter().map(|(_, limited)| limited).collect()
}

/// Out: each with its name.
fn fitted<'a, P: RuleLists + 'a, N: Ord + 'a>(
    policies: impl Iterator<Item = (&'a Arc<P>, &'a N)>,
) -> Vec<(&'a N, Limited<P>)> {
    let mut policies: Vec<(usize, &N, &Arc<P>)> =
        policies.map(|(policy, name)| (size(&**policy), name, policy)).collect();
    // Each limit counts entries of lists: mostly there is nothing to look at.
    if policies.iter().map(|(size, ..)| size).sum::<usize>() < MAX_GROUPS {
        return Vec::new();
    }
    policies.sort_by_key(|(size, name, _)| (*size, *name));
    let mut room = Room::default();
    policies.into_iter().filter_map(|(_, name, policy)| Some((name, room.fit(policy)?))).collect()
}

fn size(policy: &impl RuleLists) -> usize {
    Direction::ALL.into_iter().flat_map(|direction| policy.listed(direction)).map(Rule::size).sum()
}

/// A policy as lists of rules.
trait RuleLists: Clone {
    fn listed(&self, direction: Direction) -> impl Iterator<Item = &Rule>;

    /// Puts what it says without a rule in the place of it.
    fn close(&mut self, direction: Direction, index: usize);
}

impl RuleLists for NetworkPolicy {
    fn listed(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules(direction).unwrap_or_default().iter()
    }

    fn close(&mut self, direction: Direction, index: usize) {
        let rules = match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        };
        if let Some(rule) = rules.as_mut().and_then(|rules| rules.get_mut(index)) {
            *rule = Rule { peers: Peers::Listed(vec![Peer::Nothing]), ports: Ports::Any };
        }
    }
}

/// What cannot be said fails closed, as what was not understood does.
impl RuleLists for ClusterNetworkPolicy {
    fn listed(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules(direction).iter().map(|rule| &rule.matches)
    }

    fn close(&mut self, direction: Direction, index: usize) {
        let rules = match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        };
        if let Some(ClusterRule { action, matches }) = rules.get_mut(index) {
            close(action, matches);
        }
    }
}

/// What a rule with an action says when it cannot be said.
fn close(action: &mut Action, matches: &mut Rule) {
    let peers = match action {
        Action::Accept | Action::Log => Peers::Listed(vec![Peer::Nothing]),
        // Without one that passes, those after it might accept what it leaves to others.
        Action::Deny | Action::Pass => {
            *action = Action::Deny;
            Peers::Any
        }
    };
    *matches = Rule { peers, ports: Ports::Any };
}

/// What is taken of the room of a namespace.
#[derive(Default)]
struct Room<'a> {
    rules: usize,
    selectors: HashSet<(Option<&'a Selector>, &'a Selector)>,
    /// What these count.
    policies_selecting: usize,
    blocks: Lists<BTreeSet<&'a IpBlock>>,
    expressions: HashSet<&'a LabelExpression>,
    networks: Lists<&'a BTreeSet<IpNet>>,
    ports: Lists<(PortSet, BTreeSet<&'a PortRule>)>,
}

impl<'a> Room<'a> {
    fn fit<P: RuleLists>(&mut self, policy: &'a Arc<P>) -> Option<Limited<P>> {
        let mut misfits: BTreeMap<(Direction, usize), Limit> = BTreeMap::new();
        for direction in Direction::ALL {
            for (index, rule) in policy.listed(direction).enumerate() {
                if let Err(limit) = self.take(rule) {
                    misfits.insert((direction, index), limit);
                }
            }
        }
        let (&first, &limit) = misfits.first_key_value()?;
        let mut fitting = P::clone(policy);
        misfits.keys().for_each(|(direction, index)| fitting.close(*direction, *index));
        Some(Limited { policy: Arc::new(fitting), first, limit, rules: misfits.len() })
    }

    fn take(&mut self, rule: &'a Rule) -> Result<(), Limit> {
        // As an annotation has them, each name is a rule.
        let rules = rule.names().count().max(1);
        if self.rules + rules > MAX_RULES {
            return Err(Limit::Rules);
        }
        let mut blocks = BTreeSet::new();
        let mut selectors = HashSet::new();
        let peers = match &rule.peers {
            Peers::Any => &[][..],
            Peers::Listed(peers) => peers,
            Peers::Calico(ends) => {
                self.take_ends(ends)?;
                &[]
            }
        };
        for peer in peers {
            match peer.terms() {
                PeerTerms::Block(block) => {
                    blocks.insert(block);
                }
                PeerTerms::Selectors(namespaces, own) => {
                    selectors.insert((namespaces, own));
                }
                PeerTerms::Nothing => {}
            }
        }
        let selectors: Vec<_> = selectors.difference(&self.selectors).copied().collect();
        let policies_selecting: usize =
            selectors.iter().map(|(namespaces, pods)| weight(*namespaces) + weight(Some(pods)) + 1).sum();
        if self.policies_selecting + policies_selecting > MAX_SELECTORS {
            return Err(Limit::Selectors);
        }
        let networks: BTreeSet<&IpNet> =
            blocks.iter().flat_map(|block| block.except.iter().chain([&block.cidr])).collect();
        let blocks = self.blocks.with(blocks, networks.len(), MAX_NETWORKS);
        let blocks = blocks.map_err(|full| full.of(Limit::Networks, Limit::AddressGroups))?;
        let ports = match &rule.ports {
            Ports::Any => None,
            Ports::Listed(ports) => Some(port_list(ports)),
            Ports::Except { listed, except } => {
                self.take_ports(port_list(except))?;
                listed.as_deref().map(port_list)
            }
        };
        let ports = ports.map(|ports| {
            let ranges = ports.0.len() + ports.1.len();
            self.ports.with(ports, ranges, MAX_RANGES)
        });
        let ports = ports.transpose().map_err(|full| full.of(Limit::Ranges, Limit::PortGroups))?;
        self.rules += rules;
        self.selectors.extend(selectors);
        self.policies_selecting += policies_selecting;
        self.blocks.add(blocks);
        self.ports.add(ports.flatten());
        Ok(())
    }

    /// What was taken before something does not fit stays taken: the rule is the one that asked for it.
    fn take_ends(&mut self, ends: &'a CalicoEnds) -> Result<(), Limit> {
        for end in [&ends.peer, &ends.own] {
            for expression in end.selectors().filter(|it| !self.expressions.contains(it)).collect::<Vec<_>>()
            {
                let weight = 1 + expression.size() / 4;
                if self.policies_selecting + weight > MAX_SELECTORS {
                    return Err(Limit::Selectors);
                }
                self.policies_selecting += weight;
                self.expressions.insert(expression);
            }
            for nets in end.networks() {
                let list = self.networks.with(nets, nets.len(), MAX_NETWORKS);
                let list = list.map_err(|full| full.of(Limit::Networks, Limit::AddressGroups))?;
                self.networks.add(list);
            }
        }
        Ok(())
    }

    fn take_ports(&mut self, ports: (PortSet, BTreeSet<&'a PortRule>)) -> Result<(), Limit> {
        let ranges = ports.0.len() + ports.1.len();
        let list = self.ports.with(ports, ranges, MAX_RANGES);
        let list = list.map_err(|full| full.of(Limit::Ranges, Limit::PortGroups))?;
        self.ports.add(list);
        Ok(())
    }
}

fn weight(selector: Option<&Selector>) -> usize {
    match selector {
        Some(Selector::All(requirements)) => requirements.len() / 4,
        Some(Selector::Nothing) | None => 0,
    }
}

/// Numbers, and names.
fn port_list(ports: &[PortRule]) -> (PortSet, BTreeSet<&PortRule>) {
    let mut names = BTreeSet::new();
    let mut ranges = Vec::new();
    for port in ports {
        match port {
            PortRule::Named(..) => {
                names.insert(port);
            }
            PortRule::Protocol(_)
            | PortRule::Range { .. }
            | PortRule::Number(_)
            | PortRule::Icmp { .. }
            | PortRule::Nothing => ranges.extend(port.range()),
        }
    }
    (ranges.into_iter().collect(), names)
}

/// Different lists, each with the number of its entries.
#[derive(Clone)]
struct Lists<T> {
    known: HashSet<T>,
    /// Descending.
    lengths: Vec<usize>,
    entries: usize,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), lengths: Vec::new(), entries: 0 }
    }
}

/// Too many entries, or too many groups.
enum Full {
    Entries,
    Groups,
}

impl Full {
    const fn of(self, entries: Limit, groups: Limit) -> Limit {
        match self {
            Self::Entries => entries,
            Self::Groups => groups,
        }
    }
}

impl<T: Eq + std::hash::Hash> Lists<T> {
    /// Whether there is room for one more. Out: what to add.
    fn with(&self, list: T, length: usize, most: usize) -> Result<Option<(T, usize)>, Full> {
        if length == 0 || self.known.contains(&list) {
            return Ok(None);
        }
        if self.entries + length > most {
            return Err(Full::Entries);
        }
        if groups(self.lengths.iter().copied(), self.entries, length) > MAX_GROUPS {
            return Err(Full::Groups);
        }
        Ok(Some((list, length)))
    }

    fn add(&mut self, list: Option<(T, usize)>) {
        if let Some((list, length)) = list {
            let place = self.lengths.partition_point(|other| *other >= length);
            self.lengths.insert(place, length);
            self.entries += length;
            self.known.insert(list);
        }
    }
}

/// The most groups that lists of these lengths, in descending order, and one more can distinguish: the
/// longest ones may each divide all that the others leave, and those make no more groups than they have
/// entries.
fn groups(lengths: impl Iterator<Item = usize>, entries: usize, more: usize) -> usize {
    let mut rest = entries + more;
    let mut least = rest + 1;
    let mut dividing = 1_usize;
    let mut more = Some(more);
    let mut lengths = lengths.peekable();
    while dividing <= MAX_GROUPS {
        let longest = match (lengths.peek().copied(), more) {
            (Some(length), Some(new)) if length >= new => lengths.next(),
            (_, Some(_)) => more.take(),
            (Some(_), None) => lengths.next(),
            (None, None) => break,
        };
        rest -= longest.unwrap_or(0);
        dividing *= 2;
        least = least.min(dividing.saturating_mul(rest + 1));
    }
    least
}

#[cfg(test)]
mod tests;
