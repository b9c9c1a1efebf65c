//! What a box's resolver knows of the boxes of its network: what is in the network's directory at that moment.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;

use crate::apply::seats;
use crate::plan::membership::{Wanted, wanted};
use crate::plan::question::Question;

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
