//! Changes on the host that somebody else made, and which of them concern netbox.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::facts::Facts;
use super::ipv6;
use super::topology::{CLOSED_TABLE, HOST_MAC, Mac, POOL_TABLE, TABLE, Topology};

/// One change, as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A link came, or something about it changed.
    Link {
        /// Its number.
        index: u32,
        /// Its name, from now on.
        name: String,
        /// Its hardware address, where it has one of 6 bytes.
        mac: Option<Mac>,
        /// Administratively up.
        up: bool,
    },
    /// A link was removed, or moved to another network namespace.
    LinkGone {
        /// Its number.
        index: u32,
        /// Its hardware address.
        mac: Option<Mac>,
    },
    /// A link has an address, new or renewed.
    Address {
        /// The link's number.
        index: u32,
        /// The address.
        address: IpAddr,
    },
    /// A link has lost an address.
    AddressGone {
        /// The link's number.
        index: u32,
        /// The address.
        address: IpAddr,
    },
    /// A route was removed.
    RouteGone {
        /// From this routing table.
        table: u32,
    },
    /// A routing rule was removed.
    RuleGone {
        /// It looked into this routing table.
        table: u32,
    },
    /// Forwarding was switched.
    Forwarding {
        /// The link's number; `None`: all of them, or those to come.
        index: Option<u32>,
        /// The switch.
        on: bool,
    },
    /// A table of nftables was touched, or something in it.
    Rules {
        /// The table's name.
        table: String,
        /// Whether it was made.
        made: bool,
    },
    /// netbox's own tables were made anew.
    OwnRules,
}

/// What has to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Concern {
    /// Links, addresses, forwarding, routing.
    pub network: bool,
    /// netbox's rules are not what they were.
    pub rules: bool,
    /// netbox's rules may not be what they were.
    pub rules_perhaps: bool,
}

impl Concern {
    /// Whatever may have happened.
    pub const EVERYTHING: Self = Self { network: true, rules: false, rules_perhaps: true };

    /// Whether nothing has to be looked at.
    #[must_use]
    pub const fn is_none(self) -> bool {
        !(self.network || self.rules || self.rules_perhaps)
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            network: self.network || other.network,
            rules: self.rules || other.rules,
            rules_perhaps: self.rules_perhaps || other.rules_perhaps,
        }
    }
}

/// The host as netbox last saw it: as much as tells a change that concerns it from one that does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    own_link: String,
    own_index: Option<u32>,
    /// The links that have an address, by number and name.
    links: BTreeSet<(u32, String)>,
    /// Those of them that are down: with them routes go that nobody tells of.
    down: BTreeSet<u32>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl View {
    /// What `facts` show to a gateway.
    #[must_use]
    pub fn of(facts: &Facts, topology: &Topology) -> Self {
        let own_link = topology.host_link();
        Self {
            own_index: facts.links.iter().find(|link| link.name == own_link).map(|link| link.index),
            own_link,
            links: facts.addresses.iter().map(|address| (address.index, address.link.clone())).collect(),
            down: facts.links.iter().filter(|link| !link.up).map(|link| link.index).collect(),
            addresses: facts
                .addresses
                .iter()
                .map(|address| (address.index, address.address.addr()))
                .collect(),
        }
    }

    /// What a link was called, if netbox had to do with it.
    #[must_use]
    pub fn name_of(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|(number, _)| *number == index).map(|(_, name)| name.as_str())
    }

    fn is_own(&self, index: u32, mac: Option<Mac>) -> bool {
        self.own_index == Some(index) || mac == Some(HOST_MAC)
    }

    /// What a change asks netbox to look at.
    #[must_use]
    pub fn concern(&self, change: &Change) -> Concern {
        let network = match change {
            Change::Link { index, name, mac, up } => {
                let own = self.is_own(*index, *mac);
                let renamed = self.name_of(*index).is_some_and(|known| known != name);
                let turned = self.name_of(*index).is_some() && self.down.contains(index) == *up;
                renamed
                    || turned
                    || (own && (!up || *name != self.own_link || self.own_index != Some(*index)))
            }
            Change::LinkGone { index, mac } => self.is_own(*index, *mac) || self.name_of(*index).is_some(),
            Change::Address { index, address } => {
                concerns(*address) && !self.addresses.contains(&(*index, *address))
            }
            Change::AddressGone { index, address } => self.addresses.contains(&(*index, *address)),
            Change::RouteGone { table } => {
                // Only netbox's own come by here.
                *table == POOL_TABLE || *table == CLOSED_TABLE || *table == MAIN_TABLE
            }
            Change::RuleGone { table } => [POOL_TABLE, CLOSED_TABLE, MAIN_TABLE].contains(table),
            Change::Forwarding { index: None, .. } => true,
            Change::Forwarding { index: Some(index), on } => {
                !on && (self.own_index == Some(*index) || self.name_of(*index).is_some())
            }
            Change::OwnRules => false,
            Change::Rules { table, .. } => {
                let own = table == TABLE;
                return Concern { rules: own, ..Concern::default() };
            }
        };
        Concern { network, ..Concern::default() }
    }

    /// What several changes, in their order, ask for together. What was done to the rules before netbox made them anew is
    /// mended. A table that was made anew is the doing of another netbox, which is out of reach, or of somebody who made a
    /// foreign one: what is there decides.
    #[must_use]
    pub fn concerns(&self, changes: &[Change]) -> Concern {
        let is_own = |change: &Change| *change == Change::OwnRules;
        let mended = changes.iter().rposition(is_own).unwrap_or(0);
        let counts =
            |(place, change): &(usize, &Change)| *place >= mended || !matches!(change, Change::Rules { .. });
        let changes: Vec<_> = changes.iter().enumerate().filter(counts).map(|(_, change)| change).collect();
        let mut all = changes.iter().fold(Concern::default(), |all, change| all.and(self.concern(change)));
        let remade = changes
            .iter()
            .any(|change| matches!(change, Change::Rules { table, made: true } if table == TABLE));
        if all.rules && remade {
            all = Concern { rules: false, rules_perhaps: true, ..all };
        }
        all
    }
}

/// Link-local addresses of IPv6 are closed as a whole.
fn concerns(address: IpAddr) -> bool {
    address.is_ipv4() || ipv6::is_global(address)
}

/// The kernel's main routing table (RT_TABLE_MAIN).
const MAIN_TABLE: u32 = 254;
