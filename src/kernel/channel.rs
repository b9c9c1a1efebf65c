//! Messages between the processes of one run: whole, in order, with descriptors where needed.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

/// A message is one datagram of at most this size: a command's arguments never travel here, the largest
/// is a list of a thousand ports.
const LARGEST: usize = 256 * 1024;

/// So many descriptors travel with a message at most: the box's own files.
const MOST_DESCRIPTORS: usize = 2;

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
        let bytes = serde_json::to_vec(message)?;
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        loop {
            let iov = [IoSlice::new(&bytes)];
            match sendmsg::<()>(self.0.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
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
        let size = self.size_of_next()?;
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

    fn size_of_next(&self) -> io::Result<usize> {
        let mut probe = [0u8; 0];
        loop {
            let mut iov = [IoSliceMut::new(&mut probe)];
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
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
}
