//! What decisions rest on: the machine's network as plain data, read once by `host`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The network of the namespace netbox was started in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The link of the IPv4 default route with the lowest metric in the main table. A host may have none.
    pub uplink: Option<Uplink>,
    /// Every address of every link.
    pub addresses: Vec<HostAddress>,
    /// Every destination in every routing table that is not local, broadcast or multicast, default
    /// routes (0.0.0.0/0, ::/0) included.
    pub routes: Vec<IpNet>,
    /// Every link.
    pub links: Vec<Link>,
    /// For whom the host is a router over IPv4.
    pub forwarding: Forwarding,
    /// `net.netfilter.nf_conntrack_max`: how many connections each network namespace may track. `None`: connection
    /// tracking is not loaded yet.
    pub tracked_connections: Option<u32>,
    /// What there is of IPv6; `None` where the kernel has none.
    pub ipv6: Option<Ipv6Facts>,
}

/// IPv6 on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ipv6Facts {
    /// The link of the IPv6 default route with the lowest metric in the main table.
    pub uplink: Option<Uplink>,
    /// `net.ipv6.conf.all.forwarding`: whether every link forwards.
    pub forwards: bool,
    /// `net.ipv6.conf.<link>.force_forwarding` by the name of the link; empty before Linux 6.17.
    pub force_forwarding: BTreeMap<String, bool>,
}

/// The link that leads outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The name of the link.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// In bytes.
    pub mtu: u32,
    /// The address that packets to the outside have: that of the route, else the first of the link.
    pub address: Option<IpAddr>,
}

/// An address of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAddress {
    /// The name of its link.
    pub link: String,
    /// The number of its link.
    pub index: u32,
    /// The address, with the length of its subnet's prefix.
    pub address: IpNet,
}

/// A link of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// In bytes.
    pub mtu: u32,
}

/// The switches of IPv4 forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Forwarding {
    /// `net.ipv4.ip_forward`: whether every link forwarded when it was last written.
    pub global: bool,
    /// `net.ipv4.conf.<link>.forwarding` by the name of the link.
    pub links: BTreeMap<String, bool>,
}
