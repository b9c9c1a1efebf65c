//! Host ports, each held by a socket for the box's life (promise N3).
//!
//! The socket keeps everybody else off the port, and what is sent to the host's loopback, which is never translated,
//! arrives at it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::error::{Error, Result};
use crate::host::holders;
use crate::kernel::sysctl;
use crate::plan::record::PortMap;
use crate::plan::reserved::ReservedPorts;
use crate::spec::port::{HostPort, PortRequest, Protocol};

use super::registry;
use super::state::State;

/// As many as the kernel allows (`net.core.somaxconn`).
const BACKLOG: i32 = i32::MAX;

/// The descriptors of a keeper that are no port's, rounded up.
const OTHERS: u64 = 64;

/// A port of the host's that is ours.
#[derive(Debug)]
pub struct Held {
    /// What it is published as: on every address of both families it is two of these.
    pub maps: Vec<PortMap>,
    /// The socket that holds it: for TCP it listens.
    pub socket: OwnedFd,
}

/// Why a port could not be held.
#[derive(Debug)]
struct Refused {
    at: SocketAddr,
    error: io::Error,
}

impl Refused {
    fn is(&self, errno: Errno) -> bool {
        self.error.raw_os_error() == Some(errno as i32)
    }
}

/// Reserves every port that was asked for, in order, before anything on the machine is changed.
///
/// # Errors
/// A port that is taken, naming its holder; an address that is not the host's; a protocol that the kernel does not have.
/// Nothing is held then.
pub fn reserve(requests: &[PortRequest]) -> Result<Vec<Held>> {
    reserve_more(requests, 0)
}

/// The same, where this process holds so many already.
///
/// # Errors
/// As [`reserve`].
pub fn reserve_more(requests: &[PortRequest], already: usize) -> Result<Vec<Held>> {
    make_room(requests.len().saturating_add(already))?;
    requests.iter().map(reserve_one).collect()
}

/// Every port takes a descriptor of the keeper's, whose limit is the caller's: the soft one is for programs that use select(2).
/// The command has its own limit, from before.
fn make_room(ports: usize) -> Result<()> {
    // The relay has each socket twice for a moment, once as the keeper's.
    let needed = u64::try_from(ports).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(OTHERS);
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let most = hard.max(needed);
    // Beyond the hard limit takes CAP_SYS_RESOURCE, and at most fs.nr_open.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    if raised.is_err() && needed > hard {
        return Err(too_many(ports, needed, hard));
    }
    // Where even the hard limit was refused, the port that fails tells.
    Ok(())
}

fn too_many(ports: usize, needed: u64, limit: u64) -> Error {
    Error::new(format!("cannot publish {ports} ports"))
        .because(format!("that takes {needed} file descriptors, and the limit is {limit}"))
        .hint("publish fewer, or raise the hard limit (`ulimit -Hn`)")
}

fn reserve_one(request: &PortRequest) -> Result<Held> {
    match request.host {
        HostPort::Fixed(port) => hold(request, port).map_err(|refused| cannot_hold(request, &refused)),
        // The kernel knows better than to choose one that is taken or reserved.
        HostPort::Ephemeral => hold(request, 0).map_err(|refused| cannot_hold(request, &refused)),
        HostPort::Pool(first, last) => {
            // Only a choice passes them over (as the kernel's own does); without the setting none is reserved.
            let reserved =
                sysctl::read(&["ipv4", "ip_local_reserved_ports"]).map(|text| ReservedPorts::parse(&text));
            let reserved = reserved.unwrap_or_default();
            let mut taken = None;
            for port in (first..=last).filter(|port| !reserved.contains(*port)) {
                match hold(request, port) {
                    Err(refused) if refused.is(Errno::EADDRINUSE) => taken = Some(refused),
                    other => return other.map_err(|refused| cannot_hold(request, &refused)),
                }
            }
            Err(match taken {
                Some(refused) => all_taken(request, refused.at.port()),
                None => Error::new(format!("cannot publish {request}"))
                    .because("all of its ports are in net.ipv4.ip_local_reserved_ports")
                    .hint("choose other host ports; one that is named alone may be a reserved one"),
            })
        }
    }
}

/// Holds a port on every address that was asked for; port 0 is one that the kernel chooses.
fn hold(request: &PortRequest, port: u16) -> Result<Held, Refused> {
    let held = |addresses: &[IpAddr], (socket, host_port)| {
        let map = |host_address: &IpAddr| PortMap {
            protocol: request.protocol,
            host_address: *host_address,
            host_port,
            box_port: request.box_port,
        };
        Held { maps: addresses.iter().map(map).collect(), socket }
    };
    let bind_one = |address: IpAddr| {
        let at = SocketAddr::new(address, port);
        let bound = bind(request.protocol, at, true).map_err(|error| Refused { at, error })?;
        Ok(held(&[address], bound))
    };
    if let Some(address) = request.address {
        return bind_one(address);
    }
    // One socket for both families, which takes half the time and half the descriptors of two.
    let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    match bind(request.protocol, at, false) {
        Ok(bound) => Ok(held(&request.addresses(), bound)),
        // A kernel without IPv6, of which nobody spoke.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            bind_one(Ipv4Addr::UNSPECIFIED.into())
        }
        Err(error) => Err(Refused { at, error }),
    }
}

fn bind(protocol: Protocol, at: SocketAddr, one_family: bool) -> io::Result<(OwnedFd, u16)> {
    let kind = if protocol == Protocol::Udp { Type::DGRAM } else { Type::STREAM };
    let number = socket2::Protocol::from(i32::from(protocol.number()));
    let socket = Socket::new(Domain::for_address(at), kind.nonblocking(), Some(number))?;
    if at.is_ipv6() {
        // net.ipv6.bindv6only decides for those who do not say.
        socket.set_only_v6(one_family)?;
    }
    // Connections of the box before, in TIME_WAIT, must not keep this one from starting. A port that the kernel chooses
    // has none, and with it the kernel may choose one that another such socket is bound to.
    if protocol == Protocol::Tcp && at.port() != 0 {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(at))?;
    if protocol == Protocol::Tcp {
        // At once: a TCP socket that is bound alone does not keep out another that sets SO_REUSEADDR. One of SCTP, which is not
        // relayed, answers with an ABORT as long as it does not listen.
        socket.listen(BACKLOG)?;
    }
    let port = match at.port() {
        0 => socket.local_addr()?.as_socket().map_or(0, |bound| bound.port()),
        port => port,
    };
    Ok((socket.into(), port))
}

fn cannot_hold(request: &PortRequest, refused: &Refused) -> Error {
    let what = Error::new(format!("cannot publish {request}"));
    let address = refused.at.ip();
    let version = if address.is_ipv4() { 4 } else { 6 };
    let os = || Error::new(format!("cannot publish {request}")).os(&refused.error);
    match refused.error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) if refused.at.port() == 0 => what
            .because("no port of net.ipv4.ip_local_port_range is free")
            .hint("name a host port, as in -p 8080:80"),
        Some(Errno::EADDRINUSE) => {
            let (at, holder) = name_of_holder(request, refused.at.port());
            what.because(format!("{at} is already taken by {holder}"))
                .hint("choose another host port; `netbox ps` lists the boxes")
        }
        Some(Errno::EADDRNOTAVAIL) => what
            .because(format!("{address} is not an address of this host"))
            .hint(format!("`ip -{version} addr` lists them; without an address, all of them are used")),
        Some(Errno::EAFNOSUPPORT) => what
            .because(format!("this kernel has no IPv{version}"))
            .hint("publish on an address of the other family"),
        Some(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if request.protocol == Protocol::Sctp => what
            .because("this kernel has no SCTP")
            .hint("load its module (`modprobe sctp`), or publish a TCP or UDP port"),
        Some(Errno::EACCES) => os()
            .because(format!("no permission to use port {}", refused.at.port()))
            .hint("ports below 1024 are root's"),
        Some(Errno::EMFILE | Errno::ENFILE) => {
            os().hint("every published port takes a descriptor: raise `ulimit -n`")
        }
        _ => os(),
    }
}

fn all_taken(request: &PortRequest, port: u16) -> Error {
    let (at, holder) = name_of_holder(request, port);
    Error::new(format!("cannot publish {request}"))
        .because(format!("all of its ports are taken; {at} by {holder}"))
        .hint("choose another host port; `netbox ps` lists the boxes")
}

/// Where exactly a port is taken, and who has it: a box by its name, any other process as far as this user may know.
fn name_of_holder(request: &PortRequest, port: u16) -> (SocketAddr, String) {
    let places: Vec<_> =
        request.addresses().into_iter().map(|address| SocketAddr::new(address, port)).collect();
    let holder = |at: &SocketAddr| Some((*at, holders::holder_of_port(request.protocol, *at)?));
    let Some((at, holder)) = places.iter().find_map(holder) else {
        let at = places.first().copied().unwrap_or_else(|| SocketAddr::from(([0; 4], port)));
        return (at, "something that cannot be seen from here".to_owned());
    };
    // Only now, when the run has failed, is there time to look at every box.
    let state = State::open_existing().ok().flatten();
    let record =
        state.and_then(|state| registry::find(&state, |record| Some(record.keeper_pid) == holder.pid));
    let name = match record {
        Some(record) => format!("box {} (pid {})", record.name, record.pid),
        None => holder.to_string(),
    };
    (at, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: &str, at: &str, errno: Errno) -> Error {
        let spec: crate::spec::publish::PublishSpec = spec.parse().unwrap();
        let refused = Refused { at: at.parse().unwrap(), error: errno.into() };
        cannot_hold(&spec.requests()[0], &refused)
    }

    #[test]
    fn more_ports_than_descriptors_are_refused_in_these_words() {
        let error = too_many(65_535, 131_134, 20_000);
        assert_eq!(
            error.to_string(),
            "cannot publish 65535 ports: that takes 131134 file descriptors, and the limit is 20000"
        );
        assert_eq!(error.exit_status(), 125);
        assert!(error.remedy().is_some());
    }

    #[test]
    fn what_cannot_be_held_is_refused_with_its_reason_and_a_remedy() {
        for (spec, at, errno, words) in [
            (
                "9:9/sctp",
                "0.0.0.0:9",
                Errno::EPROTONOSUPPORT,
                "cannot publish :9:9/sctp: this kernel has no SCTP",
            ),
            (
                "9:9/sctp",
                "0.0.0.0:9",
                Errno::ESOCKTNOSUPPORT,
                "cannot publish :9:9/sctp: this kernel has no SCTP",
            ),
            (
                "[::1]:80:80",
                "[::1]:80",
                Errno::EAFNOSUPPORT,
                "cannot publish [::1]:80:80/tcp: this kernel has no IPv6",
            ),
            (
                "192.0.2.9:80:80",
                "192.0.2.9:80",
                Errno::EADDRNOTAVAIL,
                "cannot publish 192.0.2.9:80:80/tcp: 192.0.2.9 is not an address of this host",
            ),
            (
                "80/udp",
                "0.0.0.0:0",
                Errno::EADDRINUSE,
                "cannot publish ::80/udp: no port of net.ipv4.ip_local_port_range is free",
            ),
        ] {
            let error = refused(spec, at, errno);
            assert_eq!(error.to_string(), words);
            assert_eq!(error.exit_status(), 125);
            assert!(error.remedy().is_some(), "{spec}");
        }
        // The dry run of somebody who may not goes by this number.
        assert_eq!(refused("80:80", "0.0.0.0:80", Errno::EACCES).errno(), Some(libc::EACCES));
    }
}
