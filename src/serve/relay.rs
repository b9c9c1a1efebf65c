//! The loopback relay: connections to a published port on the host's loopback, carried to the box.
//!
//! They arrive at the socket that holds the port, because no rule translates what is sent to 127.0.0.0/8. The relay
//! runs in a thread of the keeper's that lives in the gateway's network namespace, where the box is one hop away. It starts
//! with the first connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::kernel::namespace;

/// Two copies in flight for each of so many connections; further ones wait in the socket's queue.
const CONNECTIONS: usize = 4096;

/// How long to leave a listener alone when descriptors have run out.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// The holding sockets of a box's published ports, until the first connection.
#[derive(Debug)]
pub struct Waiting {
    ports: Vec<(OwnedFd, u16)>,
    epoll: Epoll,
}

/// The relay at work.
#[derive(Debug)]
pub struct Relay {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
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

    /// Starts the relay towards the box at `address`, connecting from inside the network namespace `gateway`.
    ///
    /// # Errors
    /// EAGAIN when no thread can be had. The ports stay held.
    pub fn start(&mut self, gateway: &OwnedFd, address: Ipv4Addr) -> io::Result<Relay> {
        let mut listeners = Vec::with_capacity(self.ports.len());
        for (socket, box_port) in &self.ports {
            let listener = StdListener::from(socket.try_clone()?);
            listeners.push((listener, SocketAddrV4::new(address, *box_port)));
        }
        let gateway = gateway.try_clone()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            // This thread only: its sockets belong to the gateway. The listeners stay the host's.
            if namespace::enter_network(gateway.as_fd()).is_ok() {
                // A relay that cannot run leaves its clients to time out; the box itself is not concerned.
                let _ = serve(listeners, stopped);
            }
        })?;
        Ok(Relay { stop, thread })
    }
}

impl Relay {
    /// Stops: every connection is reset and every listener of this relay closed when this returns.
    pub fn stop(self) {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn serve(listeners: Vec<(StdListener, SocketAddrV4)>, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        for (listener, target) in listeners {
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(accept(listener, target, slots.clone()));
        }
        // An error means that the keeper dropped its end: the same wish.
        let _ = stopped.await;
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
