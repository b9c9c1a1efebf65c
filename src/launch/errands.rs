//! What the helpers of a box are for: the relay to its published ports, and its resolver.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::apply::names::Questions;
use crate::error::{Context, Result};
use crate::kernel::namespace;
use crate::plan::record::Attachment;
use crate::serve::relay::{self, Target, Waiting};
use crate::serve::resolver;
use crate::spec::names::Nameserver;

use super::confine::user_of;
use super::helper::{Errand, Helper};

/// Two buffers for each of its connections.
const MEMORY_OF_RELAY: u64 = 256 << 20;

/// Every question and connection it takes at a time, with the longest answers.
const MEMORY_OF_RESOLVER: u64 = 64 << 20;

/// The gateway, as far as helpers need it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its network namespace.
    pub network: BorrowedFd<'a>,
    /// How the box is attached to it.
    pub attachment: Attachment,
}

/// The helpers of a box that hangs off the gateway: what it is published by, and what answers it.
///
/// # Errors
/// When published ports cannot be watched.
pub fn helpers<'a>(
    place: Option<Place<'a>>,
    waiting: &'a Waiting,
    questions: Option<&'a Questions>,
    servers: &'a [Nameserver],
) -> Result<Vec<Helper<'a>>> {
    let Some(place) = place else { return Ok(Vec::new()) };
    waiting.watch().context(|| "cannot watch the published ports")?;
    let resolver = questions.map(|questions| resolver(questions, servers, place.attachment.slot));
    Ok([relay(waiting, place)].into_iter().chain(resolver).map(Helper::new).collect())
}

/// The relay from the host's loopback to the published ports of the box.
fn relay<'a>(waiting: &'a Waiting, place: Place<'a>) -> Errand<'a> {
    let Attachment { topology, slot, address6, .. } = place.attachment;
    let target = Target { ipv4: topology.box_address(slot), ipv6: address6 };
    Errand {
        name: "netbox-relay",
        activity: Box::new(|| waiting.activity().into_iter().collect()),
        linked: true,
        user: user_of(slot),
        memory: MEMORY_OF_RELAY,
        prepare: Box::new(move || {
            // The sockets that it opens belong to the gateway. The listeners stay the host's.
            namespace::enter_network(place.network).context(|| "cannot enter the gateway")?;
            waiting.for_relay().context(|| "cannot keep the published ports")
        }),
        // One that cannot run leaves its clients to time out; the box itself is not concerned.
        serve: Box::new(move |sockets, keeper| {
            let maps = waiting.names_for_relay();
            drop(keeper.map(|keeper| relay::serve(maps.into_iter().zip(sockets), target, keeper)));
        }),
    }
}

/// The resolver of the box in `slot`. It stays in the host's network and mounts, so that it asks as the host does now.
fn resolver<'a>(questions: &'a Questions, servers: &'a [Nameserver], slot: u32) -> Errand<'a> {
    let sockets = [questions.udp.as_fd(), questions.tcp.as_fd()];
    Errand {
        name: "netbox-resolver",
        activity: Box::new(move || sockets.to_vec()),
        linked: false,
        user: user_of(slot),
        memory: MEMORY_OF_RESOLVER,
        prepare: Box::new(move || {
            let kept = sockets.iter().map(|fd| fd.try_clone_to_owned()).collect::<std::io::Result<_>>();
            kept.context(|| "cannot keep what is to be answered")
        }),
        serve: Box::new(move |sockets, _| {
            if let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(sockets) {
                // Nobody is told: the box asks again, and this is started again.
                drop(resolver::serve(udp, tcp, servers));
            }
        }),
    }
}
