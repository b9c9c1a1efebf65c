//! The sockets at which a box reaches ports of the host's (`--host-port`).

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
};

use crate::error::{Context, Result};
use crate::kernel::namespace;
use crate::kernel::socket_option::bind_to_link;
use crate::plan::record::Attachment;
use crate::plan::topology::Topology;
use crate::spec::host_port::HostPortSpec;
use crate::spec::port::Protocol;

use super::gateway::Gateway;
use super::host::Host;

/// A port of the host's, and where the box comes to it.
#[derive(Debug)]
pub struct HostPort {
    /// Which.
    pub spec: HostPortSpec,
    /// A socket in the gateway; one of TCP listens.
    pub socket: OwnedFd,
}

/// Opens the sockets in the gateway, at the address of the box's resolver. For this box and for nobody else, as the resolver's: what
/// comes by another link, or another bridge, does not find them. Its link need not exist yet.
///
/// # Errors
/// Naming the port.
pub fn listen_for(
    gateway: &Gateway,
    host: &Host,
    attachment: &Attachment,
    ports: &[HostPortSpec],
) -> Result<Vec<HostPort>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let open = |spec: &HostPortSpec| {
        let kind = if spec.protocol == Protocol::Udp { SockType::Datagram } else { SockType::Stream };
        socket(AddressFamily::Inet, kind, flags, None).map(|socket| HostPort { spec: *spec, socket })
    };
    let all = || ports.iter().map(open).collect::<nix::Result<Vec<_>>>();
    let sockets = namespace::inside(gateway.network.as_fd(), host.network().as_fd(), all)
        .context(|| "cannot enter the gateway")?
        .context(|| "cannot open sockets for the host's ports")?;
    let address = Topology::resolver_address(attachment.slot);
    for HostPort { spec, socket } in &sockets {
        let ready = || -> std::io::Result<()> {
            bind_to_link(socket.as_fd(), attachment.interface_index())?;
            let is_tcp = spec.protocol == Protocol::Tcp;
            if is_tcp {
                // A box before, in the same slot, may have left connections in TIME_WAIT.
                setsockopt(socket, sockopt::ReuseAddr, &true)?;
            }
            bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, spec.box_port)))?;
            // As many wait to be accepted as the kernel allows (`net.core.somaxconn`).
            if is_tcp { Ok(listen(socket, Backlog::MAXALLOWABLE)?) } else { Ok(()) }
        };
        ready().context(|| format!("cannot listen on {address} for --host-port {spec}"))?;
    }
    Ok(sockets)
}
