//! Links, addresses, routes, rules and neighbours (rtnetlink(7)), in process and blocking.
//!
//! Each noun's file makes [`Request`]s; [`Route`] sends them, several at once where that saves time.
//! Requests are written with the types of `netlink-packet-route`. Answers are read attribute by attribute:
//! that crate gives up a whole message for one attribute it does not know.
//!
//! IPv4 only.

pub mod address;
pub mod link;
pub mod neighbour;
pub mod path;
pub mod rule;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{BUFFER, Netlink};
use super::wire::{Message, messages, u16_at};

/// netbox's mark on its routes (`rtm_protocol`) and rules (`FRA_PROTOCOL`): "n" in ASCII, unassigned in
/// `linux/rtnetlink.h` and in iproute2's rt_protos. The kernel gives it no meaning.
pub const PROTOCOL: u8 = 0x6e;

/// Where flags and sequence number are in `struct nlmsghdr`.
const FLAGS: usize = 6;
const SEQUENCE: usize = 8;

/// More than any answer that is not a dump: a link's is the longest, 1.2 KiB without counters.
const ANSWER: usize = 8 * 1024;

/// How often a dump is asked again that something changed under.
const DUMP_TRIES: u32 = 5;

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
    /// The kernel's errno.
    pub error: io::Error,
    /// The kernel's own words on it, where it has some.
    pub detail: Option<String>,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

impl From<Refused> for crate::error::Error {
    fn from(refused: Refused) -> Self {
        let error = Self::new(refused.what).os(&refused.error);
        match (refused.detail, refused.error.raw_os_error()) {
            (Some(detail), Some(errno)) => {
                error.because(format!("{} ({detail})", Errno::from_raw(errno).desc().to_lowercase()))
            }
            _ => error,
        }
    }
}

/// An rtnetlink socket. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Route {
    netlink: Netlink,
    buffer: Vec<u8>,
}

impl Route {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of [`Netlink::open`].
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(SockProtocol::NetlinkRoute)?, buffer: vec![0; ANSWER] })
    }

    /// Sends all requests in one datagram and waits until the kernel has done them in their order.
    ///
    /// # Errors
    /// The first refusal. The kernel does not stop there: it tries the requests behind it all the same,
    /// so whoever undoes must undo all of them.
    pub fn pipeline(&mut self, requests: &[Request]) -> Result<(), Refused> {
        let nowhere = |error| Refused { index: 0, what: "talk to the kernel".into(), error, detail: None };
        self.transact(requests, |_| {}).map_err(nowhere)?.map_or(Ok(()), Err)
    }

    fn execute(&mut self, request: Request) -> io::Result<()> {
        Ok(self.pipeline(&[request])?)
    }

    /// Sends the requests, hands every answer that is no verdict to `each`, tells the first refusal.
    fn transact(
        &mut self,
        requests: &[Request],
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<Option<Refused>> {
        let mut bytes = Vec::with_capacity(requests.iter().map(|request| request.bytes.len()).sum());
        let mut sequences = Vec::with_capacity(requests.len());
        let mut last = 0;
        for request in requests {
            last = bytes.len();
            let sequence = self.netlink.next_sequence();
            sequences.push(sequence);
            bytes.extend_from_slice(&request.bytes);
            bytes[last + SEQUENCE..last + SEQUENCE + 4].copy_from_slice(&sequence.to_ne_bytes());
        }
        let Some(awaited) = sequences.last().copied() else { return Ok(None) };
        // Only the last message asks for an answer: the kernel works them off in order, and tells refusals
        // without being asked. One answer to receive instead of one for each.
        let flags = u16_at(&bytes, last + FLAGS).unwrap_or_default() | NLM_F_ACK;
        bytes[last + FLAGS..last + SEQUENCE].copy_from_slice(&flags.to_ne_bytes());
        self.netlink.send(&bytes)?;
        let mut refused = None;
        loop {
            let length = self.netlink.recv(&mut self.buffer)?;
            for message in messages(&self.buffer[..length]) {
                let Some(index) = sequences.iter().position(|sequence| *sequence == message.sequence) else {
                    continue; // the late answer to a request that was given up
                };
                if i32::from(message.kind) != libc::NLMSG_ERROR {
                    each(message);
                    continue;
                }
                let refusal = message.refusal();
                let verdict = refusal.is_none();
                if let (Some((errno, detail)), None) = (refusal, &refused) {
                    let (what, error) = (requests[index].what.clone(), io::Error::from_raw_os_error(errno));
                    refused = Some(Refused { index, what, error, detail });
                }
                if verdict || message.sequence == awaited {
                    return Ok(refused);
                }
            }
        }
    }

    /// Reads a whole table, again when it changed meanwhile. `decode` gets the answers without their
    /// headers and skips what is not wanted.
    fn dump<T>(
        &mut self,
        question: RouteNetlinkMessage,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        self.buffer.resize(BUFFER, 0);
        let mut request = Request::new(String::new(), NLM_F_DUMP, question).bytes;
        for _ in 0..DUMP_TRIES {
            let sequence = self.netlink.next_sequence();
            request[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_ne_bytes());
            self.netlink.send(&request)?;
            if let Some(found) = self.dumped(sequence, &decode)? {
                return Ok(found);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// The answers to one dump, or nothing when they do not fit together (`NLM_F_DUMP_INTR`).
    fn dumped<T>(
        &mut self,
        sequence: u32,
        decode: &impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            let length = self.netlink.recv(&mut self.buffer)?;
            for message in messages(&self.buffer[..length]).filter(|message| message.sequence == sequence) {
                whole &= message.flags & NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return match message.refusal() {
                            Some((errno, _)) => Err(io::Error::from_raw_os_error(errno)),
                            None => Ok(whole.then_some(found)),
                        };
                    }
                    _ => found.extend(decode(message.payload)),
                }
            }
        }
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// Turns "already gone", in the error numbers that stand for it, into success.
fn tolerate(result: io::Result<()>, gone: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) => Ok(()),
        other => other,
    }
}
