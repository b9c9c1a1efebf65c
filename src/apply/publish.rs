//! Published ports: held by a socket for the box's life, then mapped by rules.
//!
//! The socket keeps everybody else off the port (promise N3) and serves connections to the host's loopback,
//! which are never translated.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt, socket,
    sockopt,
};

use crate::error::{Error, Result};
use crate::host::holders;
use crate::kernel::nft::{Batch, Nft, NftError};
use crate::plan::record::PortMap;
use crate::plan::ruleset::Family;
use crate::plan::topology::{TABLE, Topology};
use crate::spec::port::{HostPort, PortRequest};

use super::attach::host_elements;
use super::lease;
use super::state::{Locked, State};

/// A port of the host's that is ours.
#[derive(Debug)]
pub struct Reserved {
    /// What it is published as.
    pub map: PortMap,
    /// The listening socket that holds it.
    pub socket: OwnedFd,
}

/// Reserves every port that was asked for, in order, before anything on the machine is changed.
///
/// # Errors
/// A port that is taken, naming its holder; an address that is not the host's. Nothing is held then.
pub fn reserve(requests: &[PortRequest]) -> Result<Vec<Reserved>> {
    // Every port takes a descriptor of the keeper's, whose limit is the caller's: the soft one is for programs that use
    // select(2). A limit that cannot be raised shows in the port that fails.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    requests.iter().map(reserve_one).collect()
}

fn reserve_one(request: &PortRequest) -> Result<Reserved> {
    let address = match request.address {
        Some(IpAddr::V4(address)) if !address.is_unspecified() => Some(address),
        _ => None,
    };
    let (first, last) = match request.host {
        HostPort::Fixed(port) => (port, port),
        HostPort::Pool(first, last) => (first, last),
        HostPort::Ephemeral => (0, 0),
    };
    let mut taken = None;
    for port in first..=last {
        match hold(address, port) {
            Ok((socket, host_port)) => {
                let map = PortMap { host_address: address, host_port, box_port: request.box_port };
                return Ok(Reserved { map, socket });
            }
            Err(Errno::EADDRINUSE) => taken = Some(port),
            Err(errno) => return Err(cannot_hold(request, address, port, errno)),
        }
    }
    Err(all_taken(request, address, taken.unwrap_or(first), first != last))
}

/// Binds and listens at once: a bound socket alone does not keep out another that sets SO_REUSEADDR.
fn hold(address: Option<Ipv4Addr>, port: u16) -> nix::Result<(OwnedFd, u16)> {
    let held = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // Connections of the box before, in TIME_WAIT, must not keep this one from starting.
    setsockopt(&held, sockopt::ReuseAddr, &true)?;
    let wanted = SocketAddrV4::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), port);
    {
        use std::os::fd::AsRawFd;
        bind(held.as_raw_fd(), &SockaddrIn::from(wanted))?;
        listen(&held, Backlog::MAXALLOWABLE)?;
        let bound: SockaddrIn = getsockname(held.as_raw_fd())?;
        Ok((held, bound.port()))
    }
}

fn cannot_hold(request: &PortRequest, address: Option<Ipv4Addr>, port: u16, errno: Errno) -> Error {
    let error = Error::new(format!("cannot publish {request}"));
    match (errno, address) {
        (Errno::EADDRNOTAVAIL, Some(address)) => error
            .because(format!("{address} is not an address of this host"))
            .hint("`ip -4 addr` lists them; without an address, all of them are used"),
        (Errno::EACCES, _) => {
            error.because(format!("no permission to use port {port}")).hint("ports below 1024 are root's")
        }
        (Errno::EMFILE | Errno::ENFILE, _) => {
            error.os(&errno.into()).hint("every published port takes a descriptor: raise `ulimit -n`")
        }
        _ => error.os(&errno.into()),
    }
}

fn all_taken(request: &PortRequest, address: Option<Ipv4Addr>, port: u16, is_pool: bool) -> Error {
    let error = Error::new(format!("cannot publish {request}"));
    let place = format!("{}:{port}", address.unwrap_or(Ipv4Addr::UNSPECIFIED));
    let holder = name_of_holder(address, port);
    let cause = if is_pool {
        format!("all of its ports are taken; {place} by {holder}")
    } else {
        format!("{place} is already taken by {holder}")
    };
    error.because(cause).hint("choose another host port; `netbox ps` lists the boxes")
}

/// Who has a port: a box by its name, any other process as far as this user may know.
fn name_of_holder(address: Option<Ipv4Addr>, port: u16) -> String {
    let Some(holder) = holders::holder_of_tcp_port(address, port) else {
        return "something that cannot be seen from here".to_owned();
    };
    // Only now, when the run has failed, is there time to look at every box.
    let state = State::open_existing().ok().flatten();
    let record = state.and_then(|state| lease::find(&state, |record| Some(record.keeper_pid) == holder.pid));
    match record {
        Some(record) => format!("box {} (pid {})", record.name, record.pid),
        None => holder.to_string(),
    }
}

/// Maps the ports: from here on the outside reaches the box.
///
/// # Errors
/// EEXIST when a rule already maps one of them.
pub fn map(
    _locked: &Locked<'_>,
    nft: &mut Nft,
    topology: Topology,
    slot: u32,
    ports: &[PortMap],
) -> Result<()> {
    let mut batch = Batch::new();
    for element in host_elements(topology, slot, ports) {
        batch.add_element(Family::Inet, TABLE, &element);
    }
    nft.commit(batch).map_err(|error| {
        let gone = error.errno() == libc::ENOENT;
        let error = Error::from(error);
        if gone { error.hint("somebody removed netbox's rules from the host: they are made again when all boxes have ended") } else { error }
    })
}

/// Takes the maps away.
///
/// # Errors
/// Those of nf_tables; maps that are gone are no error.
pub fn unmap(
    _locked: &Locked<'_>,
    nft: &mut Nft,
    topology: Topology,
    slot: u32,
    ports: &[PortMap],
) -> Result<(), NftError> {
    let mut batch = Batch::new();
    for element in host_elements(topology, slot, ports) {
        batch.delete_element(Family::Inet, TABLE, &element);
    }
    nft.commit(batch)
}
