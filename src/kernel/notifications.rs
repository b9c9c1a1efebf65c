//! What the kernel tells without being asked: changes of the network (rtnetlink(7)) and of the rules (nf_tables), by
//! whomever.
//!
//! A small filter in the kernel keeps back what is of no interest, above all the changes that netbox makes itself, so
//! that nobody is woken for them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
};

use super::bpf::{self, load, skip_if, verdict};
use super::route::{PROTOCOL, link};
use super::wire::{self, HEADER, attribute, attributes, i32_at, text_of, u32_at};
use crate::plan::changes::Change;

/// How many bytes of notifications may wait. A socket for which they are too many says so (ENOBUFS), and then
/// everything is looked at.
const WAITING: usize = 256 << 10;

/// No notification is larger, in bytes (`NLMSG_GOODSIZE`; one rule or element of another program's may be).
const LONGEST: usize = 64 << 10;

/// Multicast groups of `linux/rtnetlink.h`, as bits: links, and addresses, routes, rules and per-interface settings of both
/// families.
const NETWORK: u32 = bit(1) | IPV4 | IPV6;
const IPV4: u32 = bit(5) | bit(7) | bit(8) | bit(24);
const IPV6: u32 = bit(9) | bit(11) | bit(19) | bit(25);
/// `NFNLGRP_NFTABLES`.
const RULES: u32 = bit(7);

const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;
const RTM_DELLINK: u16 = libc::RTM_DELLINK;
const RTM_NEWADDR: u16 = libc::RTM_NEWADDR;
const RTM_DELADDR: u16 = libc::RTM_DELADDR;
const RTM_NEWROUTE: u16 = libc::RTM_NEWROUTE;
const RTM_DELROUTE: u16 = libc::RTM_DELROUTE;
const RTM_NEWRULE: u16 = libc::RTM_NEWRULE;
const RTM_DELRULE: u16 = libc::RTM_DELRULE;
/// From `linux/rtnetlink.h`; libc has no name for it.
const RTM_NEWNETCONF: u16 = 80;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_TABLE: u16 = 15;
const FRA_TABLE: u16 = 15;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;

const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFT_MSG_NEWTABLE: u8 = 0;
const NFT_MSG_NEWSETELEM: u8 = 12;
const NFT_MSG_DELSETELEM: u8 = 14;
const NFT_MSG_NEWGEN: u8 = 15;
/// The name of the table is the first attribute of every notification but `NFT_MSG_NEWGEN`.
const NFTA_TABLE: u16 = 1;

/// Where `nlmsg_pid` is in `struct nlmsghdr`: of a change, the socket of whoever made it.
const SENDER: usize = 12;

const fn bit(group: u32) -> u32 {
    1 << (group - 1)
}

/// A socket that listens. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Notifications {
    fd: OwnedFd,
    decode: fn(u16, &[u8]) -> Option<Change>,
    /// Whose changes of rules are netbox's; the kernel itself, 0, is nobody.
    own: u32,
}

/// What came since the last time.
#[derive(Debug, Default)]
pub struct News {
    /// The changes, in their order.
    pub changes: Vec<Change>,
    /// The kernel had to leave some out: anything may have changed.
    pub lost: bool,
}

impl Notifications {
    /// Listens for changes of links, addresses, forwarding, rules and routes; of routes only for the end of netbox's own, because
    /// a router's others come and go all the time.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn of_network() -> io::Result<Self> {
        let filter = vec![
            // The machine's byte order in the message, network byte order in the filter (socket(7), bpf(4)).
            load(2, 4),
            skip_if(u32::from(RTM_NEWRULE.to_be()), 0, 1),
            verdict(false),
            skip_if(u32::from(RTM_NEWROUTE.to_be()), 0, 1),
            verdict(false),
            skip_if(u32::from(RTM_DELROUTE.to_be()), 1, 0),
            verdict(true),
            // rtm_protocol of `struct rtmsg`.
            load(1, HEADER + 5),
            skip_if(u32::from(PROTOCOL), 0, 1),
            verdict(true),
            verdict(false),
        ];
        Self::open(SockProtocol::NetlinkRoute, NETWORK, filter, decode_network, 0)
    }

    /// Listens for changes of nf_tables. Of those made through the socket of this number ([`super::nft::Nft::number`]) only
    /// for the ones that begin with something else than elements: tables made anew.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn of_rules(own: u32) -> io::Result<Self> {
        let mut filter = vec![load(4, SENDER), skip_if(own.to_be(), 1, 0), verdict(true), load(2, 4)];
        for kind in [NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_NEWGEN] {
            let kind = u16::from_le_bytes([kind, NFNL_SUBSYS_NFTABLES]);
            filter.extend([skip_if(u32::from(kind.to_be()), 0, 1), verdict(false)]);
        }
        filter.push(verdict(true));
        Self::open(SockProtocol::NetlinkNetFilter, RULES, filter, decode_rules, own)
    }

    fn open(
        protocol: SockProtocol,
        groups: u32,
        filter: Vec<libc::sock_filter>,
        decode: fn(u16, &[u8]) -> Option<Change>,
        own: u32,
    ) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        setsockopt(&fd, sockopt::RcvBuf, &WAITING)?;
        // Before it is a member of any group: nothing comes in past the filter.
        bpf::attach(fd.as_fd(), filter)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, decode, own })
    }

    /// Takes all that has come, without waiting for more.
    ///
    /// # Errors
    /// None to be expected.
    pub fn read(&self) -> io::Result<News> {
        let mut news = News::default();
        let mut buffer = vec![0; LONGEST];
        loop {
            let length = match socket::recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(news),
                Err(Errno::ENOBUFS) => {
                    news.lost = true;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            let Some(datagram) = buffer.get(..length) else {
                news.lost = true;
                continue;
            };
            // All messages of a datagram are about one transaction.
            if self.own != 0 && u32_at(datagram, SENDER) == Some(self.own) {
                news.changes.push(Change::OwnRules);
                continue;
            }
            let all = wire::messages(datagram);
            news.changes.extend(all.filter_map(|message| (self.decode)(message.kind, message.payload)));
        }
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn decode_network(kind: u16, payload: &[u8]) -> Option<Change> {
    match kind {
        RTM_NEWLINK => {
            let link = link::decode(payload)?;
            Some(Change::Link { index: link.index, name: link.name, mac: link.mac, up: link.up })
        }
        RTM_DELLINK => {
            let link = link::decode(payload)?;
            Some(Change::LinkGone { index: link.index, mac: link.mac })
        }
        RTM_NEWADDR | RTM_DELADDR => {
            // struct ifaddrmsg: family, prefix length, flags, scope, index
            let of = payload.get(8..)?;
            let value = attribute(of, IFA_LOCAL).or_else(|| attribute(of, IFA_ADDRESS))?;
            let (index, address) = (u32_at(payload, 4)?, address(value)?);
            Some(if kind == RTM_NEWADDR {
                Change::Address { index, address }
            } else {
                Change::AddressGone { index, address }
            })
        }
        RTM_DELROUTE => table(payload, RTA_TABLE).map(|table| Change::RouteGone { table }),
        RTM_DELRULE => table(payload, FRA_TABLE).map(|table| Change::RuleGone { table }),
        RTM_NEWNETCONF => {
            // struct netconfmsg: a family, padded
            let of = payload.get(4..)?;
            let index = attribute(of, NETCONFA_IFINDEX).and_then(|value| i32_at(value, 0))?;
            let on = attribute(of, NETCONFA_FORWARDING).and_then(|value| i32_at(value, 0))? != 0;
            // -1 all of them, -2 those that are yet to come (linux/netconf.h)
            Some(Change::Forwarding { index: u32::try_from(index).ok(), on })
        }
        _ => None,
    }
}

/// The routing table of a route or a routing rule: `struct rtmsg` and `struct fib_rule_hdr` are alike in that.
fn table(payload: &[u8], kind: u16) -> Option<u32> {
    let of = payload.get(12..)?;
    attribute(of, kind).and_then(|value| u32_at(value, 0)).or_else(|| payload.get(4).copied().map(u32::from))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
        16 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

fn decode_rules(kind: u16, payload: &[u8]) -> Option<Change> {
    let [number, subsystem] = kind.to_le_bytes();
    if subsystem != NFNL_SUBSYS_NFTABLES || number == NFT_MSG_NEWGEN {
        return None;
    }
    let table = attributes(payload.get(4..)?).find(|(kind, _)| *kind == NFTA_TABLE)?;
    Some(Change::Rules { table: text_of(table.1), made: number == NFT_MSG_NEWTABLE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(wire::align(bytes.len()), 0);
        bytes
    }

    fn message(header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = header.to_vec();
        bytes.extend(attributes.iter().flat_map(|(kind, value)| attribute(*kind, value)));
        bytes
    }

    fn nftables(number: u8) -> u16 {
        u16::from_le_bytes([number, NFNL_SUBSYS_NFTABLES])
    }

    #[test]
    fn what_the_kernel_tells_is_understood_and_what_is_cut_short_is_passed_over() {
        let two = 2_u32.to_ne_bytes();
        let addressed = [[2, 24, 0, 0], two].concat();
        let cases = [
            (
                RTM_DELADDR,
                message(&addressed, &[(IFA_LOCAL, &[192, 0, 2, 1])]),
                Change::AddressGone { index: 2, address: Ipv4Addr::new(192, 0, 2, 1).into() },
            ),
            (
                RTM_DELRULE,
                message(&[0; 12], &[(FRA_TABLE, &0x6e63_u32.to_ne_bytes())]),
                Change::RuleGone { table: 0x6e63 },
            ),
            (
                RTM_NEWNETCONF,
                message(&[0; 4], &[(NETCONFA_IFINDEX, &two), (NETCONFA_FORWARDING, &[0; 4])]),
                Change::Forwarding { index: Some(2), on: false },
            ),
            (
                RTM_NEWNETCONF,
                message(
                    &[0; 4],
                    &[(NETCONFA_IFINDEX, &(-1_i32).to_ne_bytes()), (NETCONFA_FORWARDING, &[1; 4])],
                ),
                Change::Forwarding { index: None, on: true },
            ),
        ];
        for (kind, payload, change) in cases {
            assert_eq!(decode_network(kind, &payload), Some(change));
            for length in 0..payload.len() {
                let _ = decode_network(kind, &payload[..length]);
            }
        }
        let payload = message(&[1, 0, 0, 0], &[(NFTA_TABLE, b"netbox\0")]);
        let rules = |made| Some(Change::Rules { table: "netbox".to_owned(), made });
        assert_eq!(decode_rules(nftables(NFT_MSG_NEWTABLE), &payload), rules(true));
        assert_eq!(decode_rules(nftables(2), &payload), rules(false));
        assert_eq!(decode_rules(nftables(NFT_MSG_NEWGEN), &payload), None);
    }
}
