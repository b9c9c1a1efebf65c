//! Connections that the kernel tracks, and forgetting some of them.
//!
//! A tracked connection keeps the translation it began with: who takes an address or a port into use, or
//! gives it up, forgets what is left of its last user. The messages are those of
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
};

use super::netlink::Netlink;
use super::nft::Nft;
use super::wire::{Refusal, attribute};
use crate::error::{Context, Result};

const GET: u8 = 1;
const DELETE: u8 = 2;
const GET_STATS: u8 = 5;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

/// What a filter compares (`CTA_FILTER_F_*`): in the two tuples, in the machine's byte order.
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// Which connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// Those that began at the address, and those that are answered by it.
    Address(Ipv4Addr),
    /// Those that went to the port when they began, whatever it was translated to.
    Port {
        /// The IP protocol number.
        protocol: u8,
        /// The destination port.
        port: u16,
    },
}

/// A socket to the connection tracking of one network namespace.
#[derive(Debug)]
pub struct Conntrack(Netlink);

impl Conntrack {
    /// Shares a socket of [`Nft`]: closing one of the two closes nothing.
    ///
    /// # Errors
    /// EMFILE.
    pub fn on(nft: &Nft) -> Result<Self> {
        let socket = nft.as_fd().try_clone_to_owned().context(|| "cannot share a netfilter socket")?;
        Ok(Self(Netlink::from(socket)))
    }

    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink.
    pub fn open() -> Result<Self> {
        Self::on(&Nft::open()?)
    }

    /// Forgets the IPv4 connections that one of `selectors` means.
    ///
    /// # Errors
    /// When the kernel does not list its connections, or does not forget one.
    pub fn flush(&mut self, selectors: &[Selector]) -> Result<()> {
        if selectors.is_empty() || self.count()? == 0 {
            return Ok(());
        }
        for filter in selectors.iter().flat_map(|selector| selector.filters()) {
            match self.0.request(&mut message(DELETE, 0, filter), |_| {}) {
                Ok(()) => {}
                // A kernel that takes the filter for the tuple of one connection, and finds it wanting.
                Err(Refusal { errno: libc::EINVAL | libc::EOPNOTSUPP, .. }) => {
                    return self.flush_one_by_one(selectors);
                }
                Err(refusal) => return Err(refusal.into_error("cannot forget tracked connections")),
            }
        }
        Ok(())
    }

    /// For kernels that do not delete by filter: lists everything, and deletes each connection that is meant.
    ///
    /// # Errors
    /// As [`Conntrack::flush`].
    pub fn flush_one_by_one(&mut self, selectors: &[Selector]) -> Result<()> {
        let found = self
            .0
            .dump(&mut message(GET, NLM_F_DUMP, Vec::new()), |payload| {
                let connection = payload.get(4..)?;
                selectors.iter().any(|selector| selector.matches(connection)).then(|| identity(connection))
            })
            .map_err(|refusal| refusal.into_error("cannot list the tracked connections"))?;
        for connection in found {
            match self.0.request(&mut message(DELETE, 0, connection), |_| {}) {
                // ENOENT: it ended meanwhile, or two selectors meant it.
                Ok(()) | Err(Refusal { errno: libc::ENOENT, .. }) => {}
                Err(refusal) => return Err(refusal.into_error("cannot forget a tracked connection")),
            }
        }
        Ok(())
    }

    /// How many connections of either family the namespace has. Spares the walk through the table, which
    /// all namespaces share and which takes as long when it is empty.
    ///
    /// # Errors
    /// When the kernel does not count them.
    pub fn count(&mut self) -> Result<u32> {
        let mut count = 0;
        let each = |payload: &[u8]| {
            let entries = attribute(payload.get(4..).unwrap_or_default(), CTA_STATS_GLOBAL_ENTRIES);
            count =
                entries.and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes));
        };
        self.0
            .request(&mut message(GET_STATS, 0, Vec::new()), each)
            .map_err(|refusal| refusal.into_error("cannot count the tracked connections"))?;
        Ok(count)
    }
}

impl Selector {
    /// The attributes that make the kernel delete only what is meant, one list for each request that it takes.
    fn filters(self) -> Vec<Vec<DefaultNla>> {
        match self {
            Self::Address(address) => {
                let source = DefaultNla::new(CTA_IP_V4_SRC, address.octets().to_vec());
                let tuple = [nested(CTA_TUPLE_IP, &[source])];
                let filter = |which, original, reply| vec![nested(which, &tuple), mask(original, reply)];
                vec![filter(CTA_TUPLE_ORIG, FILTER_IP_SRC, 0), filter(CTA_TUPLE_REPLY, 0, FILTER_IP_SRC)]
            }
            Self::Port { protocol, port } => {
                let protocol = DefaultNla::new(CTA_PROTO_NUM, vec![protocol]);
                let port = DefaultNla::new(CTA_PROTO_DST_PORT, port.to_be_bytes().to_vec());
                let tuple = [nested(CTA_TUPLE_PROTO, &[protocol, port])];
                vec![vec![nested(CTA_TUPLE_ORIG, &tuple), mask(FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT, 0)]]
            }
        }
    }

    fn matches(self, connection: &[u8]) -> bool {
        let original = attribute(connection, CTA_TUPLE_ORIG).unwrap_or_default();
        match self {
            Self::Address(address) => {
                let reply = attribute(connection, CTA_TUPLE_REPLY).unwrap_or_default();
                [original, reply].iter().any(|tuple| {
                    let source = attribute(tuple, CTA_TUPLE_IP).and_then(|ip| attribute(ip, CTA_IP_V4_SRC));
                    source == Some(&address.octets())
                })
            }
            Self::Port { protocol, port } => attribute(original, CTA_TUPLE_PROTO).is_some_and(|tuple| {
                attribute(tuple, CTA_PROTO_NUM) == Some(&[protocol])
                    && attribute(tuple, CTA_PROTO_DST_PORT) == Some(&port.to_be_bytes())
            }),
        }
    }
}

/// What tells a connection from all others, later ones between the same ends too: its original tuple, its zone
/// and its id.
fn identity(connection: &[u8]) -> Vec<DefaultNla> {
    [CTA_TUPLE_ORIG | NLA_F_NESTED, CTA_ZONE, CTA_ID]
        .into_iter()
        .filter_map(|kind| {
            attribute(connection, kind & !NLA_F_NESTED).map(|value| DefaultNla::new(kind, value.to_vec()))
        })
        .collect()
}

fn mask(original: u32, reply: u32) -> DefaultNla {
    let flags = |kind, bits: u32| DefaultNla::new(kind, bits.to_ne_bytes().to_vec());
    nested(CTA_FILTER, &[flags(1, original), flags(2, reply)])
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

fn message(kind: u8, flags: u16, attributes: Vec<DefaultNla>) -> Vec<u8> {
    let netfilter = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
    let inner = NetfilterMessageInner::Other {
        subsys: NetfilterSubsystem::Conntrack,
        message_type: kind,
        attributes,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let payload = NetlinkPayload::InnerMessage(NetfilterMessage::new(netfilter, inner));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
