//! Host endpoints: the traffic of a node's own processes.
//!
//! Written from Calico's pages "Host endpoints", "Failsafe rules", "Pre-DNAT policy" and "Summary". Policies
//! with "doNotTrack" come first, then those with "preDNAT", which "are only applicable to ingress"; of both,
//! what no rule matches goes on. Then the others. "If a host endpoint is created and network policy is not in
//! place, the default is to deny traffic to/from that endpoint (except for traffic allowed by failsafe
//! rules)", unless it has the profile "projectcalico-default-allow". Left out: which device a packet takes.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    super::{Connection, Direction, EndpointRef, object::items},
    ConnectionQuery, Outcome, Tier, counting, is_about,
    label::{Labels, contains, matches},
    order_of, policies, tier_of, tiers, true_name,
};

/// "By default, Calico keeps the following ports open on all host endpoints." Those of both directions.
const BOTH: [(&str, u16); 7] =
    [("TCP", 179), ("TCP", 2379), ("TCP", 2380), ("TCP", 5473), ("TCP", 6443), ("TCP", 6666), ("TCP", 6667)];
const INBOUND: [(&str, u16); 2] = [("TCP", 22), ("UDP", 68)];
const OUTBOUND: [(&str, u16); 2] = [("UDP", 53), ("UDP", 67)];

/// The verdict of each host endpoint of a node that may have the address.
pub(in super::super) fn allowed(
    objects: &[Value],
    direction: Direction,
    (node, address): (&str, IpAddr),
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> bool {
    let failsafe = match direction {
        Direction::Ingress => INBOUND,
        Direction::Egress => OUTBOUND,
    };
    if failsafe.iter().chain(&BOTH).any(|port| *port == (connection.protocol, connection.port)) {
        return true;
    }
    let names_devices = |host: &&Value| {
        host["spec"]["interfaceName"].is_string() || !items(&host["spec"]["expectedIPs"]).is_empty()
    };
    let of_node = counting(objects, &["HostEndpoint"]).filter(|host| host["spec"]["node"] == node);
    let of_node: Vec<&Value> = of_node.filter(names_devices).collect();
    let is_of_all = |host: &&&Value| host["spec"]["interfaceName"] == "*";
    let expects = |host: &&&Value| items(&host["spec"]["expectedIPs"]).iter().any(|it| contains(it, address));
    let is_unsaid = |host: &&&Value| items(&host["spec"]["expectedIPs"]).is_empty();
    let choices: [Vec<&&Value>; 3] = [
        of_node.iter().filter(|host| !is_of_all(host) && expects(host)).collect(),
        of_node.iter().filter(is_of_all).collect(),
        of_node.iter().filter(|host| !is_of_all(host) && is_unsaid(host)).collect(),
    ];
    let meant = choices.into_iter().find(|choice| !choice.is_empty()).unwrap_or_default();
    meant.into_iter().all(|host| of_host(objects, direction, host, peer, connection))
}

fn of_host(
    objects: &[Value],
    direction: Direction,
    host: &Value,
    peer: EndpointRef<'_>,
    connection: &Connection<'_>,
) -> bool {
    let query = ConnectionQuery { objects, direction, pod: host, peer, connection };
    let is = |policy: &Value, field: &str| policy["spec"][field] == true;
    let of_all = host["spec"]["interfaceName"] == "*";
    let untracked = |policy: &Value| is(policy, "doNotTrack");
    let before_translation = |policy: &Value| is(policy, "preDNAT") && !is(policy, "doNotTrack");
    if !of_all && let Some(verdict) = query.stage(&untracked, false) {
        return verdict;
    }
    if direction == Direction::Ingress
        && let Some(verdict) = query.stage(&before_translation, false)
    {
        return verdict;
    }
    let others = |policy: &Value| !is(policy, "preDNAT") && !is(policy, "doNotTrack");
    if let Some(verdict) = query.stage(&others, true) {
        return verdict;
    }
    items(&host["spec"]["profiles"]).iter().any(|profile| {
        let name = profile.as_str().unwrap_or_default();
        name == "projectcalico-default-allow" || name.starts_with("kns.")
    })
}

impl ConnectionQuery<'_> {
    /// The verdict of all tiers, by the policies of one stage.
    fn stage(&self, belongs: &dyn Fn(&Value) -> bool, has_end: bool) -> Option<bool> {
        tiers(self.objects).iter().find_map(|tier| self.host_tier(tier, belongs, has_end))
    }

    fn host_tier(&self, tier: &Tier, belongs: &dyn Fn(&Value) -> bool, has_end: bool) -> Option<bool> {
        let labels = Labels::of_host(self.objects, self.pod);
        let is_for = |policy: &&Value| {
            let text = |field: &str| policy["spec"][field].as_str().unwrap_or_default();
            policy["kind"] == "GlobalNetworkPolicy"
                && tier_of(policy) == tier.name
                && belongs(policy)
                && is_about(policy, self.direction)
                && matches(text("selector"), &|key| labels.get(key), "")
                && matches(text("serviceAccountSelector"), &|key| labels.get(key), "pcsa.")
                && matches(text("namespaceSelector"), &|key| labels.get(key), "pcns.")
        };
        let mut of_tier: Vec<&Value> = policies(self.objects).filter(is_for).collect();
        of_tier.sort_by(|one, other| {
            order_of(one).total_cmp(&order_of(other)).then_with(|| true_name(one).cmp(&true_name(other)))
        });
        for policy in &of_tier {
            match self.policy(policy, tier) {
                Outcome::Decided(verdict) => return Some(verdict),
                Outcome::Passed => return None,
                Outcome::Nothing => {}
            }
        }
        (!of_tier.is_empty()
            && has_end
            && !tier.passes
            && !["kube-admin", "kube-baseline"].contains(&&*tier.name))
        .then_some(false)
    }
}
