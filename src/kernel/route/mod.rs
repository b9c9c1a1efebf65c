//! Links, addresses, routes, rules and neighbours (rtnetlink(7)), in process and blocking.
//!
//! Each noun's file makes [`Request`]s; [`Route`] sends them, several at once where that saves time.
//! Requests are written with the types of `netlink-packet-route`. Answers are read attribute by attribute:
//! that crate gives up a whole message for one attribute it does not know.

pub mod address;
pub mod link;
pub mod neighbour;
pub mod path;
pub mod rule;

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Netlink, acknowledge};
use super::wire::Refusal;
use crate::error::Error;

pub use crate::plan::routing::PROTOCOL;

/// One thing asked of the kernel.
#[derive(Debug, Clone)]
pub struct Request {
    what: String,
    bytes: Vec<u8>,
}

impl Request {
    fn new(what: String, flags: u16, message: RouteNetlinkMessage) -> Self {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        // Zeroed, because the crate leaves the NUL after a rule's interface name unwritten.
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Self { what, bytes }
    }

    /// What is asked, in the words of the ip(8) command.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// The first request of several that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Its place among them.
    pub index: usize,
    /// What was asked, in the words of the ip(8) command.
    pub what: String,
    /// Why not.
    pub refusal: Refusal,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        refused.refusal.into()
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        refused.refusal.into_error(refused.what)
    }
}

/// An rtnetlink socket. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Route(Netlink);

impl Route {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of [`Netlink::open`].
    pub fn open() -> io::Result<Self> {
        Ok(Self(Netlink::open(SockProtocol::NetlinkRoute)?))
    }

    /// Sends all requests in one datagram and waits until the kernel has done them in their order.
    ///
    /// # Errors
    /// The first refusal. The kernel does not stop there: it tries the requests behind it all the same,
    /// so whoever undoes must undo all of them.
    pub fn pipeline(&mut self, requests: &[Request]) -> Result<(), Refused> {
        let nowhere =
            |errno: Errno| Refused { index: 0, what: "talk to the kernel".into(), refusal: errno.into() };
        self.transact(requests, |_| {}).map_err(nowhere)?.map_or(Ok(()), Err)
    }

    fn execute(&mut self, request: Request) -> io::Result<()> {
        Ok(self.pipeline(&[request])?)
    }

    /// Sends the requests, hands the payload of every answer that is no verdict to `each`, tells the first refusal.
    fn transact(
        &mut self,
        requests: &[Request],
        mut each: impl FnMut(&[u8]),
    ) -> nix::Result<Option<Refused>> {
        let Some(last) = requests.len().checked_sub(1) else { return Ok(None) };
        let mut messages = Vec::with_capacity(requests.iter().map(|request| request.bytes.len()).sum());
        let mut start = 0;
        for request in requests {
            start = messages.len();
            messages.extend_from_slice(&request.bytes);
        }
        // One answer to receive instead of one for each.
        acknowledge(&mut messages[start..]);
        let mut refused = None;
        self.0.exchange(&mut messages, |index, answer| {
            let Some(outcome) = answer.outcome() else {
                each(answer.payload);
                return ControlFlow::Continue(());
            };
            let ended = outcome.is_ok() || index == last;
            if let Err(refusal) = outcome {
                refused.get_or_insert_with(|| Refused { index, what: requests[index].what.clone(), refusal });
            }
            if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(refused)
    }

    /// Reads a whole table. `decode` gets the answers without their headers and skips what is not wanted.
    fn dump<T>(
        &mut self,
        question: RouteNetlinkMessage,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut request = Request::new(String::new(), NLM_F_DUMP, question);
        Ok(self.0.dump(&mut request.bytes, decode)?)
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The family of an address (address_families(7)).
const fn address_family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Turns "already gone", in the error numbers that stand for it, into success.
fn tolerate(result: io::Result<()>, gone: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) => Ok(()),
        other => other,
    }
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    address::read(payload);
    link::read(payload);
    path::read(payload);
    rule::read(payload);
}
