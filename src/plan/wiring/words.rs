//! How links and what belongs to them are written for ip(8).

use std::fmt;

use ipnet::IpNet;

use super::{FORWARD_ALL, Pair, QUEUES, Wire};
use crate::plan::routing::PROTOCOL;
use crate::plan::topology::Mac;

impl Pair {
    /// The words of ip(8), with the name of the namespace that the other end goes to.
    #[must_use]
    pub fn words(&self, netns: &str) -> String {
        let [index, peer_index] = match self.indexes {
            Some((own, other)) => [own, other].map(|index| format!(" index {index}")),
            None => [String::new(), String::new()],
        };
        let end = |mac| {
            format!("address {} mtu {} numtxqueues {QUEUES} numrxqueues {QUEUES}", written(mac), self.mtu)
        };
        let master = self.bridge.as_ref().map_or_else(String::new, |(name, _)| format!(" master {name}"));
        format!(
            "link add {}{index} {}{master} type veth peer name {}{peer_index} {} netns {netns}",
            self.name,
            end(self.mac),
            self.peer,
            end(self.peer_mac)
        )
    }
}

/// With `-6` where ip(8) does not see the family in the words that follow.
impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |net: &IpNet| if net.addr().is_ipv6() { "-6 " } else { "" };
        match self {
            Self::Bridge { dev, index, mac } => write!(
                f,
                "link add {dev} index {index} address {} type bridge stp_state 0 mcast_snooping 0",
                written(*mac)
            ),
            Self::Mtu { dev, mtu } => write!(f, "link set dev {dev} mtu {mtu}"),
            Self::Port { dev, isolated } => {
                let isolated = if *isolated { "on" } else { "off" };
                write!(
                    f,
                    "link set dev {dev} type bridge_slave learning off flood off proxy_arp_wifi on isolated {isolated} \
                     group_fwd_mask {FORWARD_ALL}"
                )
            }
            Self::Behind { dev, mac } => write!(f, "fdb replace {} dev {dev} master static", written(*mac)),
            Self::NoAddressOfItsOwn { dev } => write!(f, "link set dev {dev} addrgenmode none"),
            Self::Up { dev, alias, arp } => {
                let alias = alias.map_or_else(String::new, |alias| format!(" alias {alias}"));
                let arp = if *arp { "" } else { " arp off" };
                write!(f, "link set dev {dev}{alias}{arp} up")
            }
            Self::Address { dev, address } => {
                let whole = address.prefix_len() == address.max_prefix_len();
                let noprefixroute = if whole { " noprefixroute" } else { "" };
                let nodad = if address.addr().is_ipv6() { " nodad" } else { "" };
                write!(f, "address add {address} dev {dev}{noprefixroute}{nodad}")
            }
            Self::Deliver { dev, address } => {
                write!(f, "-6 route add local {address} dev {dev} table local proto {PROTOCOL}")
            }
            Self::Neighbour { dev, address, mac } => {
                write!(f, "neighbour replace {address} lladdr {} nud permanent dev {dev}", written(*mac))
            }
            Self::Route { route, replace } => {
                let verb = if *replace { "replace" } else { "add" };
                write!(f, "{}route {verb} {route} proto {PROTOCOL}", family(&route.destination))
            }
            Self::Rule(rule) => {
                write!(f, "{}rule add {rule} protocol {PROTOCOL}", family(&rule.destination))
            }
        }
    }
}

/// A hardware address as ip(8) writes it.
#[must_use]
pub fn written(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
