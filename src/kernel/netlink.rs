//! A blocking netlink socket: requests out, answers in (netlink(7)).

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP_INTR};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
};
use nix::sys::time::TimeVal;

use super::socket_option;
use super::wire::{self, HEADER, Message, Refusal};

/// How long to wait for an answer that the kernel usually has ready before `send` returns: a lost one must not
/// hang a take-down.
const PATIENCE: TimeVal = TimeVal::new(5, 0);

/// No datagram of a dump is larger, in bytes: `netlink_dump` allocates at most this (`NLMSG_GOODSIZE` and
/// `max_recvmsg_len` in net/netlink/af_netlink.c).
const DUMP: usize = 32 << 10;

/// More than any answer that is not a dump takes, in bytes: a link's is the longest, 1.2 KiB without counters.
const ANSWER: usize = 8 << 10;

/// How often a dump is asked again that something changed under.
const DUMP_TRIES: u32 = 5;

/// Where flags and sequence number are in `struct nlmsghdr`.
const FLAGS: std::ops::Range<usize> = 6..8;
const SEQUENCE: std::ops::Range<usize> = 8..12;

/// A netlink socket. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    /// The sequence number of the next message.
    next: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Whatever the system calls answer; EMFILE and ENOMEM are the ones to expect.
    pub fn open(protocol: SockProtocol) -> nix::Result<Self> {
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &PATIENCE)?;
        // The kernel's own words on a refusal, and no copy of the request in front of them.
        set_flag(fd.as_fd(), libc::NETLINK_EXT_ACK)?;
        set_flag(fd.as_fd(), libc::NETLINK_CAP_ACK)?;
        Ok(Self::from(fd))
    }

    /// Asks for buffers of `bytes` in both directions. The kernel grants what `net.core.{w,r}mem_max` allow,
    /// twice over.
    ///
    /// # Errors
    /// What `setsockopt(2)` says.
    pub fn enlarge(&self, bytes: usize) -> nix::Result<()> {
        setsockopt(&self.fd, sockopt::SndBuf, &bytes)?;
        setsockopt(&self.fd, sockopt::RcvBuf, &bytes)
    }

    /// The number by which the kernel tells this socket from others of its namespace (`nl_pid`).
    ///
    /// # Errors
    /// None that the manual names.
    pub fn port(&self) -> nix::Result<u32> {
        socket::getsockname::<NetlinkAddr>(self.fd.as_raw_fd()).map(|address| address.pid())
    }

    /// Sends whole messages in one datagram, and hands every answer to `each` with the place of the message that
    /// it answers, until `each` breaks with the outcome.
    ///
    /// # Errors
    /// EMSGSIZE when the messages are more than the socket's buffer holds, and we may not have a larger one
    /// (which takes `CAP_NET_ADMIN` in the initial user namespace, socket(7)), or when an answer is more than
    /// ours; ETIMEDOUT when nothing came for five seconds; ENOBUFS when the kernel had to drop an answer.
    pub fn exchange<T>(
        &mut self,
        messages: &mut [u8],
        mut each: impl FnMut(usize, &Message<'_>) -> ControlFlow<T>,
    ) -> nix::Result<T> {
        let (first, count) = self.number(messages);
        self.send(messages)?;
        self.reserve(ANSWER);
        loop {
            for answer in wire::messages(receive(&self.fd, &mut self.buffer)?) {
                // Unsigned distance: what an earlier request left behind, of this process or of a dead one that
                // shared the socket, is far away.
                let place = usize::try_from(answer.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if place < count
                    && let ControlFlow::Break(outcome) = each(place, &answer)
                {
                    return Ok(outcome);
                }
            }
        }
    }

    /// Sends one message, to be acknowledged, and calls `each` with the payload of every answer before that.
    ///
    /// # Errors
    /// The kernel's refusal, or those of [`Netlink::exchange`].
    pub fn request(&mut self, message: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), Refusal> {
        acknowledge(message);
        self.exchange(message, |_, answer| match answer.outcome() {
            Some(outcome) => ControlFlow::Break(outcome),
            None => {
                each(answer.payload);
                ControlFlow::Continue(())
            }
        })?
    }

    /// Reads a whole table, again when it changed meanwhile (`NLM_F_DUMP_INTR`). `decode` gets the payload of
    /// every answer and skips what is not wanted.
    ///
    /// # Errors
    /// EAGAIN when the table would not stand still, else as [`Netlink::request`].
    pub fn dump<T>(
        &mut self,
        message: &mut [u8],
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        self.reserve(DUMP);
        for _ in 0..DUMP_TRIES {
            let (mut found, mut whole) = (Vec::new(), true);
            self.exchange(message, |_, answer| {
                whole &= answer.flags & NLM_F_DUMP_INTR == 0;
                match answer.outcome() {
                    Some(outcome) => ControlFlow::Break(outcome),
                    None => {
                        found.extend(decode(answer.payload));
                        ControlFlow::Continue(())
                    }
                }
            })??;
            if whole {
                return Ok(found);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Gives each message a number that no earlier one of this socket had; tells the first, and how many they are.
    fn number(&mut self, messages: &mut [u8]) -> (u32, usize) {
        let (first, mut count, mut rest) = (self.next, 0, messages);
        while let Some(length) = wire::u32_at(rest, 0).and_then(|length| usize::try_from(length).ok())
            && let Some(sequence) = rest.get_mut(SEQUENCE)
        {
            sequence.copy_from_slice(&self.next.to_ne_bytes());
            self.next = self.next.wrapping_add(1);
            count += 1;
            rest = rest.get_mut(wire::align(length.max(HEADER))..).unwrap_or_default();
        }
        (first, count)
    }

    fn send(&self, messages: &[u8]) -> nix::Result<()> {
        let mut enlarged = false;
        loop {
            match socket::send(self.fd.as_raw_fd(), messages, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(Errno::EMSGSIZE) if !enlarged => {
                    enlarged = true;
                    setsockopt(&self.fd, sockopt::SndBufForce, &messages.len())
                        .map_err(|_| Errno::EMSGSIZE)?;
                }
                result => return result.map(drop),
            }
        }
    }

    fn reserve(&mut self, bytes: usize) {
        if self.buffer.len() < bytes {
            self.buffer = vec![0; bytes];
        }
    }
}

impl From<OwnedFd> for Netlink {
    /// Takes over a socket that [`Netlink::open`] made, in this process or another.
    fn from(fd: OwnedFd) -> Self {
        // Processes may share the socket, one of which was killed before it read its answer: what each of them
        // asks must be told apart.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let next = now.subsec_nanos() ^ std::process::id().rotate_left(16);
        Self { fd, next, buffer: Vec::new() }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Has a message acknowledged. The kernel tells refusals without being asked, and works off the messages of a
/// datagram in their order: it is enough to ask this of the last.
pub(super) fn acknowledge(message: &mut [u8]) {
    let flags = wire::u16_at(message, FLAGS.start).unwrap_or_default() | NLM_F_ACK;
    if let Some(place) = message.get_mut(FLAGS) {
        place.copy_from_slice(&flags.to_ne_bytes());
    }
}

/// One datagram, in the part of `buffer` that it takes.
fn receive<'b>(fd: &OwnedFd, buffer: &'b mut [u8]) -> nix::Result<&'b [u8]> {
    let length = loop {
        // MSG_TRUNC makes the kernel tell the whole length, so that a cut datagram is seen.
        match socket::recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            result => break result?,
        }
    };
    buffer.get(..length).ok_or(Errno::EMSGSIZE)
}

/// Switches an option of netlink(7) on.
fn set_flag(fd: BorrowedFd<'_>, option: libc::c_int) -> nix::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the pointer is to a local c_int that outlives the call, and the length is that of a c_int.
    let status =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const one).cast(), 4) };
    Errno::result(status).map(drop)
}

/// The netlink family of a socket (`NETLINK_ROUTE` …), or the error that it is none.
///
/// # Errors
/// ENOTSOCK; EAFNOSUPPORT for a socket of another kind.
pub fn protocol_of(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let option = |name| socket_option::read(socket, name).map(i32::from_ne_bytes);
    if option(libc::SO_DOMAIN)? != libc::AF_NETLINK {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    option(libc::SO_PROTOCOL)
}
