//! Who has which address in a network: `networks/ID/ADDRESS` in the state directory, a link that leads nowhere and says which box;
//! and `networks/ID/name:NAME`, which says which address.
//!
//! To find a free one takes no look at the others: the kernel says whether the name is taken. One that was asked for as a hardware
//! address is registered likewise.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::plan::network::{MAC_PREFIX, Network, Seat, mac_of};
use crate::plan::network6::Network6;
use crate::plan::topology::{MOST_LINKS, Mac};
use crate::plan::wiring::written;
use crate::spec::address::parse_mac;
use crate::spec::name::{BoxId, BoxName};
use crate::spec::network::Join;

use super::registry;
use super::state::{self, Locked, make_directory};

/// What the links begin with that lead from a name to an address. No address begins so.
const NAME: &str = "name:";

/// What a link has in the place of an IPv6 address.
const NO_ADDRESS6: &str = "-";

/// Where they are.
pub(super) const DIRECTORY: &str = "networks";

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The box's id.
    pub id: BoxId,
    /// Its slot.
    pub slot: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Its name; the id where it has none.
    pub name: String,
    /// Which of its links leads there.
    pub link: u32,
    /// Its IPv6 address, where it has one.
    pub address6: Option<Ipv6Addr>,
    /// What else it is found by.
    pub aliases: Vec<BoxName>,
}

impl Taken {
    /// Not too long for a link (PATH_MAX): there are not so many further names.
    fn text(&self) -> String {
        let Self { id, slot, mac, name, link, address6, aliases } = self;
        let six = address6.map_or_else(|| NO_ADDRESS6.to_owned(), |six| six.to_string());
        let aliases: String = aliases.iter().map(|alias| format!(" {alias}")).collect();
        format!("{id} {slot} {} {name} {link} {six}{aliases}", written(*mac))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (id, slot, mac, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let (id, mac) = (BoxId::parse(id).ok()?, parse_mac(mac).ok()?);
        let name = BoxName::parse(name).ok()?.as_str().to_owned();
        let link = words.next()?.parse().ok().filter(|link| *link < MOST_LINKS)?;
        let address6 = match words.next()? {
            NO_ADDRESS6 => None,
            six => Some(six.parse().ok()?),
        };
        let aliases = words.map(|alias| BoxName::parse(alias).ok()).collect::<Option<_>>()?;
        Some(Self { id, slot: slot.parse().ok()?, mac, name, link, address6, aliases })
    }
}

/// Takes the address that was asked for, or a free one, for the box with this id in `slot`.
///
/// Killed at any point of this, it leaves what the sweep finds by the id ([`of_box`]).
///
/// # Errors
/// An address that is none of the network's, or another box's, naming that one; a network that is full.
pub fn take(
    locked: &Locked<'_>,
    network: &Network,
    (link, join, ipv6): (u32, &Join, bool),
    (id, slot, name): (BoxId, u32, Option<&BoxName>),
) -> Result<Seat> {
    let root = locked.root();
    let directory = path_of(&network.id);
    for path in [DIRECTORY, &directory] {
        make_directory(root, path, 0o700).context(|| format!("cannot make the state directory {path}"))?;
    }
    // Whoever has it open may look up what they know the name of: resolvers do. Nobody else comes as far as here. Not by mkdir(2), where
    // the caller's umask has a say in it.
    rustix::fs::chmodat(root, directory.as_str(), Mode::from_raw_mode(0o711), AtFlags::empty())
        .map_err(io::Error::from)
        .context(|| format!("cannot open the state directory {directory} to resolvers"))?;
    let name = name.map_or_else(|| id.to_string(), |name| name.as_str().to_owned());
    if let Some(mac) = join.mac {
        check_mac(locked, network, mac)?;
    }
    let try_one = |address: Ipv4Addr| -> Result<Option<Seat>> {
        let mac = join.mac.unwrap_or_else(|| mac_of(address));
        let six = network.ipv6.filter(|_| ipv6);
        let address6 = six.map(|six| free6(locked, network, &six, join.ip6, address)).transpose()?;
        let aliases = join.aliases.clone();
        let own = Taken { id, slot, mac, name: name.clone(), link, address6, aliases };
        match put(root, &format!("{directory}/{address}"), &own) {
            Ok(()) => {
                let seat = Seat { network: network.id, link, address, address6, mac };
                register_mac(root, &seat, &own)
                    .and_then(|()| register6(root, &seat, &own))
                    .and_then(|()| register_names(locked, network, &seat, &own))
                    .inspect_err(|_| drop(give_back(locked, &seat, id.as_str())))?;
                Ok(Some(seat))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error).context(|| format!("cannot register the address {address}")),
        }
    };
    if let Some(address) = join.ip {
        network.check_address(address)?;
        let what = format!("the address {address}");
        return try_one(address)?.ok_or_else(|| taken_by(locked, network, &what, &address.to_string()));
    }
    // The slots follow each other, and so do the addresses: one rests before it is used again.
    for address in network.candidates(slot) {
        if let Some(seat) = try_one(address)? {
            return Ok(seat);
        }
    }
    Err(is_full(network, "addresses"))
}

/// The IPv6 address that was asked for, or a free one: at the place of the IPv4 address, where that is free. Nobody else takes one
/// meanwhile: the caller holds the run lock.
fn free6(
    locked: &Locked<'_>,
    network: &Network,
    six: &Network6,
    asked: Option<Ipv6Addr>,
    four: Ipv4Addr,
) -> Result<Ipv6Addr> {
    let is_free = |address: &Ipv6Addr| find(locked.root(), &network.id, &address.to_string()).is_none();
    if let Some(address) = asked {
        let taken = || taken_by(locked, network, &format!("the address {address}"), &address.to_string());
        return Some(address).filter(is_free).ok_or_else(taken);
    }
    let place = u32::from(four) - u32::from(network.subnet.network());
    six.candidates(place).find(is_free).ok_or_else(|| is_full(network, "IPv6 addresses"))
}

fn is_full(network: &Network, what: &str) -> Error {
    Error::new(format!("cannot start another box in network {}", network.name))
        .because(format!("all of its {what} are taken"))
        .hint(format!("`netbox network inspect {}` lists its boxes", network.name))
}

/// After the other address, by which the sweep finds it.
fn register6(root: &OwnedFd, seat: &Seat, taken: &Taken) -> Result<()> {
    let Some(address) = seat.address6 else { return Ok(()) };
    put(root, &format!("{}/{address}", path_of(&seat.network)), taken)
        .context(|| format!("cannot register the address {address}"))
}

/// After the address, by which the sweep finds both. One that follows from the address is nobody else's.
fn register_mac(root: &OwnedFd, seat: &Seat, taken: &Taken) -> Result<()> {
    if seat.mac == mac_of(seat.address) {
        return Ok(());
    }
    let mac = written(seat.mac);
    put(root, &format!("{}/{mac}", path_of(&seat.network)), taken)
        .context(|| format!("cannot register the hardware address {mac}"))
}

/// The names that other boxes of the network find it by, in small letters (RFC 4343).
fn names_of(taken: &Taken) -> Vec<String> {
    let all = [taken.id.as_str(), &taken.name].into_iter().chain(taken.aliases.iter().map(BoxName::as_str));
    let mut names: Vec<_> = all.map(|name| format!("{NAME}{}", name.to_ascii_lowercase())).collect();
    // A further name that it has already is none.
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn register_names(locked: &Locked<'_>, network: &Network, seat: &Seat, own: &Taken) -> Result<()> {
    for name in names_of(own) {
        let path = format!("{}/{name}", path_of(&seat.network));
        match rustix::fs::symlinkat(seat.address.to_string().as_str(), locked.root(), path.as_str()) {
            Ok(()) => {}
            // Names of boxes differ by large and small letters; those of DNS do not.
            Err(rustix::io::Errno::EXIST) => {
                let name = name.strip_prefix(NAME).unwrap_or(&name);
                // As it was typed.
                let mut typed =
                    [own.name.as_str()].into_iter().chain(own.aliases.iter().map(BoxName::as_str));
                let name = typed.find(|typed| typed.eq_ignore_ascii_case(name)).unwrap_or(name);
                let cause = match found_by(locked, network, &path) {
                    Some(owner) => format!("{owner} is found by that name, in large or small letters"),
                    None => {
                        "another of its boxes is found by that name, in large or small letters".to_owned()
                    }
                };
                let error = Error::new(format!("cannot call the box {name} in network {}", network.name))
                    .because(cause);
                return Err(match own.name.eq_ignore_ascii_case(name) {
                    true => error.hint("choose another --name"),
                    false => error.hint("choose another alias"),
                });
            }
            Err(errno) => {
                return Err(io::Error::from(errno)).context(|| {
                    format!("cannot register the name {} in network {}", own.name, network.name)
                });
            }
        }
    }
    Ok(())
}

/// The box that is found by a name, in words.
fn found_by(locked: &Locked<'_>, network: &Network, path: &str) -> Option<String> {
    let address = link(locked.root(), path)?;
    let owner = find(locked.root(), &network.id, &address)?;
    Some(format!("box {} ({address})", owner.name))
}

/// Takes the names back that other boxes find it by, before it gives its seat back: while its link is seen off nobody is to
/// be sent there. Returns what could not be undone.
pub fn forget_names(locked: &Locked<'_>, seat: &Seat, id: &str) -> Vec<String> {
    let own =
        find(locked.root(), &seat.network, &seat.address.to_string()).filter(|taken| taken.id.as_str() == id);
    let names = own.map(|taken| names_of(&taken)).unwrap_or_default();
    let directory = path_of(&seat.network);
    let is_own = |name: &&String| {
        link(locked.root(), &format!("{directory}/{name}")) == Some(seat.address.to_string())
    };
    names
        .iter()
        .filter(is_own)
        .filter_map(|name| {
            let removed = state::remove(locked.root(), &format!("{directory}/{name}"));
            removed.err().map(|error| format!("cannot free the name {name}: {error}"))
        })
        .collect()
}

/// Opens the directory of a network, for [`address_of`] and [`name_of`].
///
/// # Errors
/// Those of openat(2).
pub fn open(locked_root: &OwnedFd, network: &BoxId) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(locked_root, path_of(network).as_str(), flags, Mode::empty())?)
}

/// Which address the box of a network has that is found by this name, in small letters.
#[must_use]
pub fn address_of(directory: &OwnedFd, name: &str) -> Option<Ipv4Addr> {
    // No path, and no name that a box could not have.
    let name = BoxName::parse(name).ok()?;
    link(directory, &format!("{NAME}{name}"))?.parse().ok()
}

/// Which IPv6 address the box of a network has that has this one.
#[must_use]
pub fn address6_of(directory: &OwnedFd, address: Ipv4Addr) -> Option<Ipv6Addr> {
    Taken::parse(&link(directory, &address.to_string())?)?.address6
}

/// What the box of a network is called that has this address, unless it has just ended.
#[must_use]
pub fn name_of(directory: &OwnedFd, address: IpAddr) -> Option<String> {
    let taken = Taken::parse(&link(directory, &address.to_string())?)?;
    let found = address_of(directory, &taken.name.to_ascii_lowercase())?;
    let is_found = match address {
        IpAddr::V4(four) => found == four,
        IpAddr::V6(six) => address6_of(directory, found) == Some(six),
    };
    is_found.then_some(taken.name)
}

fn link(at: &OwnedFd, path: &str) -> Option<String> {
    rustix::fs::readlinkat(at, path, Vec::new()).ok()?.into_string().ok()
}

fn check_mac(locked: &Locked<'_>, network: &Network, mac: Mac) -> Result<()> {
    let what = format!("the hardware address {}", written(mac));
    if mac.starts_with(&MAC_PREFIX) {
        return Err(Error::new(format!("cannot give the box {what}"))
            .because("those that begin so are given to boxes by their IP addresses")
            .hint("any other will do"));
    }
    match find(locked.root(), &network.id, &written(mac)) {
        None => Ok(()),
        Some(_) => Err(taken_by(locked, network, &what, &written(mac))),
    }
}

fn taken_by(locked: &Locked<'_>, network: &Network, what: &str, name: &str) -> Error {
    let owner = find(locked.root(), &network.id, name).map(|taken| taken.id.to_string()).unwrap_or_default();
    let cause = match registry::look_up(locked.root(), &owner) {
        Some((Some(record), _)) => format!("box {} (pid {}) has it", record.name, record.pid),
        _ => format!("box {owner} has it"),
    };
    Error::new(format!("cannot give the box {what} in network {}", network.name))
        .because(cause)
        .hint(format!("`netbox network inspect {}` lists its boxes", network.name))
}

fn put(root: &OwnedFd, path: &str, taken: &Taken) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(taken.text().as_str(), root, path)?)
}

/// Who has the address, or the hardware address, in a network.
#[must_use]
pub fn find(root: &OwnedFd, network: &BoxId, name: &str) -> Option<Taken> {
    Taken::parse(&link(root, &format!("{}/{name}", path_of(network)))?)
}

/// All seats that are taken in a network, by address. Takes time for each.
#[must_use]
pub fn taken(root: &OwnedFd, network: &BoxId) -> Vec<(Ipv4Addr, Taken)> {
    let mut all: Vec<_> = registry::names_in(root, &path_of(network))
        .iter()
        .filter_map(|name| Some((name.parse().ok()?, find(root, network, name)?)))
        .collect();
    all.sort_unstable_by_key(|(address, _)| *address);
    all
}

/// The seats of a box, looked for among all: for one that died before it wrote its record.
#[must_use]
pub fn of_box(locked: &Locked<'_>, id: &str) -> Vec<Seat> {
    let networks = registry::names_in(locked.root(), DIRECTORY);
    let networks = networks.iter().filter_map(|name| BoxId::parse(name).ok());
    networks.filter_map(|network| in_network(locked, network, id)).collect()
}

/// The seat of a box in one network, looked for among all.
#[must_use]
pub fn in_network(locked: &Locked<'_>, network: BoxId, id: &str) -> Option<Seat> {
    let own = taken(locked.root(), &network).into_iter().find(|(_, taken)| taken.id.as_str() == id);
    own.map(|(address, Taken { mac, link, address6, .. })| Seat { network, link, address, address6, mac })
}

/// Gives a seat back, if it is still that of the box with this id. Returns what could not be undone.
pub fn give_back(locked: &Locked<'_>, seat: &Seat, id: &str) -> Vec<String> {
    let mut problems = forget_names(locked, seat, id);
    // The address last: it is what the others are found by.
    let six = seat.address6.map(|six| six.to_string());
    let names = [Some(written(seat.mac)), six, Some(seat.address.to_string())];
    let own = names
        .iter()
        .flatten()
        .filter(|name| find(locked.root(), &seat.network, name).is_some_and(|taken| taken.id.as_str() == id));
    problems.extend(own.filter_map(|name| {
        let removed = state::remove(locked.root(), &format!("{}/{name}", path_of(&seat.network)));
        removed.err().map(|error| format!("cannot free {name}: {error}"))
    }));
    problems
}

/// Removes the directories of networks, those that nobody has a seat in.
pub(super) fn remove_directories(root: &OwnedFd) {
    for network in registry::names_in(root, DIRECTORY) {
        // ENOTEMPTY: then the one above stays as well, and so does the state directory.
        let _ = rustix::fs::unlinkat(root, format!("{DIRECTORY}/{network}").as_str(), AtFlags::REMOVEDIR);
    }
    // ENOENT: no box was ever in a network.
    let _ = rustix::fs::unlinkat(root, DIRECTORY, AtFlags::REMOVEDIR);
}

fn path_of(network: &BoxId) -> String {
    format!("{DIRECTORY}/{network}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_who_has_a_seat_and_what_it_cannot_say_is_nobodys() {
        let (id, name) = (BoxId::from_random([7; 5]), "web".to_owned());
        let mac = [2, 0, 0, 0, 0, 7];
        let taken = Taken { id, slot: 12, mac, name, link: 3, address6: None, aliases: Vec::new() };
        let aliases = vec![BoxName::parse("sql").unwrap(), BoxName::parse("x-1").unwrap()];
        let with_six = Taken { address6: "fd09::7".parse().ok(), aliases, ..taken.clone() };
        for taken in [&taken, &with_six] {
            assert_eq!(Taken::parse(&taken.text()).as_ref(), Some(taken));
        }
        for text in [
            "",
            "x",
            &taken.text()[1..],
            "aaaaaaaa -1 02:00:00:00:00:07",
            "aaaaaaaa 1 02:00",
            "aaaaaaaa 1 02:00:00:00:00:07",
            "aaaaaaaa 1 02:00:00:00:00:07 web 16",
            "aaaaaaaa 1 02:00:00:00:00:07 web 0 10.9.0.7",
        ] {
            assert_eq!(Taken::parse(text), None, "{text}");
        }
    }
}
