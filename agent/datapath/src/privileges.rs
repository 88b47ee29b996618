//! What only the start of the agent may do, given up for good.
//!
//! In: a thread. Out: the same thread with the capabilities and system calls that a running agent needs, and
//! no way back ([`capabilities`], [`system_calls`]). Both are a thread's own; threads that it starts later
//! inherit them. So the main thread gives up what it has before it starts others, and the enforcing one,
//! which reads the sockets of pods in their network namespaces when the first agent of a node has come, after
//! its first pass.

mod capabilities;
mod system_calls;

use anyhow::Result;

pub use self::capabilities::required;

/// What an agent needs beyond what every one does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// It reads files that the operator names, perhaps another user's.
    pub files_of_others: bool,
    /// A kubeconfig has it run programs, for tokens: no one knows what those need.
    pub programs: bool,
}

/// Gives up, for this thread and those that it starts, all that a running agent does not need.
pub fn give_up(needs: Needs) -> Result<()> {
    capabilities::give_up(needs.files_of_others)?;
    if needs.programs {
        return Ok(());
    }
    system_calls::restrict()
}
