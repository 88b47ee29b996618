//! What a packet says about the state of its connection: opens it, ends it, goes on.
//!
//! TCP says it by flags, SCTP by the type of a packet's first chunk. Other protocols say nothing.

/// What a TCP segment or an SCTP packet says about the state of its connection, as TCP flags. Of other
/// protocols nothing.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment(u8);

impl Segment {
    pub const NONE: Self = Self(0);
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    /// From the byte of a TCP header that holds the flags.
    #[inline(always)]
    pub const fn with_flags(flags: u8) -> Self {
        Self(flags & (Self::FIN | Self::SYN | Self::RST | Self::ACK))
    }

    /// From the type of the first chunk of an SCTP packet (RFC 9260, 3.2). INIT opens an association, and is
    /// alone in its packet (6.10); ABORT and SHUTDOWN COMPLETE end all of it.
    #[inline(always)]
    pub(super) const fn with_first_chunk(chunk: u8) -> Self {
        const INIT: u8 = 1;
        const ABORT: u8 = 6;
        const SHUTDOWN_COMPLETE: u8 = 14;
        match chunk {
            INIT => Self(Self::SYN),
            ABORT | SHUTDOWN_COMPLETE => Self(Self::RST),
            _ => Self::NONE,
        }
    }

    /// SYN without ACK, or INIT: opens a connection, whatever is known of the tuple.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// SYN with ACK: answers what has opened a connection.
    #[inline(always)]
    pub const fn answers(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK
    }

    #[inline(always)]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// Neither opens nor ends anything.
    #[inline(always)]
    pub const fn goes_on(self) -> bool {
        self.0 & (Self::FIN | Self::SYN | Self::RST) == 0
    }

    /// Ends one direction, or all of the connection.
    #[inline(always)]
    pub const fn ends(self) -> bool {
        self.0 & (Self::FIN | Self::RST) != 0
    }
}
