//! What a rule is made of.

use std::net::IpAddr;

use ipnet::IpNet;

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
    /// `iif lo`/`oif lo`: the loopback interface, by its number, which is always 1 and compared faster than a name.
    Loopback(Direction),
    /// `ip saddr`/`ip daddr`, `ip6 saddr`/`ip6 daddr`: the address is in a network. Packets of the other family never
    /// match, whatever the operator.
    Address(Address, Operator, IpNet),
    /// `meta nfproto`: IPv4 or IPv6.
    Nfproto(Nfproto),
    /// `meta protocol ip`/`ip6`: the frame carries it (netdev tables).
    FrameOf(Nfproto),
    /// `meta l4proto`: the transport protocol, by its IP protocol number.
    L4Protocol(u8),
    /// `th dport`: the destination port of TCP, UDP and SCTP.
    ToPort(u16),
    /// `th sport`: the source port, likewise.
    FromPort(u16),
    /// `icmp type echo-request`, `icmpv6 type echo-request`: a ping.
    EchoRequest(Nfproto),
    /// `icmpv6 type >= mld-listener-query`: all of ICMPv6 but errors and pings, that is, what hosts and routers of one link tell
    /// each other (RFC 4443, 2.1; types from 130 on).
    LinkIcmpv6,
    /// `ct state established`.
    Established,
    /// `ct state related`: an ICMP error about a known connection, whoever sent it.
    Related,
    /// `ct state established,related`.
    Known,
    /// `ct direction reply`: the packet is from who was asked.
    Reply,
    /// `ct state new`.
    New,
    /// `ct timeout set …`: connection tracking remembers a new connection as long as a [`Timeout`](super::Timeout) of the
    /// table says.
    SetTimeout(&'static str),
    /// `add @set { iifname . meta mark ct count over … }`: who the packet is from has more connections than that.
    ConnectionsOver {
        /// By what is counted.
        key: &'static [Field],
        /// The dynamic set that counts.
        set: &'static str,
        /// As many are let through.
        limit: u32,
    },
    /// `ct status dnat`: the connection's destination was translated.
    TranslatedDestination,
    /// `fib daddr type local`: the destination is an address of this machine.
    LocalDestination,
    /// Looks (concatenated) fields up in a set.
    Lookup(&'static [Field], &'static str),
    /// `meta mark set meta mark | …`.
    SetMark(u32),
    /// `meta mark set … map @…`: the mark that the map has for (concatenated) fields. No element, no mark, and the rule ends.
    SetMarkBy(&'static [Field], &'static str),
    /// `ether daddr set … map @…`: the hardware address that the map has for (concatenated) fields is where the frame goes. No
    /// element, no change, and the rule ends (bridge tables).
    SetEtherDestinationBy(&'static [Field], &'static str),
    /// `ether type arp`: the frame is one of ARP (bridge tables).
    Arp,
    /// `arp operation request`: somebody asks who has an address (bridge tables).
    ArpRequest,
    /// `meta pkttype set host`: a frame for another machine becomes one for this.
    SetPacketForHost,
    /// `dnat ip to … map @…`, `dnat ip6 to … map @…`: sends a connection of that family where the map says. No element, no
    /// translation, and the rule ends.
    Dnat {
        /// The family. Packets of the other are left alone (net/netfilter/nft_nat.c, `nft_nat_inet_eval`).
        family: Nfproto,
        /// What is looked up.
        key: &'static [Field],
        /// A map to an address and a port.
        map: &'static str,
        /// Whether the map is to an address only, and the port stays as it is.
        keeps_port: bool,
    },
    /// `snat ip to`, `snat ip6 to`: for connections of the address's family.
    Snat(IpAddr),
    /// `snat ip to ip saddr map @…`, `snat ip6 to ip6 saddr map @…`: the source of a connection of that family becomes what
    /// the map says. No element, no translation, and the rule ends.
    SnatBySource {
        /// The family.
        family: Nfproto,
        /// A map from address to address.
        map: &'static str,
    },
    /// `notrack`: connection tracking passes the packet over (before it only, in a chain of priority raw).
    Notrack,
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

/// So many ports, from a multiple of it on, are a block: a power of two.
pub const BLOCK: u16 = 32;

/// What can be looked up in a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `iifname`.
    InputInterface,
    /// `oifname`.
    OutputInterface,
    /// `meta mark`.
    Mark,
    /// `ether saddr`: the hardware address that a frame says it is from (bridge tables).
    EtherSource,
    /// `arp saddr ether`: the hardware address that an ARP packet tells of its sender. Only after
    /// [`Statement::ArpRequest`].
    ArpSenderEther,
    /// `arp saddr ip`: the IPv4 address that it tells of its sender, likewise.
    ArpSender,
    /// `ip saddr`.
    SourceAddress,
    /// `ip daddr`.
    DestinationAddress,
    /// `ip6 saddr`.
    SourceAddress6,
    /// `ip6 daddr`.
    DestinationAddress6,
    /// `ct original ip saddr`: who opened the connection.
    Opener,
    /// `ct reply ip saddr`: who answers in the connection.
    Answerer,
    /// `ct original ip6 saddr`.
    Opener6,
    /// `ct reply ip6 saddr`.
    Answerer6,
    /// `meta l4proto`.
    L4Protocol,
    /// `th dport`: the destination port of TCP, UDP and SCTP.
    DestinationPort,
    /// `th dport & …`: the first port of the destination port's [block](BLOCK).
    DestinationBlock,
    /// `tcp dport`. Other packets never match.
    TcpPort,
    /// `udp dport`. Other packets never match.
    UdpPort,
}

impl Field {
    /// The one family whose packets have it, where that must be asked for first.
    #[must_use]
    pub const fn family(self) -> Option<Nfproto> {
        match self {
            Self::SourceAddress | Self::DestinationAddress => Some(Nfproto::Ipv4),
            Self::SourceAddress6 | Self::DestinationAddress6 => Some(Nfproto::Ipv6),
            // Of a connection of the other family the kernel knows none, and the rule ends (net/netfilter/nft_ct.c,
            // `nft_ct_get_eval`).
            Self::Opener | Self::Answerer | Self::Opener6 | Self::Answerer6 => None,
            Self::InputInterface
            | Self::OutputInterface
            | Self::Mark
            | Self::EtherSource
            | Self::ArpSenderEther
            | Self::ArpSender
            | Self::L4Protocol
            | Self::DestinationPort
            | Self::DestinationBlock
            | Self::TcpPort
            | Self::UdpPort => None,
        }
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

pub(super) fn saddr(net: impl Into<IpNet>) -> Statement {
    Statement::Address(Address::Source, Operator::Equal, net.into())
}

pub(super) fn saddr_not(net: impl Into<IpNet>) -> Statement {
    Statement::Address(Address::Source, Operator::NotEqual, net.into())
}

pub(super) fn daddr(net: impl Into<IpNet>) -> Statement {
    Statement::Address(Address::Destination, Operator::Equal, net.into())
}
