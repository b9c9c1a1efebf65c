//! What a box's resolver knows of the boxes of its network: what is in the network's directory at that moment.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::rc::Rc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::Desk;

use crate::apply::seats;
use crate::kernel::channel::{Channel, Heard};
use crate::plan::membership::{Wanted, wanted};
use crate::plan::question::Question;

/// From the keeper to the resolver.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToResolver {
    /// The box is in these networks from now on: their names and the ranges of their addresses, with a directory for each. The answer
    /// is [`FromResolver::Known`].
    Networks(Vec<(String, Vec<IpNet>)>),
}

/// From the resolver to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromResolver {
    /// What is asked from now on is answered so.
    Known,
}

/// Does what the keeper says, for as long as it says something.
pub(super) async fn listen_to(keeper: Channel, desk: Rc<Desk>) -> io::Result<()> {
    // For being woken alone: tokio has no sockets of whole messages.
    let waker = StdDatagram::from(keeper.as_fd().try_clone_to_owned()?);
    waker.set_nonblocking(true)?;
    let waker = UnixDatagram::from_std(waker)?;
    loop {
        waker.readable().await?;
        let heard = waker.try_io(Interest::READABLE, || match keeper.hear()? {
            Heard::Nothing => Err(io::ErrorKind::WouldBlock.into()),
            heard => Ok(heard),
        });
        let (bytes, directories) = match heard {
            Ok(Heard::Message(bytes, directories)) => (bytes, directories),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        };
        let ToResolver::Networks(networks) = serde_json::from_slice(&bytes)?;
        let known = networks.into_iter().zip(directories);
        let known = known.map(|((network, subnets), directory)| Members { directory, network, subnets });
        desk.members.replace(known.collect());
        keeper.send_now(&FromResolver::Known, &[])?;
    }
}

/// The boxes of a network.
#[derive(Debug)]
pub struct Members {
    /// Its directory: `networks/ID` of the state directory.
    pub directory: OwnedFd,
    /// Its name.
    pub network: String,
    /// The ranges of its addresses.
    pub subnets: Vec<IpNet>,
}

impl Members {
    /// What there is to say to a question about a member. `None`: it is about none, and others may know.
    pub(super) fn answer(&self, question: &Question) -> Option<Vec<u8>> {
        match wanted(question, &self.network, &self.subnets)? {
            Wanted::Address(name) => self.find(&name).map(|address| question.address(Some(address.into()))),
            Wanted::Address6(name) => {
                let six = |address| seats::address6_of(&self.directory, address).map(IpAddr::V6);
                self.find(&name).map(|address| question.address(six(address)))
            }
            // Who asked the host's name servers would hear that there is no such name.
            Wanted::Other(name) => self.find(&name).map(|_| question.address(None)),
            // Nobody else knows who has these addresses.
            Wanted::Name(address) => Some(match seats::name_of(&self.directory, address) {
                Some(name) => question.pointer(&name),
                None => question.unknown(),
            }),
        }
    }

    fn find(&self, name: &str) -> Option<Ipv4Addr> {
        seats::address_of(&self.directory, name)
    }
}
