//! Links, addresses, neighbours, routes and routing rules of a gateway and a box, in the order in which they are made,
//! as values that print in the words of ip(8).
//!
//! What the kernel is asked for and what `--dry-run` prints are the same lists.

mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::spec::request::RunRequest;

use super::network::{Member, Network, bridge_name};
use super::network6::Member6;
use super::record::Attachment;
use super::routing::{self, Route, Rule};
use super::topology::{
    ETH, GATEWAY_MAC, HOST_MAC, Mac, OUT, OUT_MAC, Topology, WRONG_MAC, box_link, eth_index,
};

pub use words::written;

/// How many queues each end of a veth has, in each direction. The kernel's default is one for every processor, each
/// with memory of its own.
pub const QUEUES: u32 = 1;

/// The reserved addresses whose frames a port hands to its bridge as any others, a bit for the last byte of each: all but 01, which
/// the kernel always drops.
pub const FORWARD_ALL: u16 = !0b10;

/// The loopback interface.
pub const LO: &str = "lo";

/// A veth to be made, both ends down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name of the end that stays.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
    /// The name of the end that goes.
    pub peer: String,
    /// Its hardware address.
    pub peer_mac: Mac,
    /// The indexes of the two ends; `None`: the kernel chooses.
    pub indexes: Option<(u32, u32)>,
    /// The bridge that the end that stays becomes a port of: its name and its index.
    pub bridge: Option<(String, u32)>,
}

/// A change to a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// A bridge is made, down and without ports.
    Bridge {
        /// Its name.
        dev: String,
        /// Its index.
        index: u32,
        /// Its hardware address.
        mac: Mac,
    },
    /// A link is given an MTU. A bridge that is has that of none of its ports.
    Mtu {
        /// Its name.
        dev: String,
        /// In bytes.
        mtu: u32,
    },
    /// A port of a bridge learns nothing by itself, and is sent nothing that is for somebody else.
    Port {
        /// Its name.
        dev: String,
        /// Whether it and others of its kind do not reach each other.
        isolated: bool,
    },
    /// A hardware address is behind a port of a bridge.
    Behind {
        /// The name of the port.
        dev: String,
        /// The hardware address.
        mac: Mac,
    },
    /// A link is not to make IPv6 addresses by itself. To be said before it is up.
    NoAddressOfItsOwn {
        /// Its name.
        dev: String,
    },
    /// A link is brought up.
    Up {
        /// Its name.
        dev: String,
        /// A text for people.
        alias: Option<&'static str>,
        /// Whether it answers ARP, and learns from it.
        arp: bool,
    },
    /// A link is given an address; with a prefix that is not whole, a route to what is on the link too.
    Address {
        /// The link's name.
        dev: String,
        /// The address, with the length of its prefix.
        address: IpNet,
    },
    /// What is sent to an IPv6 address is delivered here from now on, not some time later.
    Deliver {
        /// The name of the link that has it.
        dev: String,
        /// The address.
        address: Ipv6Addr,
    },
    /// A neighbour is known for good.
    Neighbour {
        /// The name of the link that it is on.
        dev: String,
        /// Its address.
        address: IpAddr,
        /// Its hardware address.
        mac: Mac,
    },
    /// A route is added.
    Route {
        /// Which.
        route: Route,
        /// Whether it takes the place of one to the same destination: the kernel frees a dead box's link, and its
        /// route, a moment after the box.
        replace: bool,
    },
    /// A rule of the routing policy database is added.
    Rule(Rule),
}

/// The box's side of one of its links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxLink {
    /// Which of them it is, counted from 0: that one is the box's way out.
    pub link: u32,
    /// Its name.
    pub interface: String,
    /// `NETBOX_IPV4`
    pub address: Ipv4Addr,
    /// The length of its prefix, in bits: whose addresses are on the link besides.
    pub prefix: u8,
    /// `NETBOX_GATEWAY`, the next hop.
    pub gateway: Ipv4Addr,
    /// What it has of IPv6; `None` for a box without.
    pub ipv6: Option<BoxLink6>,
    /// The one address outside that it reaches, of its resolver; `None` for a box that has a way out.
    pub resolver: Option<Ipv4Addr>,
    /// Whether the link has IPv6, be it closed.
    pub has_ipv6: bool,
}

/// The same of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxLink6 {
    /// `NETBOX_IPV6`
    pub address: Ipv6Addr,
    /// The next hop, of everything.
    pub gateway: Ipv6Addr,
    /// Where the box has no way out: the network that it reaches.
    pub only: Option<Ipv6Net>,
}

impl BoxLink6 {
    fn in_network(member: &Member, way_out: bool) -> Option<Self> {
        let Member6 { subnet, gateway, address } = member.ipv6?;
        Some(Self { address, gateway, only: (!way_out).then_some(subnet) })
    }
}

impl BoxLink {
    /// The way out of a box, with this MTU.
    #[must_use]
    pub fn new(attachment: &Attachment, mtu: u32) -> Self {
        let Attachment { topology, slot, .. } = *attachment;
        let member = attachment.way_out();
        let internal = member.is_some_and(|member| member.internal);
        Self {
            link: 0,
            interface: member.map_or_else(|| ETH.to_owned(), |member| member.interface.clone()),
            address: attachment.address(),
            prefix: member.map_or(32, |member| member.subnet.prefix_len()),
            gateway: member.map_or_else(|| topology.gateway_address(), |member| member.gateway),
            resolver: internal.then(|| Topology::resolver_address(slot)),
            ipv6: match member {
                Some(member) => BoxLink6::in_network(member, attachment.address6.is_some() && !internal),
                None => attachment
                    .address6
                    .zip(topology.gateway_address6())
                    .map(|(address, gateway)| BoxLink6 { address, gateway, only: None }),
            },
            has_ipv6: topology.link_has_ipv6(mtu),
        }
    }

    /// That into a network by which the box has no way out.
    #[must_use]
    pub fn into_network(member: &Member, topology: &Topology) -> Self {
        Self {
            link: member.link,
            interface: member.interface.clone(),
            address: member.address,
            prefix: member.subnet.prefix_len(),
            gateway: member.gateway,
            resolver: None,
            ipv6: BoxLink6::in_network(member, false),
            has_ipv6: topology.link_has_ipv6(member.mtu),
        }
    }

    /// All of a box's, where its way out has this MTU. That one is the first.
    #[must_use]
    pub fn all(attachment: &Attachment, mtu: u32) -> Vec<Self> {
        let others = attachment.networks.iter().filter(|member| member.link != 0);
        let others = others.map(|member| Self::into_network(member, &attachment.topology));
        [Self::new(attachment, mtu)].into_iter().chain(others).collect()
    }
}

/// What a box's end of its way out has, but for addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkEnd {
    /// Its hardware address.
    pub mac: Mac,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
}

impl LinkEnd {
    /// What was asked for, or else the topology's.
    #[must_use]
    pub fn new(attachment: &Attachment, request: &RunRequest) -> Self {
        if let Some(member) = attachment.way_out() {
            return Self { mac: member.mac, mtu: member.mtu };
        }
        Self {
            mac: request.mac.unwrap_or_else(|| Topology::box_mac(attachment.slot)),
            mtu: request.mtu.unwrap_or(attachment.topology.mtu),
        }
    }
}

/// The link between host and gateway, made on the host.
#[must_use]
pub fn gateway_pair(topology: &Topology) -> Pair {
    Pair {
        name: topology.host_link(),
        mac: HOST_MAC,
        mtu: topology.mtu,
        peer: OUT.to_owned(),
        peer_mac: OUT_MAC,
        indexes: None,
        bridge: None,
    }
}

/// What the host needs once that link is there. `switched`, `switched6`: see [`routing::host_rules`].
#[must_use]
pub fn host(topology: &Topology, switched: &[String], switched6: &[String]) -> Vec<Wire> {
    let rules = routing::host_rules(topology, switched, switched6);
    let mut wires: Vec<_> = rules.into_iter().map(Wire::Rule).collect();
    wires.extend(host_link_up(topology));
    wires
        .extend(routing::host_routes(topology).into_iter().map(|route| Wire::Route { route, replace: true }));
    wires
}

/// Brings the host's end up, with the neighbours that it loses when it goes down.
#[must_use]
pub fn host_link_up(topology: &Topology) -> Vec<Wire> {
    let dev = || topology.host_link();
    let mut wires = Vec::new();
    if topology.link_has_ipv6(topology.mtu) {
        wires.push(Wire::NoAddressOfItsOwn { dev: dev() });
    }
    wires.push(Wire::Up { dev: dev(), alias: Some("netbox"), arp: true });
    wires.extend(topology.pools().map(|(_, address)| Wire::Neighbour { dev: dev(), address, mac: OUT_MAC }));
    wires
}

/// What the gateway needs once that link is there.
#[must_use]
pub fn gateway(topology: &Topology) -> Vec<Wire> {
    let dev = || OUT.to_owned();
    // Wrong on purpose: see WRONG_MAC.
    let next_hop = |address| Wire::Neighbour { dev: dev(), address, mac: WRONG_MAC };
    let mut wires = vec![
        up(LO),
        Wire::Address { dev: dev(), address: IpAddr::V4(topology.gateway_address()).into() },
        up(OUT),
        next_hop(topology.next_hop().into()),
    ];
    if let (Some(address), Some(next_hop6)) = (topology.gateway_address6(), topology.next_hop6()) {
        wires.push(Wire::Address { dev: dev(), address: IpAddr::V6(address).into() });
        wires.push(Wire::Deliver { dev: dev(), address });
        wires.push(next_hop(next_hop6.into()));
    }
    // The pools' routes to lo are there already where the link is made a second time.
    let routes = routing::gateway_routes(topology).into_iter();
    wires.extend(routes.map(|route| Wire::Route { route, replace: true }));
    wires
}

/// A network's bridge in the gateway.
#[must_use]
pub fn bridge(network: &Network, index: u32, topology: &Topology) -> Vec<Wire> {
    let dev = || bridge_name(&network.id);
    let address = IpNet::V4(Ipv4Net::new_assert(network.gateway, network.subnet.prefix_len()));
    let mtu = network.mtu.unwrap_or(topology.mtu);
    let mut wires = vec![Wire::Bridge { dev: dev(), index, mac: GATEWAY_MAC }, Wire::Mtu { dev: dev(), mtu }];
    if topology.link_has_ipv6(mtu) {
        wires.push(Wire::NoAddressOfItsOwn { dev: dev() });
    }
    wires.extend([Wire::Address { dev: dev(), address }, up(&dev())]);
    if let Some(six) = network.ipv6.filter(|_| topology.pool6().is_some()) {
        let address = IpNet::V6(Ipv6Net::new_assert(six.gateway, six.subnet.prefix_len()));
        wires.push(Wire::Address { dev: dev(), address });
        wires.push(Wire::Deliver { dev: dev(), address: six.gateway });
    }
    wires
}

/// The links between the gateway and a box, made in the gateway, each with what the gateway needs once it is there. `end`: of
/// its way out.
#[must_use]
pub fn to_box(id: &str, attachment: &Attachment, end: LinkEnd) -> Vec<(Pair, Vec<Wire>)> {
    let own = attachment.way_out().is_none().then(|| own_link(id, attachment, end));
    let to_member = |member| to_member(id, attachment.slot, member, &attachment.topology);
    let networks = attachment.networks.iter().map(to_member);
    own.into_iter().chain(networks).collect()
}

fn box_pair(id: &str, slot: u32, link: u32, peer: String, end: LinkEnd) -> Pair {
    Pair {
        name: box_link(id, link),
        mac: GATEWAY_MAC,
        mtu: end.mtu,
        peer,
        peer_mac: end.mac,
        indexes: Some((Topology::link_index(slot, link), eth_index(link))),
        bridge: None,
    }
}

/// The link to a box in a network.
#[must_use]
pub fn to_member(id: &str, slot: u32, member: &Member, topology: &Topology) -> (Pair, Vec<Wire>) {
    let Member { mac, mtu, .. } = *member;
    let pair = box_pair(id, slot, member.link, member.interface.clone(), LinkEnd { mac, mtu });
    let dev = || pair.name.clone();
    // Not the box's alone: they have to be removed after it.
    let neighbour = |address| Wire::Neighbour { dev: member.bridge_name(), address, mac };
    let mut wires = vec![
        // Before it is up: what it was not told it would learn.
        Wire::Port { dev: dev(), isolated: member.isolated },
        up(&pair.name),
        Wire::Behind { dev: dev(), mac },
        neighbour(member.address.into()),
    ];
    let six = member.address6().filter(|_| topology.pool6().is_some());
    wires.extend(six.map(|address| neighbour(address.into())));
    (Pair { bridge: Some((member.bridge_name(), member.bridge)), ..pair }, wires)
}

/// The link to a box alone.
fn own_link(id: &str, attachment: &Attachment, end: LinkEnd) -> (Pair, Vec<Wire>) {
    let Attachment { topology, slot, address6, .. } = *attachment;
    let pair = box_pair(id, slot, 0, ETH.to_owned(), end);
    let (dev, mac) = (pair.name.clone(), end.mac);
    // Up before the box's end, and before its rules: what an unknown interface brings is dropped. The box's end, coming
    // up second, can send at once; this one is helped by `settle`.
    // Without ARP: both ends know each other for good, and every question, whoever it says it is from, would take a place
    // in the table of neighbours that all namespaces of the machine share (net/ipv4/arp.c, `arp_process`; gc_thresh3).
    let mut wires = vec![Wire::Up { dev: dev.clone(), alias: None, arp: false }];
    let four = IpAddr::V4(topology.box_address(slot));
    for address in [four].into_iter().chain(address6.map(IpAddr::V6)) {
        let route = routing::box_route(address, &dev);
        wires.push(Wire::Neighbour { dev: dev.clone(), address, mac });
        wires.push(Wire::Route { route, replace: true });
    }
    (pair, wires)
}

/// What a box needs, with its links where it has any.
#[must_use]
pub fn in_box(links: &[BoxLink]) -> Vec<Wire> {
    [up(LO)].into_iter().chain(links.iter().flat_map(of_link)).collect()
}

/// What a box needs for one of its links.
#[must_use]
pub fn of_link(link: &BoxLink) -> Vec<Wire> {
    let mut wires = Vec::new();
    let dev = || link.interface.clone();
    let next_hop = |gateway| Wire::Neighbour { dev: dev(), address: gateway, mac: GATEWAY_MAC };
    let way_out = |gateway: IpAddr| {
        let route = routing::box_way_out(gateway, &link.interface);
        [next_hop(gateway), Wire::Route { route, replace: false }]
    };
    let address = IpNet::V4(Ipv4Net::new_assert(link.address, link.prefix.min(32)));
    wires.push(Wire::Address { dev: dev(), address });
    // No link-local address is made, and so neither is neighbour discovery nor a router solicitation; nobody in the box may
    // add one, and the gateway drops the rest. Not by the sysctl: a first look at each in a new namespace takes as long as
    // there are namespaces, since all have a dentry of that name under one parent (fs/proc/proc_sysctl.c, `proc_sys_compare`).
    if link.has_ipv6 {
        wires.push(Wire::NoAddressOfItsOwn { dev: dev() });
    }
    wires.push(up(&link.interface));
    match link.resolver {
        // What leaves, leaves by the first.
        None if link.link != 0 => wires.push(next_hop(link.gateway.into())),
        None => wires.extend(way_out(link.gateway.into())),
        Some(resolver) => {
            let route = routing::to_resolver(resolver, link.gateway, &link.interface);
            wires.extend([next_hop(link.gateway.into()), Wire::Route { route, replace: false }]);
        }
    }
    if let Some(BoxLink6 { address, gateway, only }) = link.ipv6 {
        wires.push(Wire::Address { dev: dev(), address: IpAddr::V6(address).into() });
        wires.push(Wire::Deliver { dev: dev(), address });
        match only {
            None => wires.extend(way_out(gateway.into())),
            // The bridge sends on what is for another box of it.
            Some(subnet) => {
                let route = routing::by_gateway(subnet.into(), gateway.into(), &link.interface);
                wires.extend([next_hop(gateway.into()), Wire::Route { route, replace: false }]);
            }
        }
    }
    wires
}

fn up(dev: &str) -> Wire {
    Wire::Up { dev: dev.to_owned(), alias: None, arp: true }
}
