//! The loopback relay: connections to a published port on the host's loopback, carried to the box.
//!
//! They arrive at the socket that holds the port, because no rule translates what is sent to 127.0.0.0/8. The relay is
//! a helper of the keeper's in the gateway's network namespace, where the box is one hop away. It starts with the first
//! connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Two copies in flight for each of so many connections; further ones wait in the socket's queue.
const CONNECTIONS: usize = 4096;

/// How long to leave a listener alone when descriptors have run out.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// The holding sockets of a box's published ports.
#[derive(Debug)]
pub struct Waiting {
    ports: Vec<(OwnedFd, u16)>,
    epoll: Epoll,
}

impl Waiting {
    /// Watches `ports`: listening sockets, each with the port of the box that it leads to.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new(ports: Vec<(OwnedFd, u16)>) -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (socket, _) in &ports {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        }
        Ok(Self { ports, epoll })
    }

    /// Becomes readable with the first connection.
    #[must_use]
    pub fn activity(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The listening sockets.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ports.iter().map(|(socket, _)| socket.as_fd())
    }

    /// Where each of them leads, for the box at `address`.
    #[must_use]
    pub fn targets(&self, address: Ipv4Addr) -> Vec<SocketAddrV4> {
        self.ports.iter().map(|(_, port)| SocketAddrV4::new(address, *port)).collect()
    }
}

/// Carries what is accepted from each of `listeners` to its target, as seen from the network namespace that the calling
/// process is in, for as long as that lives.
///
/// # Errors
/// When there is no memory or descriptor left to begin with.
pub fn serve(listeners: impl IntoIterator<Item = (OwnedFd, SocketAddrV4)>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, target) in listeners {
            let listener = TcpListener::from_std(StdListener::from(listener))?;
            accepting.spawn(accept(listener, target, slots.clone()));
        }
        // They do not end by themselves.
        let _ = accepting.join_next().await;
        Ok(())
    })
}

async fn accept(listener: TcpListener, target: SocketAddrV4, slots: std::sync::Arc<tokio::sync::Semaphore>) {
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    carry(client, target).await;
                    drop(slot);
                });
            }
            // ECONNABORTED and its like concern one client; EMFILE passes.
            Err(_) => tokio::time::sleep(OUT_OF_DESCRIPTORS).await,
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddrV4) {
    // A connection that ends without having been closed in order leaves nothing behind that retransmits and so keeps a
    // network namespace alive.
    let _ = client.set_zero_linger();
    // Remote clients come here only while the host's rules are flushed: the fence is closed to them.
    let local = client.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    if !local {
        return;
    }
    let Ok(socket) = TcpSocket::new_v4() else { return };
    let Ok(mut inner) = socket.connect(SocketAddr::V4(target)).await else { return };
    let _ = inner.set_zero_linger();
    let _ = (client.set_nodelay(true), inner.set_nodelay(true));
    if tokio::io::copy_bidirectional(&mut client, &mut inner).await.is_ok() {
        // Both sides said goodbye: what is still on its way must arrive.
        let linger = |stream: &TcpStream| SockRef::from(stream).set_linger(None);
        let _ = (linger(&client), linger(&inner));
    }
}
