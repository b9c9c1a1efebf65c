//! The ports that a network namespace listens on, and the news that one is closed (sock_diag(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
};

use super::bpf::{self, load, skip_if, verdict};
use super::netlink::Netlink;
use super::sock_diag;
use super::wire::HEADER;
use crate::plan::publish_all::Listener;
use crate::spec::port::Protocol;

/// `SKNLGRP_INET_TCP_DESTROY` and its like for UDP and IPv6 (linux/sock_diag.h), as bits: 1 to 4.
const CLOSED: u32 = 0b1111;

/// Where the other end's port is in a notification: behind the header, in `struct inet_diag_msg`.
const OTHER_PORT: usize = HEADER + 6;

/// How many bytes of news may wait: they say no more than that there is one.
const WAITING: usize = 16 << 10;

/// The sockets of one network namespace, that in which this was opened.
#[derive(Debug)]
pub struct Listeners {
    questions: Netlink,
    closed: OwnedFd,
}

impl Listeners {
    /// Opens both sockets in the calling thread's network namespace.
    ///
    /// # Errors
    /// EMFILE, ENOMEM; ENOENT where the kernel has no CONFIG_INET_DIAG.
    pub fn open() -> io::Result<Self> {
        let questions = Netlink::open(SockProtocol::NetlinkSockDiag)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let closed =
            socket::socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&closed, sockopt::RcvBuf, &WAITING)?;
        // The end of a connection is no news, and there may be thousands of them in a second: only sockets without another end.
        let filter = vec![load(2, OTHER_PORT), skip_if(0, 0, 1), verdict(true), verdict(false)];
        bpf::attach(closed.as_fd(), filter)?;
        socket::bind(closed.as_raw_fd(), &NetlinkAddr::new(0, CLOSED))?;
        Ok(Self { questions, closed })
    }

    /// All that listen now, each once, in order.
    ///
    /// # Errors
    /// Those of the socket; EAGAIN when they would not stand still.
    pub fn all(&mut self) -> io::Result<Vec<Listener>> {
        let mut all = Vec::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let found = sock_diag::listening(&mut self.questions, protocol.number())?;
            all.extend(found.into_iter().map(|(address, port)| Listener { protocol, address, port }));
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Takes the news that sockets were closed, without waiting. Returns whether there was any.
    ///
    /// # Errors
    /// None to be expected.
    pub fn some_were_closed(&self) -> io::Result<bool> {
        let mut news = false;
        let mut buffer = [0; 512];
        loop {
            match socket::recv(self.closed.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
                // ENOBUFS: more than could wait.
                Ok(_) | Err(Errno::ENOBUFS) => news = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(news),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Listeners {
    /// What is readable when a socket was closed.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.closed.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn what_listens_is_told_and_what_is_connected_is_not() {
        let mut listeners = Listeners::open().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(udp.local_addr().unwrap()).unwrap();
        let stream = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let all = listeners.all().unwrap();
        let has = |protocol, at: std::net::SocketAddr| {
            all.contains(&Listener { protocol, address: at.ip(), port: at.port() })
        };
        assert!(has(Protocol::Tcp, tcp.local_addr().unwrap()), "{all:?}");
        assert!(has(Protocol::Udp, udp.local_addr().unwrap()), "{all:?}");
        assert!(!has(Protocol::Udp, connected.local_addr().unwrap()), "{all:?}");
        assert!(!has(Protocol::Tcp, stream.local_addr().unwrap()), "{all:?}");
    }

    #[test]
    fn the_end_of_a_listener_is_told() {
        let listeners = Listeners::open().unwrap();
        for socket in [
            Box::new(TcpListener::bind("127.0.0.1:0").unwrap()) as Box<dyn std::any::Any>,
            Box::new(UdpSocket::bind("127.0.0.1:0").unwrap()),
            Box::new(UdpSocket::bind("[::1]:0").unwrap()),
        ] {
            drop(socket);
            let mut wanted = [PollFd::new(listeners.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut wanted, 5000_u16), Ok(1));
            assert!(listeners.some_were_closed().unwrap());
        }
    }
}
