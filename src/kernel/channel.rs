//! Messages between the processes of one run: whole, in order, with descriptors where needed.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

/// A message is one datagram of at most this size: a command's arguments never travel here, the largest
/// is a list of a thousand ports.
const LARGEST: usize = 256 * 1024;

/// So many descriptors travel with a message of netbox's at most.
pub const MOST_DESCRIPTORS: usize = 64;

/// So many can come with anybody's (SCM_MAX_FD of include/net/scm.h).
const MOST_OF_ANYBODY: usize = 253;

/// One end of a pair.
///
/// Its other end's death is an end of file, also by SIGKILL.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What came in.
#[derive(Debug)]
pub struct Incoming<M> {
    /// The message.
    pub message: M,
    /// The descriptors that came with it, in order.
    pub descriptors: Vec<OwnedFd>,
}

/// What there is to be heard now.
#[derive(Debug)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// A message as it came, and the descriptors that came with it. It may be anybody's.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// Nothing more, ever: the other end is closed.
    HungUp,
}

impl From<OwnedFd> for Channel {
    /// Takes over a connected socket of SOCK_SEQPACKET.
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Channel {
    /// Two connected ends, closed by exec.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn pair() -> nix::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one message. The other end may be dead (EPIPE): SIGPIPE is not raised.
    ///
    /// # Errors
    /// EPIPE, ENOBUFS, EMSGSIZE.
    pub fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(message, descriptors, MsgFlags::empty())
    }

    /// [`Channel::send`] that waits for nobody: a peer that does not read has no room at some point.
    ///
    /// # Errors
    /// EAGAIN where there is no room; EPIPE, ENOBUFS, EMSGSIZE.
    pub fn send_now(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(message, descriptors, MsgFlags::MSG_DONTWAIT)
    }

    fn send_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
        flags: MsgFlags,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        loop {
            let iov = [IoSlice::new(&bytes)];
            match sendmsg::<()>(self.0.as_raw_fd(), &iov, control, flags | MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits for the next message. `None`: the other end is closed, its process gone or exec'd.
    ///
    /// # Errors
    /// Those of recvmsg(2), and InvalidData for a message that is not one.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<Incoming<M>>> {
        let mut first = [0u8; 4096];
        let size = self.size_of_next(MsgFlags::empty())?;
        let mut large = Vec::new();
        let buffer = if size <= first.len() {
            &mut first[..]
        } else {
            large.resize(size.min(LARGEST), 0);
            &mut large[..]
        };
        let mut space = nix::cmsg_space!([i32; MOST_DESCRIPTORS]);
        let (length, descriptors) = loop {
            let mut iov = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), flags) {
                Ok(message) => break (message.bytes, descriptors_of(message.cmsgs()?)),
                // A peer that died with unread data of ours resets the connection, which is told once, and before what it
                // had said last (`unix_release_sock`).
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(buffer.get(..length).unwrap_or_default())?;
        Ok(Some(Incoming { message, descriptors }))
    }

    /// Whether the other end is closed. What it has said before can be heard all the same.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        let mut wanted = [PollFd::new(self.as_fd(), PollFlags::empty())];
        // What poll(2) cannot say now the next message will.
        poll(&mut wanted, PollTimeout::ZERO).is_ok()
            && wanted[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }

    /// What a peer has sent that need not be netbox, without waiting for it.
    ///
    /// # Errors
    /// EMSGSIZE for a message that is too long to be netbox's, which is lost; those of recvmsg(2).
    pub fn hear(&self) -> io::Result<Heard> {
        let size = match self.size_of_next(MsgFlags::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Nothing),
            other => other?,
        };
        let mut bytes = vec![0; size.min(LARGEST)];
        // Room for all that can come. nix would lose descriptors that have come where others had no room in the process.
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_OF_ANYBODY))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC | rustix::net::RecvFlags::DONTWAIT;
        let received = loop {
            match rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                other => break other?,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let rustix::net::RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.flags.contains(rustix::net::ReturnFlags::TRUNC) {
            return Err(Errno::EMSGSIZE.into());
        }
        if received.bytes == 0 {
            return Ok(Heard::HungUp);
        }
        bytes.truncate(received.bytes);
        Ok(Heard::Message(bytes, descriptors))
    }

    fn size_of_next(&self, flags: MsgFlags) -> io::Result<usize> {
        let mut probe = [0u8; 0];
        loop {
            let mut iov = [IoSliceMut::new(&mut probe)];
            let flags = flags | MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, None, flags) {
                Ok(message) => return Ok(message.bytes),
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn descriptors_of(messages: impl Iterator<Item = ControlMessageOwned>) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    for message in messages {
        let ControlMessageOwned::ScmRights(descriptors) = message else { continue };
        for raw in descriptors {
            // SAFETY: the kernel has just installed this descriptor for this message (unix(7)), nobody
            // else knows its number.
            let owned = unsafe { OwnedFd::from_raw_fd(raw) };
            all.push(owned);
        }
    }
    all
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_said_last_is_heard_though_it_died_with_unread_messages() {
        let (one, other) = Channel::pair().unwrap();
        one.send(&"unread", &[]).unwrap();
        other.send(&"last", &[]).unwrap();
        drop(other);
        assert_eq!(one.receive::<String>().unwrap().unwrap().message, "last");
        assert!(one.receive::<String>().unwrap().is_none());
    }

    #[test]
    fn what_anybody_sends_is_heard_whole_or_not_at_all() {
        let (one, other) = Channel::pair().unwrap();
        assert!(matches!(one.hear().unwrap(), Heard::Nothing));
        let many = vec![other.as_fd(); MOST_OF_ANYBODY];
        other.send_now(&"x", &many).unwrap();
        let Heard::Message(bytes, descriptors) = one.hear().unwrap() else { panic!("no message") };
        assert_eq!((bytes.as_slice(), descriptors.len()), (&br#""x""#[..], MOST_OF_ANYBODY));
        rustix::net::sockopt::set_socket_send_buffer_size(&other, 4 << 20).unwrap();
        other.send_now(&"x".repeat(LARGEST), &[]).unwrap();
        assert_eq!(one.hear().unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        drop((other, descriptors));
        assert!(matches!(one.hear().unwrap(), Heard::HungUp));
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_waited_for() {
        let (one, _other) = Channel::pair().unwrap();
        let full = (0..100_000).find_map(|_| one.send_now(&"unread", &[]).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
