//! The relay to the host's loopback: what a box sends to a port of the host's that was opened to it (`--host-port`).
//!
//! It arrives at a socket in the gateway that is the box's alone. This helper stays in the host's network, where it connects to
//! that port of 127.0.0.1 and to nothing else.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::{CONNECTIONS, Port, tcp, udp};
use crate::spec::host_port::HostPortSpec;
use crate::spec::port::Protocol;

/// Carries what comes to each of the sockets to its port of the host's, as seen from the network namespace that the calling process
/// is in, for as long as that lives.
///
/// # Errors
/// When there is no memory or descriptor left to begin with.
pub fn serve(ports: impl IntoIterator<Item = (HostPortSpec, OwnedFd)>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let flows = udp::Flows::new();
        // Dropped, they would end what they belong to.
        let mut open = Vec::new();
        for (spec, socket) in ports {
            let target = Port::OfHost(spec.host_port);
            let (closing, closed) = oneshot::channel();
            open.push(closing);
            match spec.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::from_std(StdListener::from(socket))?;
                    tokio::spawn(tcp::accept(listener, target, Arc::clone(&slots), closed));
                }
                Protocol::Udp => {
                    tokio::spawn(udp::receive(socket, spec.box_port, target, Arc::clone(&flows), closed));
                }
                Protocol::Sctp => {}
            }
        }
        std::future::pending::<()>().await;
        drop(open);
        Ok(())
    })
}
