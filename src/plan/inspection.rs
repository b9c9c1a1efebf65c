//! A box as `netbox inspect` shows it. The form is stable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::network::Member;
use super::record::{BoxRecord, PortMap};
use super::topology::{Mac, Topology};
use super::wiring::BoxLink;
use super::wiring::written;
use crate::spec::host_port::HostPortSpec;
use crate::spec::name::BoxName;
use crate::spec::network::NetworkName;

/// One box.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// Its id.
    pub id: String,
    /// Its name; the id where it has none.
    pub name: String,
    /// Its processes.
    pub pids: Pids,
    /// The command line.
    pub command: Vec<String>,
    /// RFC 3339.
    pub started: String,
    /// `root`.
    pub privilege: String,
    /// `nat`, `none` or `host`.
    pub net: String,
    /// Those that the command is in.
    pub namespaces: Namespaces,
    /// Its way to the host, from end to end.
    pub interfaces: Interfaces,
    /// The networks with names that it is in.
    pub networks: Vec<InNetwork>,
    /// Its addresses, those of its way out.
    pub addresses: Addresses,
    /// Its next hops.
    pub gateways: Addresses,
    /// That of its interface, in bytes.
    pub mtu: Option<u32>,
    /// The hardware address of its interface.
    pub mac: Option<String>,
    /// Whom it asks for names.
    pub resolver: Option<IpAddr>,
    /// Its published ports, as in `ps --json`.
    pub ports: Vec<PortMap>,
    /// Ports of the host's that it reaches, likewise.
    pub host_ports: Vec<HostPortSpec>,
    /// What has gone over its link.
    pub counters: Option<Traffic>,
}

/// A box's place in a network.
#[derive(Debug, Clone, Serialize)]
pub struct InNetwork {
    /// The network.
    pub name: NetworkName,
    /// The box's interface there.
    pub interface: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where it has one.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: String,
    /// What the network's other boxes find it by, besides its name and its id.
    pub aliases: Vec<BoxName>,
    /// Whether its way out leads through there.
    pub way_out: bool,
}

impl From<&Member> for InNetwork {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            interface: member.interface.clone(),
            ipv4: member.address,
            ipv6: member.address6(),
            mac: written(member.mac),
            aliases: member.aliases.clone(),
            way_out: member.link == 0,
        }
    }
}

/// The processes that a box is made of, but for the command's own children.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pids {
    /// The `netbox run` process.
    pub launcher: i32,
    /// The process that keeps the box.
    pub keeper: i32,
    /// The command.
    pub command: i32,
}

/// Namespaces by their inodes, as in the links of `/proc/PID/ns`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Namespaces {
    /// Network.
    pub net: u64,
    /// Mounts.
    pub mnt: u64,
    /// Process numbers.
    pub pid: u64,
    /// Host name.
    pub uts: u64,
    /// System V objects and message queues.
    pub ipc: u64,
    /// Users.
    pub user: u64,
}

/// The interfaces between box and host. `None`: the box has none there, or it is gone.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Interfaces {
    /// The host's end of the link between host and gateway.
    pub host: Option<Interface>,
    /// The gateway's end of the link between gateway and box.
    pub gateway: Option<Interface>,
    /// The box's end of that.
    #[serde(rename = "box")]
    pub in_box: Option<Interface>,
}

/// One end of a veth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, in its namespace.
    pub index: u32,
    /// The number of its other end, in that one's namespace.
    pub peer_index: Option<u32>,
}

/// One address of each family.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Addresses {
    /// `None`: there is none.
    pub ipv4: Option<Ipv4Addr>,
    /// Likewise.
    pub ipv6: Option<Ipv6Addr>,
}

/// What has gone over a box's link, as seen from the box.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Bytes that came to it, with their link-layer headers.
    pub bytes_in: u64,
    /// Packets that came to it.
    pub packets_in: u64,
    /// Bytes that it sent, likewise.
    pub bytes_out: u64,
    /// Packets that it sent.
    pub packets_out: u64,
}

/// What the kernel says of a box.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The command's namespaces.
    pub namespaces: Namespaces,
    /// The interfaces.
    pub interfaces: Interfaces,
    /// The MTU of the box's end and its hardware address.
    pub end: Option<(u32, Option<Mac>)>,
    /// The counters of the gateway's end.
    pub traffic: Option<Traffic>,
}

impl Inspected {
    /// What is written down of a box together with what was seen of it.
    #[must_use]
    pub fn new(record: BoxRecord, seen: Seen) -> Self {
        let attachment = record.attachment.as_ref();
        let link = attachment.map(|attachment| BoxLink::new(attachment, attachment.topology.mtu));
        let six = link.as_ref().and_then(|link| link.ipv6);
        Self {
            id: record.id,
            name: record.name,
            pids: Pids { launcher: record.pid, keeper: record.keeper_pid, command: record.box_pid },
            command: record.command,
            started: record.started,
            privilege: record.privilege,
            net: record.net,
            namespaces: seen.namespaces,
            interfaces: seen.interfaces,
            networks: attachment.into_iter().flat_map(|own| &own.networks).map(InNetwork::from).collect(),
            addresses: Addresses {
                ipv4: link.as_ref().map(|link| link.address),
                ipv6: six.map(|six| six.address),
            },
            gateways: Addresses {
                // Nor has one in an internal network, which reaches its resolver alone.
                ipv4: link.as_ref().filter(|link| link.resolver.is_none()).map(|link| link.gateway),
                // A box without IPv6 has no way out by it.
                ipv6: six.filter(|six| six.only.is_none()).map(|six| six.gateway),
            },
            mtu: seen.end.map(|(mtu, _)| mtu),
            mac: seen.end.and_then(|(_, mac)| mac).map(written),
            resolver: attachment.map(|attachment| Topology::resolver_address(attachment.slot).into()),
            ports: record.ports,
            host_ports: record.host_ports,
            counters: seen.traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::record::Attachment;
    use crate::plan::topology::Ipv6;

    fn record(ipv6: Ipv6) -> BoxRecord {
        let topology = Topology { pool: "10.77.128.0/18".parse().unwrap(), ipv6, number: 3, mtu: 1500 };
        BoxRecord {
            id: "q2phdpxl".to_owned(),
            name: "web".to_owned(),
            pid: 10,
            keeper_pid: 11,
            box_pid: 12,
            net: "nat".to_owned(),
            privilege: "root".to_owned(),
            command: vec!["true".to_owned()],
            started: "2026-01-01T00:00:00.000Z".to_owned(),
            attachment: Some(Attachment::at_most(topology, 2, Vec::new())),
            ports: Vec::new(),
            mounts: None,
            host_ports: Vec::new(),
            other_ports: Vec::new(),
            joining: None,
            exported: None,
            rights: None,
            detached: false,
            publish_all: false,
            network: None,
        }
    }

    fn seen() -> Seen {
        Seen {
            namespaces: Namespaces { net: 1, mnt: 2, pid: 3, uts: 4, ipc: 5, user: 6 },
            interfaces: Interfaces::default(),
            end: None,
            traffic: None,
        }
    }

    fn json(record: BoxRecord, seen: Seen) -> serde_json::Value {
        serde_json::to_value(Inspected::new(record, seen)).unwrap()
    }

    #[test]
    fn what_follows_from_the_slot_is_told() {
        let six = Ipv6::Pool("fd12::/64".parse().unwrap());
        let end = Some((1400, Some([2, 0, 0, 0, 0, 1])));
        let value = json(record(six), Seen { end, ..seen() });
        for (pointer, expected) in [
            ("/addresses/ipv4", "10.77.128.18"),
            ("/addresses/ipv6", "fd12::12"),
            ("/gateways/ipv4", "10.77.128.1"),
            ("/gateways/ipv6", "fd12::1"),
            ("/resolver", "169.254.64.18"),
            ("/mac", "02:00:00:00:00:01"),
        ] {
            assert_eq!(value.pointer(pointer).unwrap(), expected, "{pointer}");
        }
        assert_eq!((&value["mtu"], &value["pids"]["keeper"]), (&1400.into(), &11.into()));
    }

    #[test]
    fn what_a_box_has_not_is_null_and_not_absent() {
        let without = json(BoxRecord { attachment: None, ..record(Ipv6::Closed) }, seen());
        let with = json(record(Ipv6::Closed), seen());
        for pointer in [
            "/addresses/ipv4",
            "/addresses/ipv6",
            "/gateways/ipv4",
            "/gateways/ipv6",
            "/resolver",
            "/mtu",
            "/mac",
            "/counters",
            "/interfaces/host",
            "/interfaces/gateway",
            "/interfaces/box",
        ] {
            assert_eq!(without.pointer(pointer), Some(&serde_json::Value::Null), "{pointer}");
            assert!(with.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(with["addresses"]["ipv6"].is_null() && with["gateways"]["ipv6"].is_null());
    }
}
