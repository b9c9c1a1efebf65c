//! Policy-routing rules: which packet looks into which routing table.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::ip;
use super::path::ANYWHERE4;
use super::{PROTOCOL, Request, Route, address_family, tolerate};
use crate::kernel::wire::{attributes, text_of, u32_at};

/// The size of `struct fib_rule_hdr`, and where things are in it.
const HEADER: usize = 12;
const PREFIX: usize = 1;
const TABLE: usize = 4;
const ACTION: usize = 7;

/// From `linux/fib_rules.h`.
const FRA_DST: u16 = 1;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;

/// A rule that looks into a table. What it does not name, it does not ask of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    /// The lower, the earlier it is asked.
    pub priority: u32,
    /// Where the packet goes, and of which family it is.
    pub destination: IpNet,
    /// The name of the link it came in by. The link need not exist.
    pub iif: Option<String>,
    /// Its mark, as (value, mask).
    pub fwmark: Option<(u32, u32)>,
    /// The table to look into.
    pub table: u32,
}

impl Default for RuleSpec {
    fn default() -> Self {
        Self { priority: 0, destination: ANYWHERE4, iif: None, fwmark: None, table: 0 }
    }
}

/// A rule as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// The rule. Of another program's rule this may not be all.
    pub spec: RuleSpec,
    /// Whose it is: [`PROTOCOL`] is netbox's.
    pub protocol: u8,
}

/// Makes a rule, with netbox's mark.
#[must_use]
pub fn add(rule: &RuleSpec) -> Request {
    Request::new(
        format!("ip rule add priority {} table {}", rule.priority, rule.table),
        NLM_F_CREATE | NLM_F_EXCL,
        RouteNetlinkMessage::NewRule(message(rule)),
    )
}

/// Removes a rule of netbox's.
#[must_use]
pub fn delete(rule: &RuleSpec) -> Request {
    let what = format!("ip rule delete priority {} table {}", rule.priority, rule.table);
    Request::new(what, 0, RouteNetlinkMessage::DelRule(message(rule)))
}

fn message(rule: &RuleSpec) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: address_family(rule.destination.addr()),
        dst_len: rule.destination.prefix_len(),
        table: u8::try_from(rule.table).unwrap_or_default(),
        action: RuleAction::ToTable,
        ..RuleHeader::default()
    };
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(PROTOCOL.into()),
    ];
    if rule.destination.prefix_len() > 0 {
        message.attributes.push(RuleAttribute::Destination(rule.destination.network()));
    }
    if let Some(name) = &rule.iif {
        message.attributes.push(RuleAttribute::Iifname(name.clone()));
    }
    if let Some((mark, mask)) = rule.fwmark {
        message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    }
    message
}

impl Route {
    /// Makes a rule, with netbox's mark.
    ///
    /// # Errors
    /// EEXIST when there is one that is the same in everything.
    pub fn add_rule(&mut self, rule: &RuleSpec) -> io::Result<()> {
        self.execute(add(rule))
    }

    /// Removes a rule of netbox's. One that is already gone is success.
    ///
    /// # Errors
    /// EPERM and those of the socket.
    pub fn remove_rule(&mut self, rule: &RuleSpec) -> io::Result<()> {
        tolerate(self.execute(delete(rule)), &[libc::ENOENT])
    }

    /// The rules that look into a table, IPv4's first, each family's in the order in which they are asked.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when the list would not stand still.
    pub fn rules(&mut self) -> io::Result<Vec<RuleInfo>> {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Unspec;
        self.dump(RouteNetlinkMessage::GetRule(message), decode)
    }
}

fn decode(payload: &[u8]) -> Option<RuleInfo> {
    if *payload.get(ACTION)? != FR_ACT_TO_TBL {
        return None;
    }
    let anywhere = match i32::from(*payload.first()?) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        // Rules of multicast routing.
        _ => return None,
    };
    let prefix = *payload.get(PREFIX)?;
    let destination = IpNet::new(anywhere, prefix).ok()?;
    let mut spec = RuleSpec { table: (*payload.get(TABLE)?).into(), destination, ..RuleSpec::default() };
    let (mut protocol, mut mark, mut mask) = (0, None, u32::MAX);
    for (kind, value) in attributes(payload.get(HEADER..)?) {
        match kind {
            FRA_PRIORITY => spec.priority = u32_at(value, 0)?,
            FRA_TABLE => spec.table = u32_at(value, 0)?,
            FRA_IIFNAME => spec.iif = Some(text_of(value)),
            FRA_FWMARK => mark = u32_at(value, 0),
            FRA_FWMASK => mask = u32_at(value, 0)?,
            FRA_PROTOCOL => protocol = *value.first()?,
            FRA_DST => spec.destination = IpNet::new(ip(value)?, prefix).ok()?,
            _ => {}
        }
    }
    // The kernel tells a mask, all ones, of rules that ask for no mark.
    spec.fwmark = mark.map(|mark| (mark, mask));
    Some(RuleInfo { spec, protocol })
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = decode(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_what_was_asked() {
        for destination in ["10.77.128.0/18", "fd12:3456:789a::/64", "0.0.0.0/0", "::/0"] {
            let spec = RuleSpec {
                priority: 7,
                destination: destination.parse().unwrap(),
                iif: Some("nb0".to_owned()),
                fwmark: Some((0x80_0000, 0x80_0000)),
                table: 0x6e63,
            };
            for request in [add(&spec), delete(&spec)] {
                let read = decode(&request.bytes[16..]).unwrap();
                assert_eq!((read.spec, read.protocol), (spec.clone(), PROTOCOL));
            }
        }
    }
}
