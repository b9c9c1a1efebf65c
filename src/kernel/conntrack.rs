//! Connections that the kernel tracks, and forgetting some of them.
//!
//! A tracked connection keeps the translation it began with: who takes an address or a port into use, or
//! gives it up, forgets what is left of its last user. The messages are those of
//! `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;

use netlink_packet_core::{NLA_F_NESTED, NLM_F_DUMP};
use netlink_packet_netfilter::NetfilterProtoFamily;

use super::netfilter::Draft;
use super::netlink::Netlink;
use super::nft::Nft;
use super::wire::{Refusal, attribute};
use crate::error::{Context, Result};

const NFNL_SUBSYS_CTNETLINK: u8 = 1;
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
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;

/// What a filter compares (`CTA_FILTER_F_*`): in the two tuples, in the machine's byte order.
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_SRC_PORT: u32 = 1 << 4;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// With more selectors than this, the connections are listed once. Every filter makes the kernel walk through its whole table,
/// 0.1 ms where that has 262,144 buckets; listing, which locks each of them, takes 4 ms.
const FILTERS: usize = 32;

/// Which connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Those that began at the address, and those that are answered by it.
    Address(IpAddr),
    /// Those that went to the port when they began, whatever it was translated to.
    Port {
        /// Over IPv6; else over IPv4.
        ipv6: bool,
        /// The IP protocol number.
        protocol: u8,
        /// The destination port.
        port: u16,
    },
    /// Those that went to the port when they began, and were translated to the target; over IPv6 those too that others answer by
    /// the same port.
    Translated {
        /// The IP protocol number.
        protocol: u8,
        /// The destination port.
        port: u16,
        /// Who answers.
        target: SocketAddr,
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

    /// Forgets the connections that one of `selectors` means. What it costs does not grow with the number of selectors beyond
    /// a few.
    ///
    /// # Errors
    /// When the kernel does not list its connections, or does not forget one.
    pub fn flush(&mut self, selectors: &[Selector]) -> Result<()> {
        if selectors.is_empty() || self.count()? == 0 {
            return Ok(());
        }
        if selectors.len() > FILTERS || selectors.iter().any(Selector::has_ipv6_address) {
            return self.flush_one_by_one(selectors);
        }
        for mut request in selectors.iter().flat_map(|selector| selector.filters()) {
            match self.0.request(&mut request, |_| {}) {
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

    /// For kernels that do not delete by filter, for many selectors, and for IPv6 addresses: lists everything, and deletes each
    /// connection that is meant.
    ///
    /// # Errors
    /// As [`Conntrack::flush`].
    pub fn flush_one_by_one(&mut self, selectors: &[Selector]) -> Result<()> {
        let wanted: HashSet<Selector> = selectors.iter().copied().collect();
        let found = self
            .0
            .dump(&mut draft(GET, NLM_F_DUMP, NetfilterProtoFamily::Unspec).finish(), |payload| {
                let (family, connection) = (family_of(*payload.first()?), payload.get(4..)?);
                let meant = Selector::all_of(family, connection).iter().any(|one| wanted.contains(one));
                meant.then(|| deletion(family, connection))
            })
            .map_err(|refusal| refusal.into_error("cannot list the tracked connections"))?;
        for mut request in found {
            match self.0.request(&mut request, |_| {}) {
                // ENOENT: it ended meanwhile, or two selectors meant it.
                Ok(()) | Err(Refusal { errno: libc::ENOENT, .. }) => {}
                Err(refusal) => return Err(refusal.into_error("cannot forget a tracked connection")),
            }
        }
        Ok(())
    }

    /// How many connections began at each address, or are answered by it. One between two of them counts for both.
    ///
    /// # Errors
    /// When the kernel does not list its connections.
    pub fn count_by_address(&mut self) -> Result<HashMap<IpAddr, u32>> {
        let mut counts = HashMap::new();
        if self.count()? == 0 {
            return Ok(counts);
        }
        let found = self
            .0
            .dump(&mut draft(GET, NLM_F_DUMP, NetfilterProtoFamily::Unspec).finish(), |payload| {
                let (family, connection) = (family_of(*payload.first()?), payload.get(4..)?);
                let source = |kind| source_of(family, attribute(connection, kind)?);
                let (began, answers) = (source(CTA_TUPLE_ORIG), source(CTA_TUPLE_REPLY));
                Some([began, answers.filter(|answers| began != Some(*answers))])
            })
            .map_err(|refusal| refusal.into_error("cannot list the tracked connections"))?;
        for address in found.into_iter().flatten().flatten() {
            *counts.entry(address).or_insert(0) += 1;
        }
        Ok(counts)
    }

    /// Where the TCP connection went when it began that is answered by `own` to `peer`. `None`: there is no such connection.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn began_at(&mut self, own: SocketAddr, peer: SocketAddr) -> Result<Option<SocketAddr>> {
        let mut asked = None;
        let each = |payload: &[u8]| asked = original_destination(payload);
        match self.0.request(&mut by_answers(GET, own, peer), each) {
            Ok(()) => Ok(asked),
            Err(Refusal { errno: libc::ENOENT, .. }) => Ok(None),
            Err(refusal) => Err(refusal.into_error("cannot look at a tracked connection")),
        }
    }

    /// Forgets that connection.
    ///
    /// # Errors
    /// When the kernel does not; one that is gone is no error.
    pub fn forget(&mut self, own: SocketAddr, peer: SocketAddr) -> Result<()> {
        match self.0.request(&mut by_answers(DELETE, own, peer), |_| {}) {
            Ok(()) | Err(Refusal { errno: libc::ENOENT, .. }) => Ok(()),
            Err(refusal) => Err(refusal.into_error("cannot forget a tracked connection")),
        }
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
            .request(&mut draft(GET_STATS, 0, NetfilterProtoFamily::Unspec).finish(), each)
            .map_err(|refusal| refusal.into_error("cannot count the tracked connections"))?;
        Ok(count)
    }
}

impl Selector {
    /// Whether the kernel's filter means all others by it: the comparison of IPv6 addresses is the wrong way round (`!ipv6_addr_cmp`
    /// in `ctnetlink_filter_match_tuple`, from Linux 5.8 on to 6.18 at least).
    const fn has_ipv6_address(&self) -> bool {
        matches!(self, Self::Address(IpAddr::V6(_)))
    }

    /// The requests that make the kernel delete what is meant, and nothing else.
    fn filters(self) -> Vec<Vec<u8>> {
        match self {
            Self::Address(address) => {
                let filter = |which, original, reply| {
                    let mut draft = match address {
                        IpAddr::V4(_) => draft(DELETE, 0, NetfilterProtoFamily::IPv4),
                        IpAddr::V6(_) => draft(DELETE, 0, NetfilterProtoFamily::IPv6),
                    };
                    draft.nest(which, |tuple| {
                        tuple.nest(CTA_TUPLE_IP, |ip| {
                            match address {
                                IpAddr::V4(four) => ip.value(CTA_IP_V4_SRC, &four.octets()),
                                IpAddr::V6(six) => ip.value(CTA_IP_V6_SRC, &six.octets()),
                            };
                        });
                    });
                    mask(&mut draft, original, reply).finish()
                };
                vec![filter(CTA_TUPLE_ORIG, FILTER_IP_SRC, 0), filter(CTA_TUPLE_REPLY, 0, FILTER_IP_SRC)]
            }
            Self::Port { ipv6, protocol, port } => {
                let family = if ipv6 { NetfilterProtoFamily::IPv6 } else { NetfilterProtoFamily::IPv4 };
                let mut draft = draft(DELETE, 0, family);
                draft.nest(CTA_TUPLE_ORIG, |tuple| {
                    tuple.nest(CTA_TUPLE_PROTO, |part| {
                        part.value(CTA_PROTO_NUM, &[protocol]).value(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                    });
                });
                vec![mask(&mut draft, FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT, 0).finish()]
            }
            Self::Translated { protocol, port, target } => {
                let family =
                    if target.is_ipv6() { NetfilterProtoFamily::IPv6 } else { NetfilterProtoFamily::IPv4 };
                let mut draft = draft(DELETE, 0, family);
                draft.nest(CTA_TUPLE_ORIG, |tuple| {
                    tuple.nest(CTA_TUPLE_PROTO, |part| {
                        part.value(CTA_PROTO_NUM, &[protocol]).value(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                    });
                });
                draft.nest(CTA_TUPLE_REPLY, |tuple| {
                    tuple.nest(CTA_TUPLE_IP, |ip| {
                        match target.ip() {
                            IpAddr::V4(four) => ip.value(CTA_IP_V4_SRC, &four.octets()),
                            IpAddr::V6(six) => ip.value(CTA_IP_V6_SRC, &six.octets()),
                        };
                    });
                    tuple.nest(CTA_TUPLE_PROTO, |part| {
                        part.value(CTA_PROTO_NUM, &[protocol])
                            .value(CTA_PROTO_SRC_PORT, &target.port().to_be_bytes());
                    });
                });
                let original = FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT;
                // See `has_ipv6_address`: over IPv6 the ports alone are compared.
                let address = if target.is_ipv4() { FILTER_IP_SRC } else { 0 };
                let reply = address | FILTER_PROTO_NUM | FILTER_PROTO_SRC_PORT;
                vec![mask(&mut draft, original, reply).finish()]
            }
        }
    }

    /// Every selector that means the connection.
    fn all_of(family: NetfilterProtoFamily, connection: &[u8]) -> Vec<Self> {
        let tuple = |kind| attribute(connection, kind).unwrap_or_default();
        let (original, reply) = (tuple(CTA_TUPLE_ORIG), tuple(CTA_TUPLE_REPLY));
        let ipv6 = family == NetfilterProtoFamily::IPv6;
        let source = |tuple| source_of(family, tuple).map(Self::Address);
        let number = |tuple, which| {
            let part = attribute(tuple, CTA_TUPLE_PROTO)?;
            let protocol = *attribute(part, CTA_PROTO_NUM)?.first()?;
            Some((protocol, u16::from_be_bytes(*attribute(part, which)?.first_chunk()?)))
        };
        let port = || {
            let (protocol, port) = number(original, CTA_PROTO_DST_PORT)?;
            Some(Self::Port { ipv6, protocol, port })
        };
        let translated = || {
            let (protocol, port) = number(original, CTA_PROTO_DST_PORT)?;
            let (_, answers) = number(reply, CTA_PROTO_SRC_PORT)?;
            let Some(Self::Address(address)) = source(reply) else { return None };
            Some(Self::Translated { protocol, port, target: SocketAddr::new(address, answers) })
        };
        [source(original), source(reply), port(), translated()].into_iter().flatten().collect()
    }
}

/// Where the packets of one direction come from.
fn source_of(family: NetfilterProtoFamily, tuple: &[u8]) -> Option<IpAddr> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    Some(match family {
        NetfilterProtoFamily::IPv6 => {
            Ipv6Addr::from(*attribute(ip, CTA_IP_V6_SRC)?.first_chunk::<16>()?).into()
        }
        _ => Ipv4Addr::from(*attribute(ip, CTA_IP_V4_SRC)?.first_chunk::<4>()?).into(),
    })
}

/// A request about the TCP connection that is answered by `own` to `peer`.
fn by_answers(kind: u8, own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    const TCP: u8 = 6;
    let family = if own.is_ipv6() { NetfilterProtoFamily::IPv6 } else { NetfilterProtoFamily::IPv4 };
    let mut draft = draft(kind, 0, family);
    draft.nest(CTA_TUPLE_REPLY, |tuple| {
        tuple.nest(CTA_TUPLE_IP, |ip| {
            for (address, four, six) in
                [(own.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC), (peer.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST)]
            {
                match address {
                    IpAddr::V4(address) => ip.value(four, &address.octets()),
                    IpAddr::V6(address) => ip.value(six, &address.octets()),
                };
            }
        });
        tuple.nest(CTA_TUPLE_PROTO, |part| {
            part.value(CTA_PROTO_NUM, &[TCP])
                .value(CTA_PROTO_SRC_PORT, &own.port().to_be_bytes())
                .value(CTA_PROTO_DST_PORT, &peer.port().to_be_bytes());
        });
    });
    draft.finish()
}

fn original_destination(payload: &[u8]) -> Option<SocketAddr> {
    let tuple = attribute(payload.get(4..)?, CTA_TUPLE_ORIG)?;
    let (ip, part) = (attribute(tuple, CTA_TUPLE_IP)?, attribute(tuple, CTA_TUPLE_PROTO)?);
    let four = || Some(IpAddr::V4(Ipv4Addr::from(*attribute(ip, CTA_IP_V4_DST)?.first_chunk::<4>()?)));
    let six = || Some(IpAddr::V6(Ipv6Addr::from(*attribute(ip, CTA_IP_V6_DST)?.first_chunk::<16>()?)));
    let port = u16::from_be_bytes(*attribute(part, CTA_PROTO_DST_PORT)?.first_chunk()?);
    Some(SocketAddr::new(four().or_else(six)?, port))
}

/// What deletes that connection, and no later one between the same ends: it names the original tuple, the zone and
/// the id.
fn deletion(family: NetfilterProtoFamily, connection: &[u8]) -> Vec<u8> {
    let mut draft = draft(DELETE, 0, family);
    for kind in [CTA_TUPLE_ORIG | NLA_F_NESTED, CTA_ZONE, CTA_ID] {
        if let Some(value) = attribute(connection, kind & !NLA_F_NESTED) {
            draft.value(kind, value);
        }
    }
    draft.finish()
}

/// The family of an answer (`nfgen_family`).
const fn family_of(number: u8) -> NetfilterProtoFamily {
    const NFPROTO_IPV6: u8 = 10;
    match number {
        NFPROTO_IPV6 => NetfilterProtoFamily::IPv6,
        _ => NetfilterProtoFamily::IPv4,
    }
}

/// Adds which parts of either tuple a filter compares.
fn mask(draft: &mut Draft, original: u32, reply: u32) -> &mut Draft {
    draft.nest(CTA_FILTER, |flags| {
        flags.value(1, &original.to_ne_bytes()).value(2, &reply.to_ne_bytes());
    })
}

fn draft(kind: u8, flags: u16, family: NetfilterProtoFamily) -> Draft {
    Draft::new(NFNL_SUBSYS_CTNETLINK, kind, flags, family, 0)
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let Some(connection) = payload.get(4..) else { return };
    let _ = original_destination(payload);
    for family in [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6] {
        let _ = deletion(family, connection);
    }
}
