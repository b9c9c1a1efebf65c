//! Links: veth pairs, their state, their end.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort,
    InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo as Info, LinkMessage,
};

use super::{Request, Route, tolerate};
use crate::kernel::wire::{attribute, attributes, i32_at, text_of, u32_at};
use crate::plan::topology::Mac;
use crate::plan::wiring::QUEUES;

/// The size of `struct ifinfomsg`, and where its index and flags are.
const HEADER: usize = 16;
const INDEX: usize = 4;
const FLAGS: usize = 8;

/// From `linux/if_link.h`.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `IPV4_DEVCONF_FORWARDING` of `linux/ip.h`: the place in requests, and one more than that in answers.
const FORWARDING: u16 = 1;

/// `DEVCONF_FORCE_FORWARDING` of `linux/ipv6.h`, since Linux 6.17: the place among the settings, of 4 bytes each.
const FORCE_FORWARDING: usize = 59;

/// A pair of links to make, the second one in another network namespace.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// The name of the end that stays here, 1 to 15 bytes.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// Its hardware address.
    pub peer_mac: Mac,
    /// Where it goes.
    pub peer_netns: BorrowedFd<'a>,
    /// The indexes of this end and of the other, each free in its namespace; `None`: the kernel chooses both
    /// (`veth_newlink` takes the other's only together with this one's).
    pub indexes: Option<(u32, u32)>,
    /// The bridge that this end becomes a port of.
    pub bridge: Option<u32>,
}

/// What to change of a link. The default changes nothing.
///
/// None of this (but the MTU) works in the message that makes a veth: bringing an end up is ENOTCONN,
/// the address generation mode EAFNOSUPPORT, and the alias is ignored.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange<'a> {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// A text for people, up to 255 bytes.
    pub alias: Option<&'a str>,
    /// Do not hear ARP (`IFF_NOARP`), nor ask by it.
    pub no_arp: bool,
    /// Give the link no IPv6 address by itself (`IN6_ADDR_GEN_MODE_NONE`). EAFNOSUPPORT on a kernel without IPv6. In the
    /// message that brings the link up it is too late where the other end is up already: flags are changed first
    /// (net/core/rtnetlink.c, `do_setlink`), and the address is made at once.
    pub addr_gen_mode_none: bool,
    /// `net.ipv4.conf.<link>.forwarding`. Unlike a write to the sysctl this leaves LRO of a network card
    /// on and caches as they are (net/ipv4/devinet.c, `inet_set_link_af`): for fresh veths only.
    pub forwarding_v4: Option<bool>,
    /// In bytes.
    pub mtu: Option<u32>,
}

/// A link as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// The number of the link in its namespace.
    pub index: u32,
    /// The name of the link.
    pub name: String,
    /// The text for people.
    pub alias: Option<String>,
    /// The hardware address, where it has one of 6 bytes.
    pub mac: Option<Mac>,
    /// In bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Whether it is a loopback device.
    pub loopback: bool,
    /// `net.ipv4.conf.<link>.forwarding`.
    pub forwarding_v4: bool,
    /// `net.ipv6.conf.<link>.force_forwarding`; `None` on kernels before 6.17, and where the link has no IPv6.
    pub force_forwarding_v6: Option<bool>,
    /// The index of the link that it belongs to: a veth's is that of its other end, in that one's namespace.
    pub peer_index: Option<u32>,
    /// What has gone through it, where that was asked for.
    pub counters: Option<Counters>,
}

/// What has gone through a link since it was made, as its own namespace sees it (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came in by it.
    pub packets_received: u64,
    /// Packets that were sent by it.
    pub packets_sent: u64,
    /// Bytes that came in by it, with their link-layer headers.
    pub bytes_received: u64,
    /// Bytes that were sent by it, likewise.
    pub bytes_sent: u64,
}

impl Counters {
    /// Reads the first four numbers of the structure.
    fn read(value: &[u8]) -> Option<Self> {
        let at = |place: usize| value.get(place * 8..)?.first_chunk().copied().map(u64::from_ne_bytes);
        Some(Self {
            packets_received: at(0)?,
            packets_sent: at(1)?,
            bytes_received: at(2)?,
            bytes_sent: at(3)?,
        })
    }
}

/// Makes a veth. Both ends are down until [`set`] says otherwise.
#[must_use]
pub fn add_veth(veth: &Veth<'_>) -> Request {
    let mut peer = end(veth.peer_name, veth.peer_mac, veth.mtu);
    peer.attributes.push(LinkAttribute::NetNsFd(veth.peer_netns.as_raw_fd()));
    let mut here = end(veth.name, veth.mac, veth.mtu);
    // NLM_F_ECHO has the new link told back, with its index, since Linux 6.2.
    let mut flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
    if let Some((own, other)) = veth.indexes {
        here.header.index = own;
        peer.header.index = other;
        flags &= !NLM_F_ECHO;
    }
    here.attributes.extend(veth.bridge.map(LinkAttribute::Controller));
    here.attributes.push(LinkAttribute::LinkInfo(vec![
        Info::Kind(InfoKind::Veth),
        Info::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let what = format!("ip link add {} type veth peer {}", veth.name, veth.peer_name);
    Request::new(what, flags, RouteNetlinkMessage::NewLink(here))
}

/// Makes a bridge with a hardware address of its own, whatever ports it will have. It takes part in no spanning tree, and sends
/// multicasts to all ports without asking who wants them.
#[must_use]
pub fn add_bridge(name: &str, index: u32, mac: Mac) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            Info::Kind(InfoKind::Bridge),
            Info::Data(InfoData::Bridge(vec![
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ];
    let what = format!("ip link add {name} type bridge");
    Request::new(what, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(message))
}

/// Makes a port of a bridge one that is told, and learns nothing by itself: what is sent to an address that nobody has goes
/// nowhere, and who has an address is answered by the bridge. What is sent to a reserved address takes the way of all
/// frames, by `forward_all`: else it is the port's own, past the bridge's rules (net/bridge/br_input.c, `br_handle_frame`).
#[must_use]
pub fn set_port(index: u32, isolated: bool, forward_all: u16) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::LinkInfo(vec![
        Info::PortKind(InfoPortKind::Bridge),
        Info::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Learning(false),
            InfoBridgePort::UnicastFlood(false),
            InfoBridgePort::ProxyARPWifi(true),
            InfoBridgePort::Isolated(isolated),
            InfoBridgePort::GroupFwdMask(forward_all),
        ])),
    ])];
    let what = format!("ip link set dev #{index} type bridge_slave");
    Request::new(what, 0, RouteNetlinkMessage::NewLink(message))
}

fn end(name: &str, mac: Mac, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NumTxQueues(QUEUES),
        LinkAttribute::NumRxQueues(QUEUES),
    ];
    message
}

/// Changes a link.
#[must_use]
pub fn set(index: u32, change: &LinkChange<'_>) -> Request {
    let mut what = format!("ip link set dev #{index}");
    let mut message = LinkMessage::default();
    message.header.index = index;
    if let Some(mtu) = change.mtu {
        let _ = write!(what, " mtu {mtu}"); // writing to a String cannot fail
        message.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(alias) = change.alias {
        let _ = write!(what, " alias {alias}");
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    }
    let mut families = Vec::new();
    if let Some(forwarding) = change.forwarding_v4 {
        let _ = write!(what, " forwarding {}", u8::from(forwarding));
        // By hand: the crate's request type leaves every value out that is 0.
        let [kind, length] = [FORWARDING, 8].map(u16::to_ne_bytes);
        let value = [&length[..], &kind[..], &u32::from(forwarding).to_ne_bytes()[..]].concat();
        let conf = DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, value);
        families.push(AfSpecUnspec::Inet(vec![AfSpecInet::Other(conf)]));
    }
    if change.addr_gen_mode_none {
        what.push_str(" addrgenmode none");
        families.push(AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]));
    }
    if !families.is_empty() {
        message.attributes.push(LinkAttribute::AfSpecUnspec(families));
    }
    if let Some(up) = change.up {
        let _ = write!(what, " {}", if up { "up" } else { "down" });
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        message.header.change_mask = LinkFlags::Up;
    }
    if change.no_arp {
        what.push_str(" arp off");
        message.header.flags |= LinkFlags::Noarp;
        message.header.change_mask |= LinkFlags::Noarp;
    }
    Request::new(what, 0, RouteNetlinkMessage::SetLink(message))
}

/// Makes a link of a pair, whose ends are both up, carry packets from now on.
///
/// The end that came up first has no queue until the kernel's link watch has run, some time later, and
/// drops what is sent (net/core/link_watch.c). Asking for the link runs it at once (`rtnl_getlink`, Linux ≥ 6.8).
#[must_use]
pub fn settle(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![short()];
    Request::new(format!("ip link show dev #{index}"), 0, RouteNetlinkMessage::GetLink(message))
}

/// Removes a link. Takes 20 ms and more, most of it waiting for RCU.
#[must_use]
pub fn delete(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request::new(format!("ip link delete dev #{index}"), 0, RouteNetlinkMessage::DelLink(message))
}

impl Route {
    /// Makes a veth and tells the index of the end that stays here.
    ///
    /// # Errors
    /// EEXIST when a name is taken, in either namespace.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> io::Result<u32> {
        let mut index = None;
        let refused = self.transact(&[add_veth(veth)], |payload| {
            index = decode(payload).filter(|link| link.name == veth.name).map(|link| link.index);
        })?;
        match (refused, index) {
            (Some(refused), _) => Err(refused.into()),
            (None, Some(index)) => Ok(index),
            (None, None) => self.link_index(veth.name),
        }
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// Those of the socket; ERANGE for a name of more than 15 bytes.
    pub fn link_by_name(&mut self, name: &str) -> io::Result<Option<LinkInfo>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned()), short()];
        self.one_link(Request::new(format!("ip link show {name}"), 0, RouteNetlinkMessage::GetLink(message)))
    }

    fn one_link(&mut self, question: Request) -> io::Result<Option<LinkInfo>> {
        let mut found = None;
        match self.transact(&[question], |payload| found = decode(payload))? {
            Some(refused) if refused.refusal.errno == libc::ENODEV => Ok(None),
            Some(refused) => Err(refused.into()),
            None => Ok(found),
        }
    }

    /// The link with that index, if there is one, with its counters.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn link_with_counters(&mut self, index: u32) -> io::Result<Option<LinkInfo>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let message = RouteNetlinkMessage::GetLink(message);
        self.one_link(Request::new(format!("ip -s link show dev #{index}"), 0, message))
    }

    /// The index of the link of that name.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn link_index(&mut self, name: &str) -> io::Result<u32> {
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        self.link_by_name(name)?.map(|link| link.index).ok_or_else(gone)
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when the table would not stand still.
    pub fn links(&mut self) -> io::Result<Vec<LinkInfo>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![short()];
        self.dump(RouteNetlinkMessage::GetLink(message), decode)
    }

    /// The same with their counters.
    ///
    /// # Errors
    /// As [`Route::links`].
    pub fn links_with_counters(&mut self) -> io::Result<Vec<LinkInfo>> {
        self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), decode)
    }

    /// Changes a link.
    ///
    /// # Errors
    /// ENODEV when there is no such link, else what the change meets.
    pub fn set_link(&mut self, index: u32, change: &LinkChange<'_>) -> io::Result<()> {
        self.execute(set(index, change))
    }

    /// Removes a link. Takes 20 ms and more, most of it waiting for RCU.
    ///
    /// # Errors
    /// ENODEV when there is no such link.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        self.execute(delete(index))
    }

    /// Removes the link of that name. One that is already gone is success.
    ///
    /// # Errors
    /// EPERM and those of the socket.
    pub fn remove_link(&mut self, name: &str) -> io::Result<()> {
        match self.link_by_name(name)? {
            Some(link) => tolerate(self.delete_link(link.index), &[libc::ENODEV]),
            None => Ok(()),
        }
    }
}

/// Leaves the counters out of an answer, which are most of it.
fn short() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

pub(in crate::kernel) fn decode(payload: &[u8]) -> Option<LinkInfo> {
    let (index, flags) = (u32_at(payload, INDEX)?, LinkFlags::from_bits_retain(u32_at(payload, FLAGS)?));
    let mut link = LinkInfo {
        index,
        name: String::new(),
        alias: None,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        forwarding_v4: false,
        force_forwarding_v6: None,
        peer_index: None,
        counters: None,
    };
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = Mac::try_from(value).ok(),
            IFLA_IFNAME => link.name = text_of(value),
            IFLA_IFALIAS => link.alias = Some(text_of(value)),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_LINK => link.peer_index = u32_at(value, 0),
            IFLA_STATS64 => link.counters = Counters::read(value),
            IFLA_AF_SPEC => {
                let conf = attribute(value, AF_INET).and_then(|inet| attribute(inet, IFLA_INET_CONF));
                link.forwarding_v4 =
                    conf.and_then(|values| i32_at(values, 0)).is_some_and(|forwarding| forwarding != 0);
                let conf = attribute(value, AF_INET6).and_then(|inet| attribute(inet, IFLA_INET6_CONF));
                link.force_forwarding_v6 =
                    conf.and_then(|values| i32_at(values, FORCE_FORWARDING * 4)).map(|forward| forward != 0);
            }
            _ => {}
        }
    }
    Some(link)
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = decode(payload);
}
