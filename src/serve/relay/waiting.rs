//! The sockets that hold a box's published ports, while the relay does not run and while it does.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::apply::reserve::Held;
use crate::plan::record::PortMap;
use crate::spec::port::Protocol;

/// The holding sockets of a box's published ports.
#[derive(Debug, Default)]
pub struct Waiting {
    held: RefCell<Vec<Held>>,
    epoll: OnceCell<Epoll>,
}

impl Waiting {
    /// Takes over what holds ports.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new(held: Vec<Held>) -> nix::Result<Self> {
        let waiting = Self { held: RefCell::new(held), epoll: OnceCell::new() };
        waiting.epoll()?;
        Ok(waiting)
    }

    fn epoll(&self) -> nix::Result<&Epoll> {
        if let Some(epoll) = self.epoll.get() {
            return Ok(epoll);
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(self.epoll.get_or_init(|| epoll))
    }

    /// Begins to watch them, once, which the command need not wait for.
    ///
    /// # Errors
    /// ENOSPC (`fs.epoll.max_user_watches`), ENOMEM.
    pub fn watch(&self) -> nix::Result<()> {
        match self.epoll.get() {
            Some(epoll) => self.held.borrow().iter().try_for_each(|held| watch(epoll, held)),
            None => Ok(()),
        }
    }

    /// What becomes readable with the first connection or datagram. `None`: nothing is published.
    #[must_use]
    pub fn activity(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.get().map(|epoll| epoll.0.as_fd())
    }

    /// Takes over more, and watches them.
    ///
    /// # Errors
    /// As [`Waiting::new`] and [`Waiting::watch`]; none of them is held then.
    pub fn add(&self, held: Vec<Held>) -> nix::Result<()> {
        let epoll = self.epoll()?;
        held.iter().try_for_each(|held| watch(epoll, held))?;
        self.held.borrow_mut().extend(held);
        Ok(())
    }

    /// Gives up those at these places. They are open until what is returned is dropped.
    pub fn remove(&self, places: &[usize]) -> Vec<Held> {
        let mut all = self.held.borrow_mut();
        let (gone, left): (Vec<_>, Vec<_>) =
            all.drain(..).enumerate().partition(|(place, _)| places.contains(place));
        all.extend(left.into_iter().map(|(_, held)| held));
        let gone: Vec<_> = gone.into_iter().map(|(_, held)| held).collect();
        for held in gone.iter().filter(|held| is_relayed(held)) {
            // The relay may have the socket open too: closing this one alone would not end the watch (epoll(7)). ENOENT: it was
            // not watched.
            let _ = self.epoll.get().map(|epoll| epoll.delete(&held.socket));
        }
        gone
    }

    /// What each socket is published as.
    #[must_use]
    pub fn maps(&self) -> Vec<Vec<PortMap>> {
        self.held.borrow().iter().map(|held| held.maps.clone()).collect()
    }

    /// All that is published.
    #[must_use]
    pub fn ports(&self) -> Vec<PortMap> {
        self.held.borrow().iter().flat_map(|held| held.maps.iter().copied()).collect()
    }

    /// What the relay calls the ports that it carries.
    #[must_use]
    pub fn names_for_relay(&self) -> Vec<PortMap> {
        self.held.borrow().iter().filter_map(name_for_relay).collect()
    }

    /// A copy of the socket of each of those.
    ///
    /// # Errors
    /// EMFILE.
    pub fn for_relay(&self) -> io::Result<Vec<OwnedFd>> {
        let held = self.held.borrow();
        held.iter()
            .filter(|held| is_relayed(held))
            .map(|held| held.socket.as_fd().try_clone_to_owned())
            .collect()
    }
}

/// What the relay calls a port that it carries. `None`: nothing of SCTP is relayed.
#[must_use]
pub fn name_for_relay(held: &Held) -> Option<PortMap> {
    held.maps.first().copied().filter(|_| is_relayed(held))
}

fn is_relayed(held: &Held) -> bool {
    held.maps.first().is_some_and(|map| map.protocol != Protocol::Sctp)
}

fn watch(epoll: &Epoll, held: &Held) -> nix::Result<()> {
    if is_relayed(held) { epoll.add(&held.socket, EpollEvent::new(EpollFlags::EPOLLIN, 0)) } else { Ok(()) }
}
