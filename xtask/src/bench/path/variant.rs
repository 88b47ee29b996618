//! What is compared on a path: which system filters, for how many policies, and where the matching ones
//! stand.
//!
//! In: the numbers of policies. Out: the list of variants. The first is the path without a filter, to which
//! all others are compared; the second is the same once more, the control.

use std::fmt;

use crate::bench::figure::Standing;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum System {
    Nothing,
    /// The same again: what differs between the two is the noise of the measurement.
    Control,
    /// An empty program at each hook of podgate's.
    Empty,
    /// Connection tracking and one rule that lets known connections pass.
    Conntrack,
    Podgate(Hook),
    /// podgate by TCX, with the short cut between pods of a node.
    Shortcut,
    /// podgate by TCX, with a flow table that a flood fills.
    SmallTable,
    Npm(Backend),
    Calico,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    Tcx,
    Clsact,
}

/// What runs iptables' rules in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Backend {
    Nft,
    Legacy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Variant {
    pub(super) system: System,
    pub(super) policies: u32,
    pub(super) standing: Standing,
}

/// How many different ones there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Full,
    /// Without clsact and Calico, and with the matching policies last only.
    Quick,
}

/// Entries of [`System::SmallTable`].
pub(super) const SMALL_TABLE: u32 = 16_384;
/// The number of policies at which everything is measured.
const REFERENCE: u32 = 1_000;

impl Variant {
    /// All of them, `Nothing` first and its control last: the longest way apart.
    pub(super) fn all(policies: &[u32], extent: Extent) -> Vec<Self> {
        let reference = Self::reference(policies);
        let plain = |system| Self { system, policies: 0, standing: Standing::Last };
        let mut all = vec![plain(System::Nothing), plain(System::Empty), plain(System::Conntrack)];
        all.extend(extent.hooks().iter().map(|&hook| plain(System::Podgate(hook))));
        let at_reference = |system| Self { system, policies: reference, standing: Standing::Last };
        all.extend([System::SmallTable, System::Shortcut].map(at_reference));
        for &policies in policies {
            for &standing in extent.standings() {
                let with = |system| Self { system, policies, standing };
                all.extend(extent.hooks().iter().map(|&hook| with(System::Podgate(hook))));
                all.extend([Backend::Nft, Backend::Legacy].map(|backend| with(System::Npm(backend))));
                if extent == Extent::Full {
                    all.push(with(System::Calico));
                }
            }
        }
        all.push(plain(System::Control));
        all
    }

    /// 1,000 where it is among them, else the most.
    pub(super) fn reference(policies: &[u32]) -> u32 {
        let largest = policies.iter().copied().max().unwrap_or(REFERENCE);
        if policies.contains(&REFERENCE) { REFERENCE } else { largest }
    }

    /// Whether it filters for no policies, or for the reference with the matching ones last.
    pub(super) fn is_core(self, reference: u32) -> bool {
        match self.system {
            System::Nothing | System::Control | System::Empty | System::Conntrack => true,
            System::SmallTable => false,
            System::Shortcut => true,
            System::Podgate(_) | System::Npm(_) | System::Calico => {
                self.policies == reference && self.standing == Standing::Last
            }
        }
    }

    /// Whether it denies anything at all.
    pub(super) fn denies(self) -> bool {
        self.policies > 0
    }

    /// How its system, number of policies and standing are shown together.
    pub(super) fn describe(self) -> String {
        let Self { system, policies, standing } = self;
        match system {
            System::Nothing | System::Control | System::Empty | System::Conntrack => system.to_string(),
            _ if policies == 0 => format!("{system}, no policies"),
            _ => format!("{system}, {policies} policies, matching {standing}"),
        }
    }
}

impl Extent {
    fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Full => &[Hook::Tcx, Hook::Clsact],
            Self::Quick => &[Hook::Tcx],
        }
    }

    fn standings(self) -> &'static [Standing] {
        match self {
            Self::Full => &[Standing::Last, Standing::First],
            Self::Quick => &[Standing::Last],
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Control => "nothing, again",
            Self::Empty => "empty programs (TCX)",
            Self::Conntrack => "conntrack + 1 rule",
            Self::Podgate(Hook::Tcx) => "podgate (TCX)",
            Self::Podgate(Hook::Clsact) => "podgate (clsact)",
            Self::SmallTable => "podgate (TCX), full table",
            Self::Shortcut => "podgate (TCX), short cut",
            Self::Npm(Backend::Nft) => "Azure NPM (nft)",
            Self::Npm(Backend::Legacy) => "Azure NPM (legacy)",
            Self::Calico => "Calico (nft)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_first_and_its_control_last() {
        for extent in [Extent::Full, Extent::Quick] {
            let all = Variant::all(&[10, 1_000], extent);
            assert_eq!(all.first().map(|it| it.system), Some(System::Nothing));
            assert_eq!(all.last().map(|it| it.system), Some(System::Control));
            let mut once = all.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), all.len(), "no variant twice");
        }
    }

    #[test]
    fn everything_is_measured_at_a_thousand_policies_or_at_the_most_there_are() {
        for (policies, expected) in [(vec![10, 1_000, 10_000], 1_000), (vec![10, 100], 100)] {
            let reference = Variant::reference(&policies);
            assert_eq!(reference, expected);
            let all = Variant::all(&policies, Extent::Full);
            let core: Vec<_> = all.into_iter().filter(|variant| variant.is_core(reference)).collect();
            assert_eq!(core.len(), 10, "{core:?}");
        }
    }
}
