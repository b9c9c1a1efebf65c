//! A socket with a name in a directory, for whoever may enter that: whole messages, and descriptors ([`Channel`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::unistd::Pid;
use rustix::fs::AtFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::channel::Channel;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens as `name` in `directory`. Whoever sees the name can connect: until then it is `new`, which is replaced where it is
    /// left over, as is `name`.
    ///
    /// # Errors
    /// Those of socket(2), bind(2) and rename(2).
    pub fn at(directory: BorrowedFd<'_>, new: &str, name: &str, backlog: i32) -> io::Result<Self> {
        match rustix::fs::unlinkat(directory, new, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let socket = socket()?;
        rustix::net::bind(&socket, &address(directory, new)?)?;
        rustix::net::listen(&socket, backlog)?;
        rustix::fs::renameat(directory, new, directory, name)?;
        Ok(Self(socket))
    }

    /// The next who connects, the user that they were then, and their process. `None`: nobody waits.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: they wait on.
    pub fn accept(&self) -> io::Result<Option<(Channel, u32, Pid)>> {
        loop {
            match rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let peer = socket_peercred(&socket)?;
                    let process = Pid::from_raw(peer.pid.as_raw_nonzero().get());
                    return Ok(Some((Channel::from(socket), peer.uid.as_raw(), process)));
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Connects to who listens as `name` in `directory`, and waits no longer than `limit` to be let into the queue.
///
/// # Errors
/// ENOENT: there is no such name; ECONNREFUSED: nobody listens any more; EAGAIN: the queue is full.
pub fn connect(directory: BorrowedFd<'_>, name: &str, limit: Duration) -> io::Result<Channel> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // For connect(2) too (unix_stream_connect).
    set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    rustix::net::connect(&socket, &address(directory, name)?)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(Channel::from(socket))
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sockets have no `…at` calls, and 108 bytes for a path: whatever the directory is called, this leads there.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::channel::Heard;
    use std::fs::File;

    const LIMIT: Duration = Duration::from_millis(10);

    #[test]
    fn who_sees_the_name_can_connect_and_is_known() {
        let path = std::env::temp_dir().join(format!("netbox-listener-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let directory = File::open(&path).unwrap();
        let of = |name| connect(directory.as_fd(), name, LIMIT);
        assert_eq!(of("c").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        let listener = Listener::at(directory.as_fd(), "new", "c", 1).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = of("c").unwrap();
        let (server, user, peer) = listener.accept().unwrap().unwrap();
        assert_eq!(peer, nix::unistd::getpid());
        assert_eq!(user, rustix::process::geteuid().as_raw());
        client.send(&1, &[]).unwrap();
        assert!(matches!(server.hear().unwrap(), Heard::Message(bytes, _) if bytes == b"1"));
        let full = std::iter::repeat_with(|| of("c")).take(4).collect::<Vec<_>>();
        assert_eq!(full[3].as_ref().unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        drop((listener, full));
        assert_eq!(of("c").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        drop(Listener::at(directory.as_fd(), "new", "c", 1).unwrap());
        std::fs::remove_dir_all(path).unwrap();
    }
}
