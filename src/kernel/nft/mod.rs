//! nf_tables in process: one batch of messages is one transaction, and no `nft` program is started.
//!
//! The messages are those of `include/uapi/linux/netfilter/nf_tables.h`.

mod batch;
mod expression;
mod message;

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

pub use batch::Batch;

use super::netlink::{self, Netlink};
use super::wire::{Refusal, attribute};
use crate::error::{Error, Result};
use crate::plan::ruleset::{Family, Statement, Table};
use crate::plan::topology::TABLE;

/// What both buffers of the socket are asked to hold, in bytes.
const BUFFER: usize = 1 << 20;

/// A socket to the nf_tables of one network namespace.
///
/// Closing it after something was deleted waits for the kernel's RCU, 11–16 ms, and so does the next
/// transaction in that namespace that comes before: the caller decides when to drop it.
#[derive(Debug)]
pub struct Nft(Netlink);

impl From<OwnedFd> for Nft {
    /// Takes over the socket of an [`Nft::open`], in this process or another.
    fn from(fd: OwnedFd) -> Self {
        Self(Netlink::from(fd))
    }
}

impl AsFd for Nft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A transaction that the kernel refused: nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftError {
    refusal: Refusal,
    step: String,
    destroys: bool,
    of_timeout: bool,
}

impl NftError {
    /// The kernel's error number: `EEXIST` where something was there already, `ENOENT` where it was not.
    #[must_use]
    pub fn errno(&self) -> i32 {
        self.refusal.errno
    }

    /// What failed, as one would say it to nft(8): `add element t4w { tcp . 80 : … }`.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Whether it failed at a table's timeouts, which the kernel has not without CONFIG_NF_CONNTRACK_TIMEOUT.
    #[must_use]
    pub fn lacks_timeouts(&self) -> bool {
        self.of_timeout
    }

    /// Whether it failed because the kernel (before 6.3) has no word for "delete what may be absent".
    fn lacks_destroy(&self) -> bool {
        self.destroys && matches!(self.refusal.errno, libc::EINVAL | libc::EOPNOTSUPP)
    }
}

impl std::fmt::Display for NftError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "nftables: cannot {}: {}", self.step, self.refusal)
    }
}

impl std::error::Error for NftError {}

impl From<NftError> for Error {
    fn from(error: NftError) -> Self {
        error.refusal.into_error(format!("nftables: cannot {}", error.step))
    }
}

impl Nft {
    /// Whether `socket` is a netfilter netlink socket.
    #[must_use]
    pub fn is_one(socket: BorrowedFd<'_>) -> bool {
        netlink::protocol_of(socket).ok() == Some(libc::NETLINK_NETFILTER)
    }

    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no netfilter netlink.
    pub fn open() -> Result<Self> {
        let open = || {
            let socket = Netlink::open(SockProtocol::NetlinkNetFilter)?;
            socket.enlarge(BUFFER)?;
            Ok(Self(socket))
        };
        open().map_err(|errno: Errno| Refusal::from(errno).into_error("cannot open a netfilter socket"))
    }

    /// By which number notifications name this socket as the one that made a change
    /// ([`super::notifications::Notifications::of_rules`]).
    ///
    /// # Errors
    /// None that the manual names.
    pub fn number(&self) -> Result<u32> {
        self.0.port().map_err(|errno| Refusal::from(errno).into_error("cannot identify a netfilter socket"))
    }

    /// Does all of the batch, or nothing.
    ///
    /// # Errors
    /// The first step that the kernel refused.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NftError> {
        let batch = batch.finish();
        match self.attempt(&batch) {
            Err(error) if error.lacks_destroy() => self.attempt(&batch.portable()),
            result => result,
        }
    }

    fn attempt(&mut self, batch: &Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.len();
        let mut failure = None;
        let sent = self.0.exchange(&mut batch.serialize(), |place, answer| {
            let Some(outcome) = answer.outcome().filter(|_| place <= last) else {
                return ControlFlow::Continue(());
            };
            if let Err(refusal) = outcome {
                failure.get_or_insert_with(|| batch.error(place.checked_sub(1), refusal));
            }
            // Only the last step is acknowledged, after all refusals. One of the batch's first
            // message (no memory, no permission, a commit that failed) can stand alone.
            if place == last || (place == 0 && failure.is_some()) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match (failure, sent) {
            (Some(error), _) => Err(error),
            (None, Err(errno)) => Err(batch.error(None, errno.into())),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Whether the table is netbox's, by its comment; `None` if there is no such table.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn table_is_ours(&mut self, family: Family, name: &str) -> Result<Option<bool>> {
        let mut ours = false;
        let answer = self.0.request(&mut message::get_table(family, name), |payload| {
            ours |= comment(payload).is_some_and(|comment| comment == TABLE.as_bytes());
        });
        match answer {
            Ok(()) => Ok(Some(ours)),
            Err(Refusal { errno: libc::ENOENT, .. }) => Ok(None),
            Err(refusal) => Err(refusal.into_error(format!("nftables: cannot look at table {name}"))),
        }
    }
}

impl Nft {
    /// Whether every chain of the table is there with as many rules and jumps as it should have. Looks at that table
    /// only, and not at the rules themselves.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn has_chains_of(&mut self, table: &Table) -> Result<bool> {
        for chain in &table.chains {
            let jumps = table.chains.iter().flat_map(|other| &other.rules).flat_map(|rule| &rule.0);
            let jumps =
                jumps.filter(|statement| matches!(statement, Statement::Jump(to) if *to == chain.name));
            let expected = u32::try_from(chain.rules.len() + jumps.count()).ok();
            let mut used = None;
            let mut question = message::get_chain(table.family, table.name, chain.name);
            let answer = self.0.request(&mut question, |payload| {
                let count = attribute(payload.get(4..).unwrap_or_default(), message::NFTA_CHAIN_USE);
                used = count.and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes));
            });
            match answer {
                Ok(()) if used == expected => {}
                Ok(()) | Err(Refusal { errno: libc::ENOENT, .. }) => return Ok(false),
                Err(refusal) => {
                    return Err(refusal.into_error(format!("nftables: cannot look at chain {}", chain.name)));
                }
            }
        }
        Ok(true)
    }
}

/// The comment of a table, from the payload of `NFT_MSG_NEWTABLE`: type, length and bytes in its user data.
fn comment(payload: &[u8]) -> Option<&[u8]> {
    let mut userdata = attribute(payload.get(4..)?, message::NFTA_TABLE_USERDATA)?;
    while let [kind, length, rest @ ..] = userdata {
        let (value, next) = rest.split_at_checked(usize::from(*length))?;
        if *kind == message::NFTNL_UDATA_TABLE_COMMENT {
            return Some(value.strip_suffix(&[0]).unwrap_or(value));
        }
        userdata = next;
    }
    None
}

/// Every reader of this file, for the fuzz targets.
#[cfg(fuzzing)]
pub(super) fn read(payload: &[u8]) {
    let _ = comment(payload);
}
