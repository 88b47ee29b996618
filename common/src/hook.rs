//! Where a packet is evaluated.

use core::fmt;

/// The direction as its pod sees it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Leaves the pod: program `from_pod`, TC ingress of the host side of its veth.
    Egress = 0,
    /// Arrives at the pod: program `to_pod`, TC egress of the host side of its veth.
    Ingress = 1,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }

    /// In output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

impl TryFrom<u8> for Direction {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Self::ALL.into_iter().find(|direction| *direction as u8 == value).ok_or(value)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One run of a program on one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub direction: Direction,
    /// The host side of the pod's veth (`skb->ifindex`).
    pub ifindex: u32,
    /// Where the packet entered this node (`skb->ingress_ifindex`); 0: nowhere. The node's own stack made it,
    /// or made it out of what came from elsewhere.
    pub ingress_ifindex: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_comes_back_from_its_number_and_no_other_number_does() {
        assert_eq!(Direction::try_from(0), Ok(Direction::Egress));
        assert_eq!(Direction::try_from(1), Ok(Direction::Ingress));
        for number in 2..=u8::MAX {
            assert_eq!(Direction::try_from(number), Err(number));
        }
        for direction in Direction::ALL {
            assert_ne!(direction, direction.other());
            assert_eq!(direction, direction.other().other());
        }
    }
}
