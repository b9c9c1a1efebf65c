//! What the helpers of a box are for: the relay to its published ports, that to the host's ports, and its resolver.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::apply::host_ports::HostPort;
use crate::apply::names::Questions;
use crate::error::{Context, Result};
use crate::kernel::namespace;
use crate::plan::record::{Attachment, Reached};
use crate::plan::topology::Topology;
use crate::serve::relay::{self, Target, Waiting};
use crate::serve::resolver::{self, Asks, Members};
use crate::spec::names::Nameserver;

use super::confine::user_of;
use super::helper::{Errand, Helper};

/// Past it the relay would end, and all of its connections with it: the buffers of as many as it may have take less, and what
/// the C library takes besides.
const MEMORY_OF_RELAY: u64 = 256 << 20;
const _: () = assert!(relay::BUFFERS as u64 <= MEMORY_OF_RELAY / 4 * 3, "all connections have memory");

/// Every question and connection it takes at a time, with the longest answers.
const MEMORY_OF_RESOLVER: u64 = 64 << 20;

/// What the relay is called.
pub(super) const RELAY: &str = "netbox-relay";

/// What the resolver is called.
pub(super) const RESOLVER: &str = "netbox-resolver";

/// The gateway, as far as helpers need it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its network namespace.
    pub network: Arc<OwnedFd>,
    /// How the box is attached to it.
    pub attachment: Attachment,
}

/// The helpers of a box that hangs off the gateway: what it is published by, and what answers it.
///
/// # Errors
/// When published ports cannot be watched.
pub fn helpers<'a>(
    place: Option<Place>,
    waiting: &'a Waiting,
    questions: Option<&'a Questions>,
    host_ports: &'a [HostPort],
    servers: &'a [Nameserver],
) -> Result<Vec<Helper<'a>>> {
    let Some(place) = place else { return Ok(Vec::new()) };
    waiting.watch().context(|| "cannot watch the published ports")?;
    let asks = match place.attachment.way_out() {
        Some(member) if member.internal => Asks::Nobody,
        _ if servers.is_empty() => Asks::AsTheHost,
        _ => Asks::These(servers),
    };
    let slot = place.attachment.slot;
    let gate = (!host_ports.is_empty()).then(|| Topology::resolver_address(slot));
    let resolver = questions.map(|questions| resolver(questions, asks, gate, slot));
    let to_host = gate.map(|_| relay_to_host(host_ports, slot));
    Ok([relay(waiting, &place)].into_iter().chain(resolver).chain(to_host).map(Helper::new).collect())
}

/// The relay from the host's loopback to the published ports of the box.
fn relay<'a>(waiting: &'a Waiting, place: &Place) -> Errand<'a> {
    let network = Arc::clone(&place.network);
    let (slot, Reached { ipv4, ipv6 }) = (place.attachment.slot, place.attachment.inside());
    let target = Target { ipv4, ipv6 };
    Errand {
        name: RELAY,
        activity: Box::new(|| waiting.activity().into_iter().collect()),
        linked: Box::new(|| true),
        user: user_of(slot),
        memory: MEMORY_OF_RELAY,
        prepare: Box::new(move || {
            // The sockets that it opens belong to the gateway. The listeners stay the host's.
            namespace::enter_network(network.as_fd()).context(|| "cannot enter the gateway")?;
            waiting.for_relay().context(|| "cannot keep the published ports")
        }),
        // One that cannot run leaves its clients to time out; the box itself is not concerned.
        serve: Box::new(move |sockets, keeper| {
            let maps = waiting.names_for_relay();
            drop(keeper.map(|keeper| relay::serve(maps.into_iter().zip(sockets), target, keeper)));
        }),
    }
}

/// The relay from the box in `slot` to the host's loopback. It stays in the host's network; the listeners are the gateway's.
fn relay_to_host(ports: &[HostPort], slot: u32) -> Errand<'_> {
    Errand {
        name: "netbox-hostport",
        activity: Box::new(|| ports.iter().map(|port| port.socket.as_fd()).collect()),
        linked: Box::new(|| false),
        user: user_of(slot),
        memory: MEMORY_OF_RELAY,
        prepare: Box::new(|| {
            let kept = ports.iter().map(|port| port.socket.as_fd().try_clone_to_owned());
            kept.collect::<std::io::Result<_>>().context(|| "cannot keep the ports that lead to the host")
        }),
        // Nobody is told: the box tries again, and this is started again.
        serve: Box::new(|sockets, _| {
            drop(relay::host::serve(ports.iter().map(|port| port.spec).zip(sockets)));
        }),
    }
}

/// The resolver of the box in `slot`. It stays in the host's network and mounts, so that it asks as the host does now.
fn resolver<'a>(questions: &'a Questions, asks: Asks<'a>, gate: Option<Ipv4Addr>, slot: u32) -> Errand<'a> {
    let sockets = [questions.udp.as_fd(), questions.tcp.as_fd()];
    Errand {
        name: RESOLVER,
        activity: Box::new(move || sockets.to_vec()),
        // One that knows of no network is ended when there is something to tell it.
        linked: Box::new(|| !questions.members.borrow().is_empty()),
        user: user_of(slot),
        memory: MEMORY_OF_RESOLVER,
        prepare: Box::new(move || {
            let members = questions.members.borrow();
            let directories = members.iter().map(|members| members.directory.as_fd());
            let kept = sockets.into_iter().chain(directories);
            let kept = kept.map(|fd| fd.try_clone_to_owned()).collect::<std::io::Result<_>>();
            kept.context(|| "cannot keep what is to be answered")
        }),
        serve: Box::new(move |kept, keeper| {
            let mut kept = kept.into_iter();
            if let (Some(udp), Some(tcp)) = (kept.next(), kept.next()) {
                let known = questions.members.borrow();
                let members = kept.zip(&*known).map(|(directory, of)| Members {
                    directory,
                    network: of.network.clone(),
                    subnets: of.subnets.clone(),
                });
                // Nobody is told: the box asks again, and this is started again.
                drop(resolver::serve((udp, tcp), asks, gate, members.collect(), keeper));
            }
        }),
    }
}
