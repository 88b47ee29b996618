//! What was seen of a connection, as bits.

use crate::Segment;

/// What was seen of a connection.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub u32);

impl Seen {
    /// The client is the low end of the key.
    pub const CLIENT_IS_LOW: Self = Self(1);
    /// The server answered.
    pub const REPLY: Self = Self(2);
    pub const CLIENT_FIN: Self = Self(4);
    pub const SERVER_FIN: Self = Self(8);
    pub const RST: Self = Self(16);
    /// The client's egress is evaluated where the service's backend is known.
    pub const DEFERRED: Self = Self(32);
    /// The key has the client's address as the node has rewritten it: from its veth the client may not send
    /// in that name.
    pub const REWRITTEN: Self = Self(64);
    /// No veth at which it was evaluated is a port of a bridge, so that link-layer sources are of no account;
    /// and the client's address is its own.
    pub const ROUTED: Self = Self(256);
    /// `from_pod` has evaluated the client's egress under the entry's own tuple (see `decide::shortcut`).
    pub const LEFT_POD: Self = Self(8_192);
    /// The pod behind the client's veth was known when its egress was evaluated there, so that the client's
    /// address is one of its own, or one of the link that no one has.
    pub const OWN_ADDRESS: Self = Self(16_384);
    /// The client's first packet has come straight from its veth.
    pub const OPENED_DIRECTLY: Self = Self(512);
    /// A packet of the server's has arrived at its client's veth; noted where there is a short cut.
    pub const ANSWERED: Self = Self(1_024);
    /// Packets in both directions may take the short cut.
    pub const SHORTCUT: Self = Self(2_048);
    /// Its replies are read for names: the client has name rules, and the server is a resolver. Such a
    /// connection never has [`Self::REPLY`], so that each reply looks as if it were the first one, and the
    /// fast path leaves it to the whole decision.
    pub const NAMES: Self = Self(32_768);
    /// The server of such a connection answered.
    pub const NAMES_REPLY: Self = Self(65_536);
    /// The node has not translated what was deferred: the client's egress was evaluated by the destination as
    /// it stands here.
    pub const UNTRANSLATED: Self = Self(128);

    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }

    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the client's egress was evaluated by the destination that the entry names.
    #[inline(always)]
    pub const fn has_egress(self) -> bool {
        self.0 & (Self::DEFERRED.0 | Self::UNTRANSLATED.0) != Self::DEFERRED.0
    }

    /// After one more packet of the connection.
    #[inline(always)]
    #[must_use]
    pub const fn after(self, segment: Segment, from_client: bool) -> Self {
        let seen = self.with(Self::REPLY, !from_client);
        if !segment.ends() {
            return seen;
        }
        seen.with(Self::CLIENT_FIN, segment.fin() && from_client)
            .with(Self::SERVER_FIN, segment.fin() && !from_client)
            .with(Self::RST, segment.rst())
    }

    /// The same as the table has it.
    #[inline(always)]
    #[must_use]
    pub const fn entered_after(self, segment: Segment, from_client: bool) -> Self {
        self.after(segment, from_client).as_entered()
    }

    /// How a table has it: see [`Self::NAMES`].
    #[inline(always)]
    #[must_use]
    pub const fn as_entered(self) -> Self {
        if self.has(Self::NAMES) && self.has(Self::REPLY) {
            self.without(Self::REPLY).with(Self::NAMES_REPLY, true)
        } else {
            self
        }
    }

    /// Of a connection whose replies are read for names from now on: they come through the node.
    #[must_use]
    pub const fn that_reads_names(self) -> Self {
        let through_node = self.without(Self::SHORTCUT).without(Self::OPENED_DIRECTLY);
        through_node.with(Self::NAMES, true).as_entered()
    }

    /// Whether the server answered.
    #[inline(always)]
    pub const fn is_replied(self) -> bool {
        self.0 & (Self::REPLY.0 | Self::NAMES_REPLY.0) != 0
    }

    /// What packets add to it after the connection was entered.
    #[inline(always)]
    #[must_use]
    pub const fn marks(self) -> Self {
        let replied = Self::REPLY.0 | Self::NAMES_REPLY.0;
        self.and(Self(replied | Self::CLIENT_FIN.0 | Self::SERVER_FIN.0 | Self::RST.0))
    }

    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// A connection that has ended: by a reset, or by both sides.
    #[inline(always)]
    pub const fn is_closed(self) -> bool {
        self.has(Self::RST) || (self.has(Self::CLIENT_FIN) && self.has(Self::SERVER_FIN))
    }
}
