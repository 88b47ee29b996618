//! How often the agent's tasks had to be restarted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Restarts by the name of the task. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct TaskRestarts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl TaskRestarts {
    /// A task that has not been restarted yet is shown, too.
    pub fn register(&self, task: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default();
    }

    pub fn count(&self, task: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(task).or_default() += 1;
    }

    pub fn read(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
