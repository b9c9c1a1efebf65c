//! A plain, blocking netlink socket (netlink(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};
use nix::sys::time::TimeVal;

/// How long to wait for an answer that the kernel usually has ready before `send` returns.
const PATIENCE: TimeVal = TimeVal::new(5, 0);

/// No datagram of a dump is larger: `netlink_dump` allocates at most this (`NLMSG_GOODSIZE` and
/// `max_recvmsg_len` in net/netlink/af_netlink.c).
pub const BUFFER: usize = 32 * 1024;

/// A netlink socket. It belongs for life to the network namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Whatever the system calls answer; EMFILE and ENOMEM are the ones to expect.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        socket::setsockopt(&fd, sockopt::ReceiveTimeout, &PATIENCE)?;
        // The kernel's own words on a refusal, and no copy of the request in front of them.
        set_flag(fd.as_fd(), libc::NETLINK_EXT_ACK)?;
        set_flag(fd.as_fd(), libc::NETLINK_CAP_ACK)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// A number for the next message, by which its answers are told from older ones. Never 0.
    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        self.sequence
    }

    /// Sends one datagram of one or several whole messages to the kernel.
    ///
    /// # Errors
    /// ENOBUFS or EMSGSIZE when it is too large for the socket's buffer.
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        loop {
            match socket::send(self.fd.as_raw_fd(), messages, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives one datagram and tells its length. `buffer` should be [`BUFFER`] bytes long.
    ///
    /// # Errors
    /// ETIMEDOUT when nothing came for five seconds, EMSGSIZE when the datagram does not fit,
    /// ENOBUFS when the kernel had to drop one.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // MSG_TRUNC makes the kernel tell the whole length, so that a cut datagram is seen.
            match socket::recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length <= buffer.len() => return Ok(length),
                Ok(_) => return Err(Errno::EMSGSIZE.into()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_flag(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the pointer is to a local c_int that outlives the call, and the length is that of a c_int.
    let status =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const one).cast(), 4) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The netlink family of a socket (`NETLINK_ROUTE` …), or the error that it is none.
///
/// # Errors
/// ENOTSOCK; EAFNOSUPPORT for a socket of another kind.
pub fn protocol_of(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let option = |name| {
        let mut value: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
        // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of the first.
        let status = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        if status == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    };
    if option(libc::SO_DOMAIN)? != libc::AF_NETLINK {
        return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    }
    option(libc::SO_PROTOCOL)
}
