//! What netbox writes down about a box and about its gateway, so that others find it and can take it down.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

use super::exec::Rights;
use super::ipv6;
use super::network::Member;
use super::routed::Routed;
use super::topology::Topology;
use crate::spec::host_port::HostPortSpec;
use crate::spec::name::BoxId;
use crate::spec::port::Protocol;
use crate::spec::request::RunRequest;

/// Where one port of a box can be reached, in the form of `ps --json` too. A port on every address of both families is two of
/// these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMap {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address that the port is published on; unspecified: every one of its family.
    pub host_address: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The box's port.
    pub box_port: u16,
}

impl PortMap {
    /// Whether the port is published on the host's loopback only: then no rule knows it, and a neighbour's
    /// spoofed packet meets nothing.
    #[must_use]
    pub const fn is_loopback_only(&self) -> bool {
        self.host_address.is_loopback()
    }

    /// Where it is on the host: `0.0.0.0:8080`, `[::]:8080`. Port 0 is one that is still to be chosen.
    #[must_use]
    pub fn on_host(&self) -> String {
        let port = match self.host_port {
            0 => "EPHEMERAL".to_owned(),
            port => port.to_string(),
        };
        match self.host_address {
            IpAddr::V4(address) => format!("{address}:{port}"),
            IpAddr::V6(address) => format!("[{address}]:{port}"),
        }
    }

    /// The one address that it is published on; `None`: all of the family's.
    #[must_use]
    pub fn one_address(&self) -> Option<IpAddr> {
        Some(self.host_address).filter(|address| !address.is_unspecified())
    }
}

impl fmt::Display for PortMap {
    /// `0.0.0.0:8080->80/tcp`, as `docker ps` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}/{}", self.on_host(), self.box_port, self.protocol)
    }
}

/// How a box is attached to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Attachment {
    /// The gateway.
    pub topology: Topology,
    /// The box's slot in the pool, one that the pool has.
    pub slot: u32,
    /// Its IPv6 address in the pool, where it has one: the host knows it by that, and it has another itself in a network.
    pub address6: Option<Ipv6Addr>,
    /// The address of the host's that what it sends leaves with; `None`: that of the interface that a packet leaves by.
    pub snat: Option<IpAddr>,
    /// Its places in networks. Where its way out leads through one of them, its address of the pool is that which the host knows it
    /// by, and it has another itself; else that is its own, on a link of its own.
    pub networks: Vec<Member>,
}

impl Attachment {
    /// How the box of a request is attached in `slot`, before it is in a network.
    #[must_use]
    pub fn new(topology: Topology, slot: u32, request: &RunRequest) -> Self {
        let address6 = ipv6::of_box(&topology, slot, request.mtu.unwrap_or(topology.mtu));
        let address6 = address6.filter(|_| !request.no_ipv6);
        Self { topology, slot, address6, snat: request.snat, networks: Vec::new() }
    }

    /// To be called when it is in its networks, if any: it has IPv6 outside where it has it on its way out.
    ///
    /// # Errors
    /// When it is to send with an IPv6 address, and has none.
    pub fn look_at_ipv6(&mut self) -> Result<()> {
        let lacks_six = self.way_out().is_some_and(|member| member.ipv6.is_none());
        self.address6 = self.address6.filter(|_| !lacks_six);
        if let (Some(source @ IpAddr::V6(_)), None) = (self.snat, self.address6) {
            return Err(Error::new(format!("cannot send with the address {source}"))
                .because("the box has no IPv6")
                .hint("--verbose says why"));
        }
        Ok(())
    }

    /// Its place in the network that its way out leads through; `None`: it has a link of its own for that.
    #[must_use]
    pub fn way_out(&self) -> Option<&Member> {
        self.networks.iter().find(|member| member.link == 0)
    }

    /// The address that the box itself has, on its way out.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.way_out().map_or_else(|| self.pool_address(), |member| member.address)
    }

    /// The address that the host knows it by.
    #[must_use]
    pub fn pool_address(&self) -> Ipv4Addr {
        self.topology.box_address(self.slot)
    }

    /// The IPv6 address that the box itself has, on its way out. In a network it may have one though it reaches nothing outside.
    #[must_use]
    pub fn own_address6(&self) -> Option<Ipv6Addr> {
        self.way_out().map_or(self.address6, Member::address6)
    }

    /// The addresses by which the gateway reaches the box.
    #[must_use]
    pub fn inside(&self) -> Reached {
        Reached { ipv4: self.address(), ipv6: self.address6.and(self.own_address6()) }
    }

    /// Those by which the host does.
    #[must_use]
    pub fn outside(&self) -> Reached {
        Reached { ipv4: self.pool_address(), ipv6: self.address6 }
    }

    /// What it is attached to, in the words of `--net`.
    #[must_use]
    pub fn net(&self) -> String {
        let own = self.way_out().is_none().then_some("nat");
        let networks = self.networks.iter().map(|member| member.name.as_str());
        own.into_iter().chain(networks).collect::<Vec<_>>().join(",")
    }

    /// Its links, each by its number.
    pub fn links(&self) -> impl Iterator<Item = u32> {
        let own = self.way_out().is_none().then_some(0);
        own.into_iter().chain(self.networks.iter().map(|member| member.link))
    }

    /// The index of the interface of the gateway by which the box with its way out is reached.
    #[must_use]
    pub fn interface_index(&self) -> u32 {
        self.way_out().map_or_else(|| Topology::link_index(self.slot, 0), |member| member.bridge)
    }

    /// The box's addresses that others than members of its networks reach.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let Reached { ipv4, ipv6 } = self.inside();
        [IpAddr::V4(ipv4)].into_iter().chain(ipv6.map(IpAddr::V6)).collect()
    }

    /// All that a box in `slot` can have in the gateway: what has to be removed there after one of which nothing else is known.
    #[must_use]
    pub fn at_most(topology: Topology, slot: u32, networks: Vec<Member>) -> Self {
        Self { topology, slot, address6: topology.box_address6(slot), snat: None, networks }
    }
}

/// The addresses by which a box is reached from one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Its IPv4 address there.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address; `None`: it is not reached over IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Reached {
    /// That of the same family as `address`.
    #[must_use]
    pub fn like(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => Some(IpAddr::V4(self.ipv4)),
            IpAddr::V6(_) => self.ipv6.map(IpAddr::V6),
        }
    }
}

/// An attachment as a state file has it: addresses are computed only from one that can be.
#[derive(Deserialize)]
struct Written {
    topology: Topology,
    slot: u32,
    address6: Option<Ipv6Addr>,
    snat: Option<IpAddr>,
    #[serde(default)]
    networks: Vec<Member>,
}

impl TryFrom<Written> for Attachment {
    type Error = &'static str;

    fn try_from(
        Written { topology, slot, address6, snat, networks }: Written,
    ) -> std::result::Result<Self, Self::Error> {
        if !topology.has(slot) {
            return Err("the pool has no such slot");
        }
        Ok(Self { topology, slot, address6, snat, networks })
    }
}

/// What `--export-netns` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The file in /run/netns.
    pub name: String,
    /// What the kernel calls the network namespace (SO_NETNS_COOKIE), never used twice.
    pub cookie: u64,
}

/// The mount namespace of a box, by which its processes are found after a crash.
pub type MountIdentity = (u64, Option<u64>);

/// One box, as its directory describes it. Written before the first port is mapped and before the command runs, and again when its
/// ports change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxRecord {
    /// Short, random, never used twice.
    pub id: String,
    /// The name that the user gave; the id where none.
    pub name: String,
    /// The `netbox run` process.
    pub pid: i32,
    /// The keeper.
    pub keeper_pid: i32,
    /// The command.
    pub box_pid: i32,
    /// `nat`, `none`, `host`, the names of networks with commas between them, or whose it is: `netns:…`, `box:…`.
    pub net: String,
    /// `root`.
    pub privilege: String,
    /// The command line; bytes that are not UTF-8 are replaced.
    pub command: Vec<String>,
    /// RFC 3339.
    pub started: String,
    /// Where it hangs; `None` for boxes without the gateway.
    pub attachment: Option<Attachment>,
    /// Its published ports.
    pub ports: Vec<PortMap>,
    /// Ports of the host's that it reaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPortSpec>,
    /// While they are being changed, those that it had or is to have: whoever takes the box down takes both down. Else none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_ports: Vec<PortMap>,
    /// A network that it is just about to get a seat in, which is not yet among its attachment's: whoever takes it down looks there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joining: Option<BoxId>,
    /// Its mount namespace; `None` for a box that shares the host's.
    pub mounts: Option<MountIdentity>,
    /// The inode of its network namespace in nsfs; `None` for a box that shares the host's.
    pub network: Option<u64>,
    /// The name under which ip-netns(8) sees its network. Written down before that is there.
    #[serde(default)]
    pub exported: Option<Exported>,
    /// Who its command was started as; `None` where an earlier netbox did not write it down.
    #[serde(default)]
    pub rights: Option<Rights>,
    /// Whether it was started to go on without its caller (`-d`): then it is known longer than it lives.
    #[serde(default)]
    pub detached: bool,
    /// Whether what listens in it is published (`-P`): then its keeper watches the calls of whoever joins it.
    #[serde(default)]
    pub publish_all: bool,
}

/// What is kept of a detached box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRecord {
    /// The host that it was on: the number of the network namespace.
    pub host: String,
    /// During which boot of the machine (random(4), boot_id).
    pub boot: String,
    /// Whether it is to be forgotten when it ends.
    pub forget: bool,
    /// What was known of it while it lived.
    #[serde(rename = "box")]
    pub known: BoxRecord,
}

/// How a detached box ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// That of the run; `None` where all who could have known it were killed.
    pub exit_status: Option<u8>,
    /// When, or when that was found out; RFC 3339.
    pub ended: String,
}

/// The gateway, as the state directory describes it. Written before the first thing that it describes is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    /// Its shape.
    pub topology: Topology,
    /// What the kernel calls its network namespace (SO_NETNS_COOKIE): unlike an inode, never used twice.
    pub cookie: u64,
    /// The interfaces of the host on which netbox switched IPv4 forwarding on, and has to switch it off.
    pub switched: Vec<String>,
    /// The interfaces of the host on which netbox switched `force_forwarding` of IPv6 on, and has to switch it off.
    pub switched6: Vec<String>,
    /// The addresses of the host at that time, but for loopback and link-local ones.
    pub host_addresses: Vec<IpAddr>,
    /// Why boxes have no IPv6, where they have none.
    pub without_ipv6: Option<String>,
    /// How many connections a box may have at a time.
    #[serde(default = "most_connections")]
    pub connections: u32,
    /// The bridges in it, each whole before it is written down here.
    #[serde(default)]
    pub bridges: Vec<Bridge>,
    /// What the host has because of networks that other machines reach; of one whose bridge is not among these, part of it.
    #[serde(default)]
    pub routed: Vec<Routed>,
}

/// The bridge of a network in the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The network's id.
    pub network: BoxId,
    /// The index of the bridge.
    pub index: u32,
}

/// Where an earlier netbox wrote the record, which did not write it down.
fn most_connections() -> u32 {
    super::gateway::connections(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::topology::Ipv6;

    fn topology(ipv6: Ipv6) -> Topology {
        Topology { pool: "10.99.7.32/27".parse().unwrap(), ipv6, number: 0, mtu: 1500 }
    }

    #[test]
    fn a_box_has_ipv6_where_its_gateway_has_and_it_may() {
        let six = topology(Ipv6::Pool("fd12::/64".parse().unwrap()));
        let of = |topology, request: RunRequest| Attachment::new(topology, 3, &request).address6;
        assert_eq!(of(six, RunRequest::default()), "fd12::13".parse().ok());
        for (topology, request) in [
            (six, RunRequest { no_ipv6: true, ..Default::default() }),
            (six, RunRequest { mtu: Some(1279), ..Default::default() }),
            (topology(Ipv6::Closed), RunRequest::default()),
        ] {
            assert_eq!(of(topology, request), None);
        }
    }

    #[test]
    fn a_box_without_ipv6_cannot_send_with_an_ipv6_address() {
        let snat = |text: &str| RunRequest { snat: text.parse().ok(), ..Default::default() };
        let of = |request| {
            let mut attachment = Attachment::new(topology(Ipv6::Closed), 0, &request);
            attachment.look_at_ipv6().map(|()| attachment)
        };
        let error = of(snat("2001:db8::1")).unwrap_err();
        assert_eq!(error.exit_status(), 125);
        assert!(error.to_string().contains("2001:db8::1"), "{error}");
        let four = of(snat("192.0.2.1")).unwrap();
        assert_eq!(four.snat, "192.0.2.1".parse().ok());
    }

    #[test]
    fn a_slot_that_the_pool_has_not_is_not_read() {
        let of = |slot: u32| {
            let attachment =
                Attachment { slot, ..Attachment::at_most(topology(Ipv6::Closed), 0, Vec::new()) };
            serde_json::from_str::<Attachment>(&serde_json::to_string(&attachment).unwrap())
        };
        assert_eq!(of(14).unwrap().slot, 14);
        assert!(of(15).is_err() && of(u32::MAX).is_err());
    }
}
