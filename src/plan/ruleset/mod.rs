//! The nftables rules as plain data: what the kernel is given, what `--dry-run` prints, what tests compare.
//!
//! Only what netbox uses of nftables can be said here. Chains and rules are constant for a topology;
//! boxes and ports are [`Element`]s of sets and maps, so no cost grows with their number. Where a topology has no
//! IPv6, both rulesets close it.

mod bridge;
mod element;
mod gateway;
mod host;
mod json;
mod published;
mod statement;
mod text;

pub use bridge::{bridge, port, port6};
pub use element::{
    Datum, Element, Type, asks, boxes4, boxes6, conns, host_address, internal, itself, known_outside_as,
    leaves_as, opened, reached_by, routed_subnet, several, switched, switched6,
};
pub use gateway::gateway;
pub use host::host;
pub use json::to_json;
pub use published::{PublishedPort, admissions, translations};
pub use statement::{Address, BLOCK, Direction, Field, Nfproto, Operator, Rule, Statement};
pub use text::to_text;

use super::topology::Topology;

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Packets of one device, before any protocol sees them.
    Netdev,
    /// Frames between the ports of a bridge, and to the bridge itself.
    Bridge,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
        })
    }
}

/// A table with all that is in it, elements apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its address family.
    pub family: Family,
    /// Its name, unique in its family.
    pub name: &'static str,
    /// What tells our table from another of the same name.
    pub comment: &'static str,
    /// Its timeouts of connection tracking.
    pub timeouts: Vec<Timeout>,
    /// Its sets.
    pub sets: Vec<Set>,
    /// Its maps.
    pub maps: Vec<Map>,
    /// Its chains. One that others jump to may stand behind them.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The same for a kernel that knows no timeouts of single connections (without CONFIG_NF_CONNTRACK_TIMEOUT). It has as many
    /// rules.
    #[must_use]
    pub fn without_timeouts(mut self) -> Self {
        self.timeouts.clear();
        for rule in self.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            rule.0.retain(|statement| !matches!(statement, Statement::SetTimeout(_)));
        }
        self
    }
}

/// How long connection tracking remembers closed TCP connections, in seconds; open ones as long as it does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// Its name, unique among the table's.
    pub name: &'static str,
    /// After both sides have closed.
    pub time_wait: u32,
    /// After a reset.
    pub close: u32,
}

/// Closed TCP connections are not counted among those of a box ([`Statement::ConnectionsOver`]), and stay 120 seconds by
/// themselves: a box that opens one after the other would fill the table. A last FIN that is sent again within that time finds
/// its connection; later ones are answered by a reset, when all data has been acknowledged.
pub const CLOSED: Timeout = Timeout { name: "closed", time_wait: 2, close: 1 };

/// Past so many connections by `key` new ones are denied, in the chain `deny`.
fn too_many<const N: usize>(
    first: [Statement; N],
    key: &'static [Field],
    set: &'static str,
    limit: u32,
) -> Rule {
    let over = Statement::ConnectionsOver { key, set, limit };
    Rule(first.into_iter().chain([over, Statement::Jump("deny")]).collect())
}

/// A set of (concatenated) values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique among the table's sets and maps.
    pub name: &'static str,
    /// The types of what an element is made of.
    pub key: &'static [Type],
    /// Whether rules put elements in ([`Statement::ConnectionsOver`]), and the kernel takes them out.
    pub dynamic: bool,
    /// Whether its elements are [networks](Datum::Net), which must not overlap.
    pub interval: bool,
}

impl Set {
    const fn of(name: &'static str, key: &'static [Type]) -> Self {
        Self { name, key, dynamic: false, interval: false }
    }

    const fn of_networks(name: &'static str, key: &'static [Type]) -> Self {
        Self { name, key, dynamic: false, interval: true }
    }
}

/// A map from (concatenated) values to (concatenated) values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// Its name, unique among the table's sets and maps.
    pub name: &'static str,
    /// The types of what a key is made of.
    pub key: &'static [Type],
    /// The types of what a value is made of.
    pub value: &'static [Type],
    /// Whether its keys are [ranges of ports](Datum::Ports).
    pub interval: bool,
}

impl Map {
    const fn of(name: &'static str, key: &'static [Type], value: &'static [Type]) -> Self {
        Self { name, key, value, interval: false }
    }
}

/// A list of rules, entered from a hook or by a jump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in its table. Not `mark`, `fwd` or `up`: nft's own text has no room for those.
    pub name: &'static str,
    /// Where packets enter it; `None` for one that is only jumped to.
    pub hook: Option<Hook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What the chain may do.
    pub kind: ChainType,
    /// The place on the packet's way.
    pub point: HookPoint,
    /// The order among the chains of one place: the lowest is first.
    pub priority: i32,
    /// The one device whose packets enter ([`HookPoint::Ingress`] only).
    pub device: Option<String>,
    /// What becomes of a packet that falls off the chain's end.
    pub policy: Policy,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainType {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of a connection, and decides its address translation.
    Nat,
}

/// A place on a packet's way through the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// As it comes off the device (netdev tables).
    Ingress,
    /// Before it is routed.
    Prerouting,
    /// To the machine itself.
    Input,
    /// Through the machine.
    Forward,
    /// From the machine itself.
    Output,
    /// After it is routed.
    Postrouting,
}

/// What becomes of a packet that no rule decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It is gone.
    Drop,
}

/// The priorities that nftables has names for (nft(8), "standard priority names").
mod priority {
    pub(super) const RAW: i32 = -300;
    pub(super) const DSTNAT: i32 = -100;
    pub(super) const FILTER: i32 = 0;
    pub(super) const SRCNAT: i32 = 100;
}

/// A chain that hangs at a hook and lets through what no rule decides.
fn base(name: &'static str, kind: ChainType, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    let hook = Hook { kind, point, priority, device: None, policy: Policy::Accept };
    Chain { name, hook: Some(hook), rules }
}

/// A filter chain that drops what no rule decides.
fn closed(name: &'static str, point: HookPoint, priority: i32, rules: Vec<Rule>) -> Chain {
    let hook = Hook { kind: ChainType::Filter, point, priority, device: None, policy: Policy::Drop };
    Chain { name, hook: Some(hook), rules }
}

/// A chain that is only jumped to.
fn regular(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name, hook: None, rules }
}

/// Published ports: (host address, protocol, host port) to (box address, box port).
const T4A: Map = Map::of("t4a", element::PUBLISHED_AT, element::SERVICE);

/// Ports published on every address: (protocol, host port) to (box address, box port).
const T4W: Map = Map::of("t4w", element::PUBLISHED_ANYWHERE, element::SERVICE);

/// The same for IPv6.
const T6A: Map = Map::of("t6a", element::PUBLISHED_AT6, element::SERVICE6);

/// The same for IPv6.
const T6W: Map = Map::of("t6w", element::PUBLISHED_ANYWHERE, element::SERVICE6);

/// Ranges of ports published on every address: TCP ports to a box's address, where the port is the same.
const R4TCP: Map = Map { name: "r4tcp", key: element::RANGE, value: &[Type::Ipv4], interval: true };

/// The same for UDP.
const R4UDP: Map = Map { name: "r4udp", ..R4TCP };

/// The same for IPv6.
const R6TCP: Map = Map { name: "r6tcp", key: element::RANGE, value: &[Type::Ipv6], interval: true };

/// The same for UDP over IPv6.
const R6UDP: Map = Map { name: "r6udp", ..R6TCP };

/// Boxes whose connections leave with an address that was chosen: box address to address of the host's.
const SNAT4: Map = Map::of("snat4", &[Type::Ipv4], &[Type::Ipv4]);

/// The same for IPv6.
const SNAT6: Map = Map::of("snat6", &[Type::Ipv6], &[Type::Ipv6]);

/// Boxes of networks: their own address to the one of the pool that they have for the host.
const AWAY4: Map = Map::of("away4", &[Type::Ipv4], &[Type::Ipv4]);

/// And back.
const HOME4: Map = Map::of("home4", &[Type::Ipv4], &[Type::Ipv4]);

/// The same for IPv6.
const AWAY6: Map = Map::of("away6", &[Type::Ipv6], &[Type::Ipv6]);

/// The same for IPv6.
const HOME6: Map = Map::of("home6", &[Type::Ipv6], &[Type::Ipv6]);

/// Networks that other machines reach without translation, each with whom: (its addresses, theirs).
const ROUTED4: Set = Set::of_networks("routed4", &[Type::Ipv4, Type::Ipv4]);

/// The addresses of those networks.
const SUBNETS4: Set = Set::of_networks("subnets4", &[Type::Ipv4]);

/// The maps of published ports.
fn port_maps(topology: &Topology) -> Vec<Map> {
    let six = topology.pool6().map(|_| [T6A, T6W, R6TCP, R6UDP]);
    [T4A, T4W, R4TCP, R4UDP].into_iter().chain(six.into_iter().flatten()).collect()
}

/// Address translation to a published port: the one of the address goes first, then the wildcard's, then ranges.
fn publish(topology: &Topology) -> Chain {
    use Field::{DestinationAddress, DestinationAddress6, DestinationPort, L4Protocol, TcpPort, UdpPort};
    let dnat = |family, key, map: Map| {
        Rule::from([Statement::Dnat { family, key, map: map.name, keeps_port: map.interval }])
    };
    let anywhere: &[Field] = &[L4Protocol, DestinationPort];
    let mut rules = vec![
        dnat(Nfproto::Ipv4, &[DestinationAddress, L4Protocol, DestinationPort], T4A),
        dnat(Nfproto::Ipv4, anywhere, T4W),
        dnat(Nfproto::Ipv4, &[TcpPort], R4TCP),
        dnat(Nfproto::Ipv4, &[UdpPort], R4UDP),
    ];
    if topology.pool6().is_some() {
        rules.extend([
            dnat(Nfproto::Ipv6, &[DestinationAddress6, L4Protocol, DestinationPort], T6A),
            dnat(Nfproto::Ipv6, anywhere, T6W),
            dnat(Nfproto::Ipv6, &[TcpPort], R6TCP),
            dnat(Nfproto::Ipv6, &[UdpPort], R6UDP),
        ]);
    }
    regular("publish", rules)
}
