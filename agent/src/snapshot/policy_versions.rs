//! Which version of each policy is enforced, and since when.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use imbl::OrdMap;
use podgate_core::model::PolicyName;

use crate::source::{PolicyObject, PolicyObjectChange, PolicyObjects};

/// A version of a policy that the kernel evaluates by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnforcedPolicy {
    pub object: Arc<PolicyObject>,
    pub since: SystemTime,
    /// From when its source heard of it.
    pub latency: Duration,
}

/// Of all policies whose source has versions. Clones share what is alike.
#[derive(Clone, Debug, Default)]
pub struct PolicyVersions {
    objects: PolicyObjects,
    enforced: OrdMap<PolicyName, Arc<EnforcedPolicy>>,
}

impl PolicyVersions {
    /// `None`: its source has no versions, or it is not enforced.
    pub fn get(&self, policy: &PolicyName) -> Option<&EnforcedPolicy> {
        self.enforced.get(policy).map(|enforced| &**enforced)
    }

    /// A pass has succeeded: these are in force. `at`: since when.
    pub(crate) fn enforce(&mut self, now: &PolicyObjects, at: Instant) {
        let since = SystemTime::now().checked_sub(at.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        for change in self.objects.changes(now) {
            match change {
                PolicyObjectChange::Put(object) => {
                    let latency = at.saturating_duration_since(object.learned);
                    let policy = object.policy.clone();
                    self.enforced.insert(policy, Arc::new(EnforcedPolicy { object, since, latency }));
                }
                PolicyObjectChange::Removed(policy) => {
                    self.enforced.remove(&policy);
                }
            }
        }
        self.objects = now.clone();
    }
}

#[cfg(test)]
mod tests {
    use podgate_core::model::ObjectName;

    use super::*;
    use crate::source::PolicyObjects;

    fn objects(versions: &[(&str, &str, Instant)]) -> PolicyObjects {
        let mut objects = PolicyObjects::default();
        for (name, version, learned) in versions {
            let name = ObjectName::new("x", *name);
            let object = PolicyObject {
                policy: PolicyName::Namespaced(name.clone()),
                uid: Some("u".into()),
                resource_version: Some((*version).into()),
                generation: Some(1),
                learned: *learned,
            };
            objects.insert_policy(name, object);
        }
        objects
    }

    #[test]
    fn a_version_is_in_force_from_the_pass_that_enforced_it() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let policy = |name| PolicyName::Namespaced(ObjectName::new("x", name));
        let mut versions = PolicyVersions::default();
        versions.enforce(&objects(&[("a", "1", start), ("b", "1", start)]), start + second);
        let first = versions.get(&policy("a")).cloned().unwrap();
        assert_eq!(first.latency, second);
        // A second pass with the same objects changes nothing.
        let now = objects(&[("a", "1", start + 3 * second), ("c", "2", start + 3 * second)]);
        versions.enforce(&now, start + 5 * second);
        assert_eq!(versions.get(&policy("b")), None, "removed");
        assert_eq!(versions.get(&policy("c")).map(|enforced| enforced.latency), Some(2 * second));
        // Before it was enforced is no time at all.
        versions.enforce(&objects(&[("a", "2", start + 9 * second)]), start);
        let enforced = versions.get(&policy("a")).unwrap();
        assert_eq!(
            (enforced.object.resource_version.as_deref(), enforced.latency),
            (Some("2"), Duration::ZERO)
        );
    }
}
