//! What decisions rest on: the machine's network as plain data, read once by `host`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The network of the namespace netbox was started in. IPv4 only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The link of the default route with the lowest metric in the main table. A host may have none.
    pub uplink: Option<Uplink>,
    /// Every address of every link.
    pub addresses: Vec<HostAddress>,
    /// Every destination in every routing table that is not local, broadcast or multicast, default
    /// routes (0.0.0.0/0) included.
    pub routes: Vec<Ipv4Net>,
    /// Every link.
    pub links: Vec<Link>,
    /// For whom the host is a router.
    pub forwarding: Forwarding,
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
    pub address: Option<Ipv4Addr>,
}

/// An address of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAddress {
    /// The name of its link.
    pub link: String,
    /// The number of its link.
    pub index: u32,
    /// The address, with the length of its subnet's prefix.
    pub address: Ipv4Net,
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
