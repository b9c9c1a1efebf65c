//! Where everything sits: the names, addresses and hardware addresses of one gateway and its boxes.
//!
//! All of it follows from three numbers (the pool, the gateway's number, a box's slot), so that
//! whoever takes something down needs no more than these to know what it was called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::spec::address::POOL_PREFIXES;

/// The addresses of the boxes' resolvers in the gateway, as many as the pool has. Link-local, which boxes have no other
/// use for: all else of 169.254.0.0/16 is closed to them.
pub const RESOLVERS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 64, 0), 18);

/// The bit that marks a packet as one that the host's NAT sent to the pool, or that came from it.
///
/// One bit, set and matched with its own mask, so that marks of other programs survive.
pub const MARK: u32 = 0x0080_0000;

/// The routing table that alone knows the way to the pool ("nb" in ASCII, and one more).
pub const POOL_TABLE: u32 = 0x6e62;

/// The routing table that leads nowhere, for whoever would use the host as a router.
pub const CLOSED_TABLE: u32 = 0x6e63;

/// The name of netbox's nftables tables, on the host and in the gateway.
pub const TABLE: &str = "netbox";

/// The gateway's end of the veth to the host.
pub const OUT: &str = "out0";

/// The box's end of its first veth.
pub const ETH: &str = "eth0";

/// The index of the box's end: past those that the kernel's modules give to links of their own in every new
/// namespace (`tunl0`, `sit0` …). Those of further links follow.
pub const ETH_INDEX: u32 = 16;

/// The index of the gateway's end of the first veth of slot 0. The kernel counts its own choices up from 1.
const FIRST_LINK_INDEX: u32 = 0x0001_0000;

/// So far apart are the indexes of the gateway's ends of a box's veths: more than there are slots.
const LINK_STRIDE: u32 = 1 << (32 - POOL_PREFIX);

pub use crate::spec::joins::{MOST_LINKS, eth};

/// The index of the first bridge in the gateway: between those that the kernel chooses and those of the boxes' links.
pub const FIRST_BRIDGE_INDEX: u32 = 0x8000;

/// So many ports has a bridge (BR_MAX_PORTS of net/bridge/br_private.h, of which one is none).
pub const MOST_PORTS: usize = 1023;

/// How many addresses at the start of a pool are no box's: network, gateway, the host as seen from the
/// gateway, and spares.
pub const RESERVED: u32 = 16;

/// The length of a pool's prefix in bits, where netbox chooses the pool: the largest there is.
pub const POOL_PREFIX: u8 = 18;

/// The length of the prefix of an IPv6 pool, in bits.
pub const POOL6_PREFIX: u8 = 64;

/// Gateways are numbered below this, and from 0 again: an interface's name is short.
pub const NUMBERS: u32 = 10_000;

/// The number of boxes that the largest pool can hold: a /18 less the reserved addresses and the broadcast address.
pub const SLOTS: u32 = (1 << (32 - POOL_PREFIX)) - RESERVED - 1;

/// The number of boxes that this pool can hold.
#[must_use]
pub fn slots_of(pool: Ipv4Net) -> u32 {
    let addresses = 1u32.checked_shl(u32::from(32 - pool.prefix_len())).unwrap_or(0);
    addresses.saturating_sub(RESERVED + 1).min(SLOTS)
}

/// A hardware address.
pub type Mac = [u8; 6];

/// The gateway's hardware address on every box's veth: each is a link of its own, so one serves all.
pub const GATEWAY_MAC: Mac = [0x02, 0x6e, 0x62, 0xff, 0xff, 0x01];

/// The hardware address of the gateway's way out.
pub const OUT_MAC: Mac = [0x02, 0x6e, 0x62, 0xff, 0xff, 0x02];

/// The hardware address of the host's end.
pub const HOST_MAC: Mac = [0x02, 0x6e, 0x62, 0xff, 0xff, 0x03];

/// What the gateway believes the host's hardware address to be, deliberately wrong.
///
/// A frame sent there reaches the host's end as one for another machine, which IP drops, unless the
/// `guard` chain re-labels it. Without our rules, nothing enters the host.
pub const WRONG_MAC: Mac = [0x02, 0x6e, 0x62, 0xff, 0xff, 0x04];

/// The shape of one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Topology {
    /// The range that boxes get their addresses from.
    pub pool: Ipv4Net,
    /// What there is of IPv6.
    pub ipv6: Ipv6,
    /// Counts gateways, since the kernel frees the name of a dead gateway's link late.
    pub number: u32,
    /// The MTU of every link, in bytes: the uplink's.
    pub mtu: u32,
}

/// A topology as a state file has it: names and addresses are computed only from one that can be.
#[derive(Deserialize)]
struct Written {
    pool: Ipv4Net,
    ipv6: Ipv6,
    number: u32,
    mtu: u32,
}

impl TryFrom<Written> for Topology {
    type Error = &'static str;

    fn try_from(Written { pool, ipv6, number, mtu }: Written) -> Result<Self, Self::Error> {
        let whole = POOL_PREFIXES.contains(&pool.prefix_len()) && pool.trunc() == pool;
        let whole6 = match ipv6 {
            Ipv6::Pool(prefix) => {
                prefix.prefix_len() == POOL6_PREFIX
                    && prefix.trunc() == prefix
                    && prefix.addr().is_unique_local()
            }
            Ipv6::Absent | Ipv6::Closed => true,
        };
        if !whole || !whole6 || number >= NUMBERS {
            return Err("no such pool or gateway was ever made");
        }
        Ok(Self { pool, ipv6, number, mtu })
    }
}

/// IPv6 behind a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6 {
    /// The kernel has none.
    Absent,
    /// Links have no address.
    Closed,
    /// Boxes get addresses of this prefix, a /64.
    Pool(Ipv6Net),
}

pub use crate::spec::mtu::LEAST_MTU6;

impl Topology {
    /// Whether a link with this MTU has IPv6, be it closed.
    #[must_use]
    pub fn link_has_ipv6(&self, mtu: u32) -> bool {
        self.ipv6 != Ipv6::Absent && mtu >= LEAST_MTU6
    }

    /// The range that boxes get their IPv6 addresses from, where they get any.
    #[must_use]
    pub const fn pool6(&self) -> Option<Ipv6Net> {
        match self.ipv6 {
            Ipv6::Pool(prefix) => Some(prefix),
            Ipv6::Absent | Ipv6::Closed => None,
        }
    }

    /// Both ranges, each with the gateway's address in it.
    pub fn pools(&self) -> impl Iterator<Item = (IpNet, IpAddr)> + use<> {
        let six = self.pool6().zip(self.gateway_address6());
        let six = six.map(|(pool, gateway)| (IpNet::V6(pool), IpAddr::V6(gateway)));
        [(IpNet::V4(self.pool), IpAddr::V4(self.gateway_address()))].into_iter().chain(six)
    }

    /// The host's end of the veth between host and gateway.
    #[must_use]
    pub fn host_link(&self) -> String {
        format!("nb{}", self.number)
    }

    /// The gateway's address: the boxes' next hop, and the source of what the gateway itself sends.
    #[must_use]
    pub fn gateway_address(&self) -> Ipv4Addr {
        self.nth(1)
    }

    /// The same for IPv6.
    #[must_use]
    pub fn gateway_address6(&self) -> Option<Ipv6Addr> {
        self.nth6(1)
    }

    /// The host as the gateway's next hop. No interface has this address.
    #[must_use]
    pub fn next_hop(&self) -> Ipv4Addr {
        self.nth(2)
    }

    /// The same for IPv6.
    #[must_use]
    pub fn next_hop6(&self) -> Option<Ipv6Addr> {
        self.nth6(2)
    }

    /// Whether the pool has the slot. A box without a network may have one that it has not.
    #[must_use]
    pub fn has(&self, slot: u32) -> bool {
        slot < slots_of(self.pool)
    }

    /// The address of the box in `slot`, one that the pool has.
    #[must_use]
    pub fn box_address(&self, slot: u32) -> Ipv4Addr {
        debug_assert!(self.has(slot));
        self.nth(RESERVED + slot)
    }

    /// The IPv6 address of the box in `slot`: in its pool at the same place as the other.
    #[must_use]
    pub fn box_address6(&self, slot: u32) -> Option<Ipv6Addr> {
        self.nth6(RESERVED + slot)
    }

    /// The address of the resolver of the box in `slot`, local to the gateway: one for each, because all sockets of one
    /// address and port are in one chain that the kernel goes through for every packet (`udp4_lib_lookup2`).
    #[must_use]
    pub fn resolver_address(slot: u32) -> Ipv4Addr {
        debug_assert!(slot < SLOTS);
        Ipv4Addr::from(u32::from(RESOLVERS.network()) + RESERVED + slot)
    }

    /// The hardware address of the box in `slot`.
    #[must_use]
    pub fn box_mac(slot: u32) -> Mac {
        let [_, high, middle, low] = slot.to_be_bytes();
        [0x02, 0x6e, 0x62, high, middle, low]
    }

    /// The mark of the packets of the box in `slot` in the gateway, where it shares a bridge with others. Others have none.
    #[must_use]
    pub const fn mark(slot: u32) -> u32 {
        slot + 1
    }

    /// The index of the gateway's end of one of the veths of the box in `slot`, so that nobody has to ask for it.
    #[must_use]
    pub const fn link_index(slot: u32, link: u32) -> u32 {
        debug_assert!(slot < SLOTS && link < MOST_LINKS);
        FIRST_LINK_INDEX + link * LINK_STRIDE + slot
    }

    fn nth(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pool.network()) + offset)
    }

    fn nth6(&self, offset: u32) -> Option<Ipv6Addr> {
        let first = u128::from(self.pool6()?.network());
        Some(Ipv6Addr::from(first + u128::from(offset)))
    }
}

/// The gateway's end of one of a box's veths, from the box's id (8 characters). Starts with `nb`, which no
/// network manager claims, and is never used twice.
#[must_use]
pub fn box_link(id: &str, link: u32) -> String {
    match link {
        0 => format!("nb{id}"),
        more => format!("nb{id}-{more}"),
    }
}

/// The index of the box's end of one of its veths.
#[must_use]
pub const fn eth_index(link: u32) -> u32 {
    ETH_INDEX + link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_that_nobody_made_is_not_read() {
        let read6 = |pool: &str, pool6: &str, number: u32| {
            serde_json::from_str::<Topology>(&format!(
                r#"{{"pool":"{pool}","ipv6":{{"pool":"{pool6}"}},"number":{number},"mtu":1500}}"#
            ))
        };
        let read = |pool: &str, number: u32| read6(pool, "fd12:3456:789a::/64", number);
        let made = read("255.255.192.0/18", NUMBERS - 1).unwrap();
        assert_eq!(made.box_address(SLOTS - 1).to_string(), "255.255.255.254");
        assert_eq!(made.box_address6(SLOTS - 1).unwrap().to_string(), "fd12:3456:789a::3ffe");
        let written = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Topology>(&written).unwrap(), made);
        for pool6 in ["fd12:3456:789a::1/64", "fd12:3456:789a::/48", "2001:db8::/64", "ffff::/64"] {
            assert!(read6("10.77.128.0/18", pool6, 0).is_err(), "{pool6}");
        }
        assert!(made.host_link().len() < 16);
        let small = read("255.255.255.224/27", 0).unwrap();
        assert_eq!((slots_of(small.pool), small.has(14), small.has(15)), (15, true, false));
        assert_eq!(small.box_address(14).to_string(), "255.255.255.254");
        for (pool, number) in [
            ("255.255.255.0/28", 0),
            ("255.255.0.0/17", 0),
            ("10.77.128.1/18", 0),
            ("0.0.0.0/0", 0),
            ("10.77.128.0/18", NUMBERS),
        ] {
            assert!(read(pool, number).is_err(), "{pool} {number}");
        }
    }
}
