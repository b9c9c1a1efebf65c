//! What a rule is made of.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Statements from left to right: the first match that fails ends the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub Vec<Statement>);

impl<const N: usize> From<[Statement; N]> for Rule {
    fn from(statements: [Statement; N]) -> Self {
        Self(statements.into())
    }
}

/// A match, an action or a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `iifname`/`oifname`: the name of the interface. One that ends with `*` stands for all that begin so.
    Interface(Direction, Operator, String),
    /// `ip saddr`/`ip daddr`: the IPv4 address is in a network. IPv6 packets never match, whatever the operator.
    Address(Address, Operator, Ipv4Net),
    /// `meta nfproto`: IPv4 or IPv6.
    Nfproto(Nfproto),
    /// `meta protocol ip`: the frame carries IPv4 (netdev tables).
    FrameOfIpv4,
    /// `meta l4proto`: the transport protocol, by its IP protocol number.
    L4Protocol(u8),
    /// `icmp type echo-request`: a ping over IPv4.
    EchoRequest,
    /// `ct state established,related`.
    Established,
    /// `ct state invalid,untracked`: no connection that is known, and so none that is translated.
    Untranslatable,
    /// `ct status dnat`: the connection's destination was translated.
    TranslatedDestination,
    /// `fib daddr type local`: the destination is an address of this machine.
    LocalDestination,
    /// Looks (concatenated) fields up in a set.
    Lookup(&'static [Field], &'static str),
    /// `meta mark set meta mark | …`.
    SetMark(u32),
    /// `meta pkttype set host`: a frame for another machine becomes one for this.
    SetPacketForHost,
    /// `dnat ip to … map @…`: sends the connection where the map says. No element, no translation, and the rule ends.
    Dnat {
        /// What is looked up.
        key: &'static [Field],
        /// A map to an address and a port.
        map: &'static str,
    },
    /// `snat ip to`.
    Snat(Ipv4Addr),
    /// `masquerade`: the source becomes the address of the interface the packet leaves by.
    Masquerade,
    /// `reject with tcp reset`: only after [`Statement::L4Protocol`] 6.
    RejectWithReset,
    /// `reject with icmpx admin-prohibited`.
    RejectProhibited,
    /// Goes on in another chain, and comes back if that decides nothing.
    Jump(&'static str),
    /// Leaves the chain; its policy where it is a base chain.
    Return,
    /// Lets the packet through this chain.
    Accept,
    /// The packet is gone.
    Drop,
}

/// Which interface of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The one it came in by.
    In,
    /// The one it leaves by.
    Out,
}

/// Which address of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// Where it came from.
    Source,
    /// Where it goes.
    Destination,
}

/// How a match compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Matches what is equal.
    Equal,
    /// Matches what is not.
    NotEqual,
}

/// A network protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nfproto {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What can be looked up in a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `iifname`.
    InputInterface,
    /// `ip saddr`.
    SourceAddress,
    /// `ip daddr`.
    DestinationAddress,
    /// `meta l4proto`.
    L4Protocol,
    /// `th dport`: the destination port of TCP, UDP and SCTP.
    DestinationPort,
}

impl Field {
    /// Whether only an IPv4 packet has it.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        matches!(self, Self::SourceAddress | Self::DestinationAddress)
    }
}

pub(super) fn iifname(name: &str) -> Statement {
    Statement::Interface(Direction::In, Operator::Equal, name.into())
}

pub(super) fn iifname_not(name: &str) -> Statement {
    Statement::Interface(Direction::In, Operator::NotEqual, name.into())
}

pub(super) fn oifname(name: &str) -> Statement {
    Statement::Interface(Direction::Out, Operator::Equal, name.into())
}

pub(super) fn oifname_not(name: &str) -> Statement {
    Statement::Interface(Direction::Out, Operator::NotEqual, name.into())
}

pub(super) fn saddr(net: Ipv4Net) -> Statement {
    Statement::Address(Address::Source, Operator::Equal, net)
}

pub(super) fn saddr_not(net: Ipv4Net) -> Statement {
    Statement::Address(Address::Source, Operator::NotEqual, net)
}

pub(super) fn daddr(net: Ipv4Net) -> Statement {
    Statement::Address(Address::Destination, Operator::Equal, net)
}
