//! What the helpers of a box are for: the relay to its published ports, and its resolver.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};

use crate::apply::gateway::Gateway;
use crate::apply::names::Questions;
use crate::error::{Context, Result};
use crate::kernel::namespace;
use crate::serve::relay::{self, Target, Waiting};
use crate::serve::resolver;
use crate::spec::names::Nameserver;

use super::confine::user_of;
use super::helper::{Errand, Helper};

/// Two buffers for each of its connections.
const MEMORY_OF_RELAY: u64 = 256 << 20;

/// Every question and connection it takes at a time, with the longest answers.
const MEMORY_OF_RESOLVER: u64 = 64 << 20;

/// The helpers of a box that hangs off the gateway in a slot, and has `ipv6` perhaps: what it is published by, and what
/// answers it.
///
/// # Errors
/// When published ports cannot be watched.
pub fn helpers<'a>(
    place: Option<(&'a Gateway, u32)>,
    ipv6: Option<Ipv6Addr>,
    waiting: Option<&'a Waiting>,
    questions: Option<&'a Questions>,
    servers: &'a [Nameserver],
) -> Result<Vec<Helper<'a>>> {
    let Some((gateway, slot)) = place else { return Ok(Vec::new()) };
    let relay = waiting.map(|waiting| relay(waiting, gateway, slot, ipv6)).transpose()?;
    let resolver = questions.map(|questions| resolver(questions, servers, slot));
    Ok(relay.into_iter().chain(resolver).map(Helper::new).collect())
}

/// The relay from the host's loopback to the published ports of the box in `slot`.
fn relay<'a>(
    waiting: &'a Waiting,
    gateway: &'a Gateway,
    slot: u32,
    ipv6: Option<Ipv6Addr>,
) -> Result<Errand<'a>> {
    let target = Target { ipv4: gateway.record.topology.box_address(slot), ipv6 };
    Ok(Errand {
        name: "netbox-relay",
        activity: vec![waiting.watch().context(|| "cannot watch the published ports")?],
        kept: waiting.sockets().collect(),
        user: user_of(slot),
        memory: MEMORY_OF_RELAY,
        // The sockets that it opens belong to the gateway. The listeners stay the host's.
        prepare: Box::new(|| {
            namespace::enter_network(gateway.network.as_fd()).context(|| "cannot enter the gateway")
        }),
        // One that cannot run leaves its clients to time out; the box itself is not concerned.
        serve: Box::new(move |listeners| drop(relay::serve(waiting.maps().zip(listeners), target))),
    })
}

/// The resolver of the box in `slot`. It stays in the host's network and mounts, so that it asks as the host does now.
fn resolver<'a>(questions: &'a Questions, servers: &'a [Nameserver], slot: u32) -> Errand<'a> {
    let sockets = vec![questions.udp.as_fd(), questions.tcp.as_fd()];
    Errand {
        name: "netbox-resolver",
        activity: sockets.clone(),
        kept: sockets,
        user: user_of(slot),
        memory: MEMORY_OF_RESOLVER,
        prepare: Box::new(|| Ok(())),
        serve: Box::new(move |sockets| {
            if let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(sockets) {
                // Nobody is told: the box asks again, and this is started again.
                drop(resolver::serve(udp, tcp, servers));
            }
        }),
    }
}
