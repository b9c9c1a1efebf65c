//! The host as a place to act in: its network namespace, and the one socket to its rules that keepers share.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Context, Result};
use crate::kernel::namespace;
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::nft::Nft;
use crate::kernel::process::share_descriptor;
use crate::kernel::slots::SlotNote;

use super::census::Census;
use super::lease::Shared;
use super::state::{Locked, cookie_here};

/// This process's own network namespace: the host.
#[derive(Debug)]
pub struct Host {
    network: OwnedFd,
    nft: Option<Nft>,
}

impl Host {
    /// Opens it.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn open() -> Result<Self> {
        let network = namespace::own_network().context(|| "cannot open the host's network namespace")?;
        Ok(Self { network, nft: None })
    }

    /// Its descriptor.
    #[must_use]
    pub const fn network(&self) -> &OwnedFd {
        &self.network
    }

    /// Its nf_tables socket: one that a keeper has, or a new one.
    ///
    /// Keepers pass one socket on from each to the next, and use it under the run lock. For when a socket of netfilter's is
    /// closed while anything that was deleted in its namespace is not yet freed, the kernel waits for that, 10 ms and more,
    /// and lets nobody else commit meanwhile (`nft_rcv_nl_event`). With one socket nobody closes the last.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn nft(&mut self, _locked: &Locked<'_>, census: &Census) -> Result<&mut Nft> {
        match self.nft {
            Some(ref mut nft) => Ok(nft),
            None => {
                let own = cookie_here()?;
                let shared =
                    census.anybody.iter().find_map(|(pid, note)| share_nft(*pid, note, Shared::HostNft, own));
                Ok(self.nft.insert(match shared {
                    Some(nft) => nft,
                    None => Nft::open()?,
                }))
            }
        }
    }

    /// The socket, where this process has used it.
    pub const fn open_nft(&mut self) -> Option<&mut Nft> {
        self.nft.as_mut()
    }
}

/// The socket that process `pid` has, if it is what its note says.
pub(super) fn share_nft(pid: u32, note: &SlotNote, which: Shared, cookie: u64) -> Option<Nft> {
    let number = *note.descriptors.get(which as usize)?;
    // The process may have ended, and its number may be somebody else's: what comes back is looked at.
    let socket = (number != 0).then(|| share_descriptor(pid, number).ok()).flatten()?;
    (Nft::is_one(socket.as_fd()) && netns_cookie(socket.as_fd()).ok() == Some(cookie))
        .then(|| Nft::from(socket))
}
