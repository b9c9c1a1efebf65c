//! A lease: a box's slot in the pool, its id, its name and its directory, held by a lock that dies with its keeper.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::kernel::slots::{SlotNote, SlotState, Slots};
use crate::plan::network::{Member, Seat};
use crate::plan::record::BoxRecord;
use crate::spec::name::{BoxId, BoxName};

use super::address::Place;
use super::kept;
use super::registry;
use super::seats;
use super::state::{self, Locked, State};

/// The box hangs off the gateway, which must live as long as it does.
pub const USES_GATEWAY: u16 = 1;
/// The box has ended; only its link is not yet gone.
pub const DRAINING: u16 = 2;

/// What keepers share: the places of the descriptors in a slot's note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// The gateway's network namespace.
    Network = 0,
    /// The nf_tables socket in the gateway.
    GatewayNft = 1,
    /// The nf_tables socket on the host.
    HostNft = 2,
}

/// The counter in the slot table at which the search for a free slot goes on, so that an address rests
/// before it is used again.
const NEXT_SLOT: usize = 0;

/// The box's own resolv.conf(5) and hosts(5), while they are mounted in it.
pub const RESOLV_CONF: &str = "resolv.conf";
/// The other one.
pub const HOSTS: &str = "hosts";

/// The socket by which other netbox commands talk to the keeper.
pub const CONTROL: &str = "control";
/// The same until it listens.
pub const NEW_CONTROL: &str = "control.new";

pub(super) const RECORD: &str = "box.json";
/// What the record is called once the box has ended, for whoever has to take down what its keeper could not.
pub(super) const ENDED: &str = "ended.json";

/// What a box holds in the state directory.
#[derive(Debug)]
pub struct Lease {
    /// Its slot.
    pub slot: u32,
    /// Its id.
    pub id: BoxId,
    /// Its name, where the user gave one.
    pub name: Option<BoxName>,
    /// boxes/ID, locked.
    directory: OwnedFd,
    /// When it was taken.
    since: Instant,
}

impl Lease {
    /// For how long it has been held.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Takes a fresh id, the name that was asked for, and the slot that was, or else a free one. A box without a place at the
    /// gateway has a slot that a small pool has not.
    ///
    /// Killed at any point of this, it leaves a slot that the kernel marks as dead, from which the sweep finds the rest.
    ///
    /// # Errors
    /// A name or an address that another box has, naming that box; a full pool; a full disk. Nothing is left behind then.
    pub fn take(locked: &mut Locked<'_>, name: Option<&BoxName>, place: Option<&Place>) -> Result<Self> {
        if let Some(name) = name {
            name_is_free(locked, name)?;
        }
        let id = fresh_id().context(|| "cannot get random bytes for an id")?;
        let slot = match place.and_then(|place| place.slot) {
            Some((slot, address)) => slot_is_free(locked, slot, address).map(|()| slot as usize)?,
            None => free_slot(locked.slots(), place.map(|place| place.slots)).ok_or_else(|| {
                let all = place.map_or(locked.slots().count(), |place| place.slots as usize);
                Error::new("cannot start another box")
                    .because(format!("all {all} addresses of the pool are taken"))
                    .hint("`netbox ps` lists the boxes; `netbox gc` frees what is none")
            })?,
        };
        let bits = if place.is_some() { USES_GATEWAY } else { 0 };
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(id.as_str().as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        let note = SlotNote { id: bytes, bits, descriptors: [0; 3] };
        locked.slots_mut().take(slot, &note).context(|| "cannot register as the keeper of a slot")?;
        match Self::make_directory(locked, &id, name) {
            Ok(directory) => {
                let slot = u32::try_from(slot).unwrap_or(u32::MAX);
                Ok(Self { slot, id, name: name.cloned(), directory, since: Instant::now() })
            }
            Err(error) => {
                let problems = remove(locked, slot, id.as_str(), name.map(BoxName::as_str), &[]);
                debug_assert!(problems.is_empty());
                Err(error)
            }
        }
    }

    fn make_directory(locked: &Locked<'_>, id: &BoxId, name: Option<&BoxName>) -> Result<OwnedFd> {
        let path = format!("boxes/{}", id.as_str());
        rustix::fs::mkdirat(locked.root(), path.as_str(), Mode::from_raw_mode(0o700))
            .map_err(io::Error::from)
            .context(|| format!("cannot make the state directory {path}"))?;
        let directory = state::open_directory(locked.root(), &path)
            .context(|| format!("cannot open the state directory {path}"))?;
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .context(|| format!("cannot lock the state directory {path}"))?;
        if let Some(name) = name {
            rustix::fs::symlinkat(id.as_str(), locked.root(), format!("names/{}", name.as_str()).as_str())
                .map_err(io::Error::from)
                .context(|| format!("cannot register the name {name}"))?;
        }
        Ok(directory)
    }

    /// boxes/ID.
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Tells the other runs under which numbers this process holds what they may share. The caller holds the run lock.
    pub fn announce(&self, locked: &Locked<'_>, which: Shared, descriptor: BorrowedFd<'_>) {
        announce(locked, self.slot, which, descriptor);
    }

    /// Writes down what the box is.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn write(&self, record: &BoxRecord) -> Result<()> {
        state::write_json(&self.directory, RECORD, record)
            .context(|| format!("cannot write the state of box {}", self.id))
    }

    /// The record as it was written last, to be read by somebody else ([`read_record`]).
    ///
    /// # Errors
    /// EMFILE; ENOENT, when somebody removed it.
    pub fn open_record(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, RECORD, flags, Mode::empty())
            .map_err(io::Error::from)
            .context(|| format!("cannot read the state of box {}", self.id))
    }

    /// Makes a file in the box's directory, which everybody may read whom it is shown to.
    ///
    /// # Errors
    /// ENOSPC and its like.
    pub fn make_file(&self, name: &str, content: &[u8]) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o644);
        let mut file = File::from(rustix::fs::openat(&self.directory, name, flags, mode)?);
        // The caller's umask has no say in it.
        rustix::fs::fchmod(&file, mode)?;
        file.write_all(content)?;
        Ok(file)
    }

    /// Tells the others which two processes of netbox's and the box's are known to be in no other box's network: they need not be
    /// looked at by who looks for such.
    pub fn note_processes(&self, state: &State, processes: [i32; 2]) {
        state.slots().set_processes(self.slot as usize, processes.map(|pid| u32::try_from(pid).unwrap_or(0)));
    }

    /// Ends the box for everybody else: its name can be used, it counts no more for the gateway, and nobody
    /// finds it. Slot, directory and its places in `networks` stay until [`Lease::give_back`], because its links may live a moment
    /// longer.
    pub fn end(&mut self, locked: &Locked<'_>, networks: &[Member]) -> Vec<String> {
        let slot = self.slot as usize;
        let note = locked.slots().note(slot);
        locked.slots().set_note(slot, &SlotNote { bits: DRAINING, ..note });
        let mut problems = Vec::new();
        if let Some(name) = &self.name {
            problems.extend(free_name(locked, self.id.as_str(), name.as_str()));
        }
        for member in networks {
            problems.extend(seats::forget_names(locked, &member.seat(), self.id.as_str()));
        }
        match rustix::fs::renameat(&self.directory, RECORD, &self.directory, ENDED) {
            // ENOENT: it was not written yet, or somebody removed it.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => {
                problems.push(format!(
                    "cannot rename the state of box {}: {}",
                    self.id,
                    io::Error::from(errno)
                ));
            }
        }
        problems
    }

    /// Gives the directory and the slot back, the last things that a box holds. What fails stays, and is swept.
    pub fn give_back(self, state: &mut State, networks: &[Member]) {
        let Ok(locked) = state.lock() else { return };
        let seats: Vec<_> = networks.iter().map(Member::seat).collect();
        let _ = remove(&locked, self.slot as usize, self.id.as_str(), None, &seats);
        locked.remove_if_idle();
    }
}

/// As [`Lease::announce`], for the keeper of `slot`.
pub fn announce(locked: &Locked<'_>, slot: u32, which: Shared, descriptor: BorrowedFd<'_>) {
    // A number that does not fit is not shared: the others open their own.
    let Ok(number) = u16::try_from(descriptor.as_raw_fd()) else { return };
    let mut note = locked.slots().note(slot as usize);
    if let Some(place) = note.descriptors.get_mut(which as usize) {
        *place = number;
    }
    locked.slots().set_note(slot as usize, &note);
}

/// Removes what the box with this id has in the state directory, and frees its slot. What is gone already is as it should be.
pub fn remove(locked: &Locked<'_>, slot: usize, id: &str, name: Option<&str>, seats: &[Seat]) -> Vec<String> {
    // Before the directory: nobody would find it any more.
    let mut problems: Vec<_> = seats.iter().flat_map(|seat| seats::give_back(locked, seat, id)).collect();
    if problems.is_empty() {
        problems = remove_files(locked, id, name);
    }
    if problems.is_empty() {
        locked.slots().give_back(slot);
    }
    problems
}

/// Frees a name, if it is still that of the box with this id.
fn free_name(locked: &Locked<'_>, id: &str, name: &str) -> Option<String> {
    if registry::owner_of(locked, name).as_deref() != Some(id) {
        return None;
    }
    let removed = state::remove(locked.root(), &format!("names/{name}"));
    removed.err().map(|error| format!("cannot free the name {name}: {error}"))
}

/// Reads what [`Lease::open_record`] opened.
///
/// # Errors
/// A record that somebody damaged.
pub fn read_record(file: OwnedFd) -> Result<BoxRecord> {
    state::read_open_json(file).ok_or_else(|| Error::new("cannot read the state of the box: it was damaged"))
}

fn remove_files(locked: &Locked<'_>, id: &str, name: Option<&str>) -> Vec<String> {
    let mut problems: Vec<_> = name.and_then(|name| free_name(locked, id, name)).into_iter().collect();
    let path = format!("boxes/{id}");
    for file in [RECORD, "box.json.new", ENDED, RESOLV_CONF, HOSTS, CONTROL, NEW_CONTROL] {
        if let Err(error) = state::remove(locked.root(), &format!("{path}/{file}")) {
            problems.push(format!("cannot remove {path}/{file}: {error}"));
        }
    }
    match rustix::fs::unlinkat(locked.root(), path.as_str(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => problems.push(format!("cannot remove {path}: {}", io::Error::from(errno))),
    }
    problems
}

/// Whether a box may have the name.
///
/// # Errors
/// Naming the box that has it.
pub fn check_name(locked: &Locked<'_>, name: &BoxName) -> Result<()> {
    name_is_free(locked, name)
}

fn name_is_free(locked: &Locked<'_>, name: &BoxName) -> Result<()> {
    let Some(owner) = registry::owner_of(locked, name.as_str()) else {
        return kept::check_name(locked.host(), name);
    };
    match registry::look_up(locked.root(), &owner) {
        Some((record, true)) => {
            let pid = record.map(|record| format!(" (pid {})", record.pid)).unwrap_or_default();
            Err(Error::new(format!("cannot call the box {name}"))
                .because(format!("box {owner}{pid} has that name"))
                .hint("choose another --name, or end that box"))
        }
        // A box that died between two steps of ending, and that the sweep has been through: only its link is left.
        _ => {
            kept::check_name(locked.host(), name)?;
            state::remove(locked.root(), &format!("names/{name}"))
                .context(|| format!("cannot free the name {name}"))
        }
    }
}

fn fresh_id() -> io::Result<BoxId> {
    let mut random = [0u8; 5];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(BoxId::from_random(random))
}

/// Whether a box may have the slot, which it is to have for that address.
///
/// # Errors
/// Naming the box that has it.
pub fn slot_is_free(locked: &Locked<'_>, slot: u32, address: IpAddr) -> Result<()> {
    let slot = slot as usize;
    let cause = match locked.slots().state(slot) {
        SlotState::Free => return Ok(()),
        SlotState::Dead => {
            "the box that had it died, and could not be taken down: `netbox gc` says why".to_owned()
        }
        SlotState::Alive(keeper) => {
            let note = locked.slots().note(slot);
            let id = String::from_utf8_lossy(&note.id).into_owned();
            match registry::look_up(locked.root(), &id) {
                Some((Some(record), _)) => format!("box {} (pid {}) has it", record.name, record.pid),
                _ if note.bits & DRAINING != 0 => {
                    format!("box {id}, which has ended, is not yet gone (pid {keeper})")
                }
                _ => format!("box {id} (pid {keeper}), which is just starting, has it"),
            }
        }
    };
    Err(Error::new(format!("cannot give the box the address {address}"))
        .because(cause)
        .hint("`netbox ps` lists the boxes"))
}

/// A free slot below `limit`; without a limit, the last.
fn free_slot(slots: &Slots, limit: Option<u32>) -> Option<usize> {
    let is_free = |slot: &usize| slots.state(*slot) == SlotState::Free;
    let Some(limit) = limit else { return (0..slots.count()).rev().find(is_free) };
    let count = slots.count().min(limit as usize);
    let start = usize::try_from(slots.counter(NEXT_SLOT)).unwrap_or(0) % count;
    let slot = (start..count).chain(0..start).find(is_free)?;
    slots.set_counter(NEXT_SLOT, (slot as u64) + 1);
    Some(slot)
}

/// Removes the directory of a dead box that no slot knows.
pub fn remove_directory(locked: &Locked<'_>, id: &str) -> Vec<String> {
    remove_files(locked, id, None)
}

/// Removes the names that lead to no box.
pub fn remove_dangling_names(locked: &Locked<'_>) {
    for name in registry::names_in(locked.root(), "names") {
        let dangling = registry::owner_of(locked, &name)
            .is_none_or(|id| registry::look_up(locked.root(), &id).is_none());
        if dangling && BoxName::parse(&name).is_ok() {
            // The next sweep tries again.
            let _ = state::remove(locked.root(), &format!("names/{name}"));
        }
    }
}
