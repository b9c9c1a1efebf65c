//! Which sockets sit on a port (sock_diag(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use nix::sys::socket::SockProtocol;

use super::netlink::Netlink;
use super::wire::{HEADER, attribute, u32_at};

/// From `linux/sock_diag.h` and `linux/inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_SKV6ONLY: u16 = 11;

/// `TCP_LISTEN`, and `TCP_BOUND_INACTIVE` for sockets that are bound but do not listen (since Linux 6.8,
/// without effect before).
const TCP_STATES: u32 = 1 << LISTEN | 1 << 13;

/// `TCP_LISTEN`.
const LISTEN: u32 = 10;

/// `TCP_CLOSE`: what a datagram socket is in that is not connected.
const UNCONNECTED: u32 = 7;

/// Every state but `TCP_TIME_WAIT`, which keeps nobody off who binds with SO_REUSEADDR.
const TCP_ALL_STATES: u32 = !(1 << 6);

/// A connection that is open or on its way to be: neither over (`TCP_TIME_WAIT`, `TCP_CLOSE`) nor none (`TCP_LISTEN`,
/// `TCP_BOUND_INACTIVE`).
const TCP_OPEN_STATES: u32 = !(1 << 6 | 1 << 7 | 1 << 10 | 1 << 13);

/// Of another protocol every socket that is bound keeps others off, whatever its state.
const ALL_STATES: u32 = u32::MAX;

const TCP: u8 = 6;

/// The size of `struct inet_diag_msg`, and where things are in it.
const ANSWER: usize = 72;
const SOURCE_PORT: usize = 4;
const SOURCE: usize = 8;
const DESTINATION_PORT: usize = 6;
const DESTINATION: usize = 24;
/// `struct inet_diag_sockid`: from the source port to the cookie.
const ID: std::ops::Range<usize> = 4..52;
const UID: usize = 64;
const INODE: usize = 68;

/// A socket that is bound to a port, and that others cannot bind it beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundSocket {
    /// The address it is bound to; unspecified means all.
    pub address: IpAddr,
    /// Whether an IPv6 socket leaves IPv4 alone.
    pub v6_only: bool,
    /// The number that `/proc/<pid>/fd` shows.
    pub inode: u32,
    /// Whose it is, as seen from here.
    pub uid: u32,
}

/// The sockets bound to a port of a protocol (by its IP protocol number) in the calling thread's network namespace, IPv4
/// before IPv6; of TCP those that wait for connections, or with `connected` all: a connection that the host itself opened
/// keeps its port for itself too.
///
/// # Errors
/// Those of the socket; ENOENT on a kernel without `CONFIG_INET_DIAG`, or without that protocol's part of it.
pub fn bound_to(protocol: u8, port: u16, connected: bool) -> io::Result<Vec<BoundSocket>> {
    let mut socket = Netlink::open(SockProtocol::NetlinkSockDiag)?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let states = match (protocol, connected) {
            (TCP, false) => TCP_STATES,
            (TCP, true) => TCP_ALL_STATES,
            _ => ALL_STATES,
        };
        let mut question = question(u8::try_from(family).map_err(io::Error::other)?, protocol, states, port);
        // A dump of UDP does not look at the port that was asked for.
        found.extend(socket.dump(&mut question, |payload| decode(payload, port))?);
    }
    Ok(found)
}

/// A TCP connection of a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpConnection {
    /// This end.
    pub own: SocketAddr,
    /// The other.
    pub peer: SocketAddr,
    family: u8,
    id: [u8; 48],
}

/// A socket to the TCP connections of one network namespace.
#[derive(Debug)]
pub struct TcpConnections(Netlink);

impl TcpConnections {
    /// Those of the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> nix::Result<Self> {
        Netlink::open(SockProtocol::NetlinkSockDiag).map(Self)
    }

    /// The connections whose own port this is.
    ///
    /// # Errors
    /// ENOENT on a kernel without `CONFIG_INET_DIAG`.
    pub fn at(&mut self, port: u16) -> io::Result<Vec<TcpConnection>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).map_err(io::Error::other)?;
            let mut question = question(family, TCP, TCP_OPEN_STATES, port);
            found.extend(self.0.dump(&mut question, |payload| decode_connection(payload, port))?);
        }
        Ok(found)
    }

    /// Ends a connection: both sides are told by a reset.
    ///
    /// # Errors
    /// EOPNOTSUPP on a kernel without `CONFIG_INET_DIAG_DESTROY`; ENOENT when it has ended.
    pub fn end(&mut self, connection: &TcpConnection) -> io::Result<()> {
        let mut request = question(connection.family, TCP, ALL_STATES, 0);
        request[4..6].copy_from_slice(&SOCK_DESTROY.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        request[24..72].copy_from_slice(&connection.id);
        Ok(self.0.request(&mut request, |_| {})?)
    }
}

fn decode_connection(payload: &[u8], port: u16) -> Option<TcpConnection> {
    let family = *payload.first()?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = *payload.get(at..)?.first_chunk()?;
        Some(match i32::from(family) == libc::AF_INET {
            true => IpAddr::V4(Ipv4Addr::from(*octets.first_chunk()?)),
            false => IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(),
        })
    };
    let number = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
    let own = SocketAddr::new(address(SOURCE)?, number(SOURCE_PORT)?);
    let peer = SocketAddr::new(address(DESTINATION)?, number(DESTINATION_PORT)?);
    let id = *payload.get(ID)?.first_chunk()?;
    (own.port() == port).then_some(TcpConnection { own, peer, family, id })
}

/// Address and port of the sockets of a protocol that take what comes: TCP that listens, or UDP that is not connected.
///
/// # Errors
/// Those of [`Netlink::dump`].
pub(super) fn listening(socket: &mut Netlink, protocol: u8) -> io::Result<Vec<(IpAddr, u16)>> {
    let states = if protocol == TCP { 1 << LISTEN } else { 1 << UNCONNECTED };
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).map_err(io::Error::other)?;
        // Port 0 is every port.
        found.extend(socket.dump(&mut question(family, protocol, states, 0), |payload| {
            let port = u16::from_be_bytes(*payload.get(SOURCE_PORT..)?.first_chunk()?);
            Some((decode(payload, port)?.address, port))
        })?);
    }
    Ok(found)
}

/// A dump request: `struct nlmsghdr`, then `struct inet_diag_req_v2` with nothing but the family, the
/// protocol, the states and the port filled in.
fn question(family: u8, protocol: u8, states: u32, port: u16) -> [u8; HEADER + 56] {
    let mut bytes = [0; HEADER + 56];
    bytes[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[16] = family;
    bytes[17] = protocol;
    bytes[20..24].copy_from_slice(&states.to_ne_bytes());
    bytes[24..26].copy_from_slice(&port.to_be_bytes());
    bytes
}

fn decode(payload: &[u8], port: u16) -> Option<BoundSocket> {
    if payload.get(SOURCE_PORT..)?.first_chunk() != Some(&port.to_be_bytes()) {
        return None;
    }
    let octets: [u8; 16] = *payload.get(SOURCE..)?.first_chunk()?;
    let v4 = i32::from(*payload.first()?) == libc::AF_INET;
    let address = if v4 {
        IpAddr::V4(Ipv4Addr::from(*octets.first_chunk()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let only = attribute(payload.get(ANSWER..)?, INET_DIAG_SKV6ONLY);
    Some(BoundSocket {
        address,
        v6_only: only.and_then(|value| value.first()).is_some_and(|flag| *flag != 0),
        inode: u32_at(payload, INODE)?,
        uid: u32_at(payload, UID)?,
    })
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = (decode(payload, 53), decode_connection(payload, 53));
}
