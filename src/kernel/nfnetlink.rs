//! A netlink socket: requests out, answers in, and what the kernel says about a refusal (netlink(7)).

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_ACK, NLMSG_DONE, NLMSG_ERROR, NlaBuffer, NlasIterator};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::error::Error;

/// How long an answer may take before it counts as lost, in seconds: a lost one must not hang a take-down.
const PATIENCE: i64 = 5;

/// What both buffers of the socket are asked to hold, in bytes. The kernel grants what
/// `net.core.{w,r}mem_max` allow, twice over.
const BUFFER: usize = 1 << 20;

/// The most that the kernel puts into one datagram of a dump, in bytes (`netlink_recvmsg` in af_netlink.c).
const DUMP: usize = 32 << 10;

/// More than any single answer or acknowledgement takes, in bytes.
const ANSWER: usize = 8 << 10;

/// The length of a message's header, in bytes (`struct nlmsghdr`).
pub(super) const HEADER: usize = 16;

const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// A netlink socket. It talks to the network namespace it was opened in, for good.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

/// A socket may be shared by processes one of which was killed before it read its answer: what each of them asks
/// must be told apart.
fn first_sequence() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos() ^ std::process::id().rotate_left(16)
}

impl From<OwnedFd> for Netlink {
    /// Takes over a socket that [`Netlink::open`] made, in this process or another.
    fn from(fd: OwnedFd) -> Self {
        Self { fd, sequence: first_sequence() }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// What `socket(2)`, `bind(2)` or `setsockopt(2)` say.
    pub fn open(protocol: SockProtocol) -> nix::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Before any group is joined: an unbound socket gets no notifications.
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::SndBuf, &BUFFER)?;
        setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        // Refusals come with a text, and without the whole request.
        enable(&fd, libc::NETLINK_EXT_ACK)?;
        enable(&fd, libc::NETLINK_CAP_ACK)?;
        Ok(Self { fd, sequence: first_sequence() })
    }

    /// A number that no earlier message of this socket had.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends messages to the kernel, which has dealt with them when this returns.
    ///
    /// # Errors
    /// What `send(2)` says; `EMSGSIZE` when it is more than the socket's buffer holds, and we may not have a
    /// larger one (which takes `CAP_NET_ADMIN` in the initial user namespace, socket(7)).
    pub fn send(&self, messages: &[u8]) -> nix::Result<()> {
        let mut enlarged = false;
        loop {
            match send(self.fd.as_raw_fd(), messages, MsgFlags::empty()) {
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

    /// Receives one datagram of messages.
    ///
    /// # Errors
    /// What `recv(2)` says: `EAGAIN` when nothing came in time, `ENOBUFS` when messages were lost; and
    /// `EMSGSIZE` when the datagram did not fit into `buffer`.
    pub fn recv<'b>(&self, buffer: &'b mut [u8]) -> nix::Result<&'b [u8]> {
        let length = loop {
            // With MSG_TRUNC, recv(2) returns the real length of what did not fit.
            match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        buffer.get(..length).ok_or(Errno::EMSGSIZE)
    }

    /// Sends one message, acknowledged or a dump, and calls `each` with the type and the payload of every answer.
    ///
    /// # Errors
    /// The kernel's refusal; or that sending or receiving failed.
    pub fn request(
        &mut self,
        message: &mut [u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> std::result::Result<(), Refusal> {
        let sequence = self.next_sequence();
        let flags = if is_dump(message) { 0 } else { NLM_F_ACK };
        stamp(message, sequence, flags).ok_or(Errno::EINVAL)?;
        self.send(message)?;
        let mut buffer = vec![0; if flags == 0 { DUMP } else { ANSWER }];
        loop {
            for answer in Messages::new(self.recv(&mut buffer)?) {
                match (answer.sequence == sequence, answer.kind) {
                    // What an earlier request left behind, or another's notification.
                    (false, _) => {}
                    (true, NLMSG_ERROR) => return answer.refusal().map_or(Ok(()), Err),
                    // The end of a dump carries its outcome as an error message does.
                    (true, NLMSG_DONE) => return answer.refusal().map_or(Ok(()), Err),
                    (true, kind) => each(kind, answer.payload),
                }
            }
        }
    }
}

/// Switches an option of netlink(7) on.
fn enable(fd: &OwnedFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `fd` is an open descriptor, and the kernel reads `length` bytes from `on`, which lives across the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length)
    };
    Errno::result(result).map(drop)
}

/// Whether the message asks for a dump (`NLM_F_DUMP`), which ends by itself.
fn is_dump(message: &[u8]) -> bool {
    const NLM_F_DUMP: u16 = 0x300;
    half(message, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP)
}

/// Writes the sequence number, and more flags, into a message's header. `None` if there is no header.
pub(super) fn stamp(message: &mut [u8], sequence: u32, flags: u16) -> Option<()> {
    let flags = half(message, 6)? | flags;
    message.get_mut(6..8)?.copy_from_slice(&flags.to_ne_bytes());
    message.get_mut(8..12)?.copy_from_slice(&sequence.to_ne_bytes());
    Some(())
}

/// A message that the kernel sent.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    flags: u16,
    /// Which request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram. Stops at the first that is cut short.
#[derive(Debug, Clone)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// The messages in `datagram`.
    #[must_use]
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::try_from(word(self.0, 0)?).ok()?;
        let message = Message {
            kind: half(self.0, 4)?,
            flags: half(self.0, 6)?,
            sequence: word(self.0, 8)?,
            payload: self.0.get(HEADER..length)?,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }
}

impl Message<'_> {
    /// The kernel's refusal, from a message that says how a request ended; `None` if it ended well.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let code = word(self.payload, 0)?.cast_signed();
        if code == 0 {
            return None;
        }
        let mut refusal = Refusal::from(Errno::from_raw(code.saturating_neg()));
        if self.kind == NLMSG_ERROR && self.flags & NLM_F_ACK_TLVS != 0 {
            // The request's header follows the code; the rest of the request, unless it is left out.
            let request = match self.flags & NLM_F_CAPPED {
                0 => word(self.payload, 4).and_then(|length| usize::try_from(length).ok()).unwrap_or(HEADER),
                _ => HEADER,
            };
            let rest = self.payload.get(4_usize.saturating_add(request.next_multiple_of(4))..);
            for attribute in NlasIterator::new(rest.unwrap_or_default()).map_while(Result::ok) {
                refusal.take(&attribute);
            }
        }
        Some(refusal)
    }
}

/// The kernel's reason not to do what a message asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's words for it, where it has any.
    pub text: Option<String>,
    /// Where in the request the culprit is, in bytes from its start.
    pub offset: Option<usize>,
}

impl Refusal {
    /// The failure of `what`, for the reason that the kernel gave.
    #[must_use]
    pub fn into_error(self, what: impl Into<String>) -> Error {
        Error::new(what).os(&self.errno.into()).because(self)
    }

    fn take(&mut self, attribute: &NlaBuffer<&[u8]>) {
        match attribute.kind() {
            NLMSGERR_ATTR_MSG => {
                let text = String::from_utf8_lossy(attribute.value());
                self.text = Some(text.trim_end_matches('\0').to_owned());
            }
            NLMSGERR_ATTR_OFFS => {
                self.offset = word(attribute.value(), 0).and_then(|offset| usize::try_from(offset).ok());
            }
            _ => {}
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None, offset: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.errno.desc().to_lowercase())?;
        if let Some(text) = &self.text {
            write!(f, " ({text})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// The two bytes at `offset`, in the machine's byte order.
fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// The four bytes at `offset`, in the machine's byte order.
pub(super) fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_cut_anywhere_is_no_panic() {
        // A refusal as Linux sends it: EEXIST, the request's header, a text and an offset.
        let mut refusal = vec![0; 20];
        refusal[..4].copy_from_slice(&(-17_i32).to_ne_bytes());
        refusal.extend([8, 0, 1, 0, b'n', b'o', 0, 0, 8, 0, 2, 0]);
        refusal.extend(40_u32.to_ne_bytes());
        let mut datagram = Vec::new();
        datagram.extend(u32::try_from(HEADER + refusal.len()).unwrap().to_ne_bytes());
        datagram.extend(NLMSG_ERROR.to_ne_bytes());
        datagram.extend((NLM_F_CAPPED | NLM_F_ACK_TLVS).to_ne_bytes());
        datagram.extend(7_u32.to_ne_bytes());
        datagram.extend(0_u32.to_ne_bytes());
        datagram.extend(&refusal);

        let whole: Vec<_> = Messages::new(&datagram).collect();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].sequence, 7);
        let expected = Refusal { errno: Errno::EEXIST, text: Some("no".into()), offset: Some(40) };
        assert_eq!(whole[0].refusal(), Some(expected));
        for end in 0..datagram.len() {
            assert_eq!(Messages::new(&datagram[..end]).count(), 0, "cut at {end}");
            let cut = Message { payload: &datagram[HEADER..end.max(HEADER)], ..whole[0] };
            let _ = cut.refusal();
        }
    }
}
