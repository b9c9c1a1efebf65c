//! Takes down what dead runs left. Idempotent: twice is as good as once, and killed halfway the next goes on.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Result;
use crate::kernel::namespace::MountNamespace;
use crate::kernel::nft::NftError;
use crate::kernel::slots::{SlotNote, SlotState};
use crate::plan::network::{Member, Seat};
use crate::plan::record::{Attachment, BoxRecord, MountIdentity, PortMap};
use crate::plan::topology::box_link;
use crate::spec::host_port::HostPortSpec;
use crate::spec::name::BoxId;

use super::census::{Census, census};
use super::gateway::{self, Gateway};
use super::host::Host;
use super::lease::Lease;
use super::state::{Locked, State};
use super::{attach, connections, export, kept, lease, publish, registry, routed, seats};

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// The ids of the boxes that were taken down.
    pub boxes: Vec<String>,
    /// Whether a gateway without holders was taken down.
    pub gateway: bool,
    /// What could not be undone.
    pub problems: Vec<String>,
}

impl Swept {
    /// Whether there was nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.boxes.is_empty() && !self.gateway && self.problems.is_empty()
    }
}

/// Takes down every box whose keeper is dead, and the gateway if no living box is left. The caller holds the run lock.
///
/// Without dead boxes it costs what `census` cost. `full`: looks at the directories too, which takes time for each box.
pub fn sweep(locked: &Locked<'_>, host: &mut Host, mut found: Census, full: bool) -> (Swept, Census) {
    let mut swept = Swept::default();
    if full {
        add_orphaned_directories(locked, &mut swept);
        free_false_slots(locked);
        found = census(locked.slots());
    }
    if !found.dead.is_empty() {
        let half_written = gateway::remove_half_written(locked);
        note_problem(&mut swept.problems, "cannot remove the gateway's half-written state", half_written);
        let record = gateway::record(locked);
        let mut living =
            record.as_ref().and_then(|record| gateway::join(record, host, &found).ok().flatten());
        if let (None, Err(error)) = (&living, gateway::refuse_if_held(locked)) {
            // What the dead left in there could not be removed, and would be forgotten.
            swept.problems.push(error.to_string());
            return (swept, found);
        }
        for (slot, note) in std::mem::take(&mut found.dead) {
            bury(
                &mut Site { locked, host, census: &found, gateway: living.as_mut() },
                slot,
                &note,
                &mut swept,
            );
        }
        if let Some(gateway) = &mut living
            && let Err(error) = routed::close_unfinished(locked, host, gateway)
        {
            swept.problems.push(error.to_string());
        }
        found = census(locked.slots());
    }
    if found.users == 0
        && let Some(record) = gateway::record(locked)
    {
        swept.gateway = true;
        swept.problems.extend(gateway::take_down(locked, host, &found, &record));
        if let Err(error) = gateway::remove_link(&record.topology) {
            swept.problems.push(format!("cannot remove the link {}: {error}", record.topology.host_link()));
        }
    }
    (swept, found)
}

/// Where a dead box was.
struct Site<'a> {
    locked: &'a Locked<'a>,
    host: &'a mut Host,
    census: &'a Census,
    gateway: Option<&'a mut Gateway>,
}

fn bury(site: &mut Site<'_>, slot: usize, note: &SlotNote, swept: &mut Swept) {
    let locked = site.locked;
    let id = String::from_utf8_lossy(&note.id).into_owned();
    // Only what we name ourselves is ever touched.
    if BoxId::parse(&id).is_err() {
        locked.slots().give_back(slot);
        return;
    }
    if registry::look_up(locked.root(), &id).is_some_and(|(_, alive)| alive) {
        // The lock is the proof, the slot only a hint.
        return;
    }
    let mut problems = Vec::new();
    let record = registry::left_behind(locked.root(), &id).filter(|record| record.id == id);
    if let Some(record) = &record {
        note_problem(&mut problems, "cannot end its processes", kill_processes(record));
        problems.extend(note_lost(record));
    }
    let [ports, others] =
        record.as_ref().map_or([&[][..]; 2], |record| [&record.ports[..], &record.other_ports]);
    let slot_number = u32::try_from(slot).unwrap_or(u32::MAX);
    if let Some(attachment) = record.as_ref().and_then(|record| record.attachment.as_ref())
        && (!ports.is_empty() || !others.is_empty() || attachment.snat.is_some())
    {
        let unmapped = site.host.nft(locked, site.census).map(|nft| {
            publish::unmap(locked, nft, attachment, others)?;
            publish::unmap(locked, nft, attachment, ports)
        });
        match unmapped {
            Ok(result) => {
                note_problem(&mut problems, "cannot remove its port maps", tolerate_no_table(result))
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    let joining = record.as_ref().and_then(|record| record.joining);
    let seats: Vec<_> = match record.as_ref().and_then(|record| record.attachment.as_ref()) {
        Some(attachment) => {
            let known = attachment.networks.iter().map(Member::seat);
            // It was just about to write that down.
            known.chain(joining.and_then(|network| seats::in_network(locked, network, &id))).collect()
        }
        // It died before it wrote its record.
        None => seats::of_box(locked, &id),
    };
    let bridges = site.gateway.as_ref().map_or(&[][..], |gateway| &gateway.record.bridges);
    let networks: Vec<_> = seats.iter().filter_map(|seat| Member::of(seat, bridges)).collect();
    if let Some(gateway) = &mut site.gateway {
        let host_ports = record.as_ref().map_or(&[][..], |record| &record.host_ports);
        let gone = attach::shut_out(locked, gateway, &id, slot_number, &networks, others, host_ports)
            .and_then(|()| attach::shut_out(locked, gateway, &id, slot_number, &networks, ports, &[]));
        note_problem(&mut problems, "cannot remove its rules", tolerate_no_table(gone));
        for link in links_of(&seats) {
            let removed = gateway.route.remove_link(&box_link(&id, link));
            note_problem(&mut problems, "cannot remove its link", removed);
        }
        for member in &networks {
            let left = attach::leave(locked, gateway, member);
            note_problem(&mut problems, "cannot remove its neighbour entry", left);
        }
    }
    if let Some(record) = &record {
        problems.extend(withdraw(record, site.host));
    }
    let topology = record.as_ref().and_then(|record| record.attachment.as_ref());
    let topology = topology.map(|attachment| attachment.topology);
    if let Some(topology) = topology.or_else(|| site.gateway.as_ref().map(|gateway| gateway.record.topology))
    {
        let gateway = site.gateway.as_deref();
        let attachment = Attachment { topology, slot: slot_number, address6: None, snat: None, networks };
        if let Err(error) =
            connections::forget(locked, site.host, site.census, gateway, &attachment, &id, None)
        {
            problems.push(error.to_string());
        }
    }
    if problems.is_empty() {
        let name = registry::name_of(locked, &id);
        problems.extend(lease::remove(locked, slot, &id, name.as_deref(), &seats));
    }
    swept.problems.extend(problems.iter().map(|problem| format!("box {id}: {problem}")));
    swept.boxes.push(id);
}

/// The links of a box that has these seats: it may have one that is its own.
fn links_of(seats: &[Seat]) -> BTreeSet<u32> {
    seats.iter().map(|seat| seat.link).chain([0]).collect()
}

/// What is kept of a detached box says from now on that it has ended.
fn note_lost(record: &BoxRecord) -> Option<String> {
    let id = BoxId::parse(&record.id).ok().filter(|_| record.detached)?;
    kept::note_lost(&id).err().map(|error| error.to_string())
}

/// Somebody flushed the tables: then what was in them is gone as well.
fn tolerate_no_table(result: Result<(), NftError>) -> io::Result<()> {
    match result {
        Err(error) if error.errno() != libc::ENOENT => Err(io::Error::other(error.to_string())),
        _ => Ok(()),
    }
}

/// Takes away the name under which ip-netns(8) sees a box's network. Returns what could not be undone.
#[must_use]
pub fn withdraw(record: &BoxRecord, host: &Host) -> Vec<String> {
    let mut problems = Vec::new();
    let withdrawn = export::withdraw(record, host.network().as_fd());
    note_problem(&mut problems, "cannot withdraw its network from /run/netns", withdrawn);
    problems
}

/// Takes the ports and the addresses of a box that ends out of the rules, on the host and in the gateway. `ports`: those that it
/// has, and what its record names beside them. `host_ports`: those of the host's that
/// it reaches. Returns what could not be undone.
pub fn close(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    lease: &Lease,
    attachment: &Attachment,
    ports: [&[PortMap]; 2],
    host_ports: &[HostPortSpec],
) -> Vec<String> {
    let mut problems = Vec::new();
    let [ports, others] = ports;
    // Where a change of them failed, and could not be undone.
    let others = Some(others).filter(|others| !others.is_empty());
    let id = lease.id.as_str();
    if (!ports.is_empty() || others.is_some() || attachment.snat.is_some())
        && let Some(nft) = host.open_nft()
    {
        let unmapped = publish::unmap(locked, nft, attachment, ports)
            .and_then(|()| others.map_or(Ok(()), |others| publish::unmap(locked, nft, attachment, others)));
        note_problem(&mut problems, "cannot remove the port maps", tolerate_no_table(unmapped));
    }
    let networks = &attachment.networks;
    let shut_out = attach::shut_out(locked, gateway, id, lease.slot, networks, ports, host_ports);
    let shut_out = shut_out.and_then(|()| {
        let shut = |others| attach::shut_out(locked, gateway, id, lease.slot, networks, others, &[]);
        others.map_or(Ok(()), shut)
    });
    note_problem(&mut problems, "cannot remove the box's rules in the gateway", tolerate_no_table(shut_out));
    for member in networks {
        let left = attach::leave(locked, gateway, member);
        note_problem(&mut problems, "cannot remove the box's neighbour entry in the gateway", left);
    }
    problems
}

/// Sweeps what can be seen without looking at every box.
///
/// # Errors
/// When the state directory cannot be used.
pub fn sweep_now() -> Result<Swept> {
    let mut host = Host::open()?;
    let mut state = State::open()?;
    let locked = state.lock()?;
    let (swept, _) = sweep(&locked, &mut host, census(locked.slots()), false);
    locked.remove_if_idle();
    Ok(swept)
}

fn note_problem(problems: &mut Vec<String>, what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        problems.push(format!("{what}: {error}"));
    }
}

/// Kills every process in the mount namespace of a dead box: all boxes but those of `--net host` have one of their own.
///
/// # Errors
/// Where /proc cannot be read.
pub fn kill_processes(record: &BoxRecord) -> io::Result<()> {
    record.mounts.map_or(Ok(()), |mounts| kill_in(mounts, |_| true))
}

/// Kills every process in a mount namespace that `doomed` picks, until there is none.
///
/// # Errors
/// Where /proc cannot be read.
pub fn kill_in((inode, id): MountIdentity, doomed: impl Fn(i32) -> bool) -> io::Result<()> {
    // ENOENT, ESRCH: it ended meanwhile. The id, where the kernel has one, is never used twice; the inode is.
    let is_in = |pid| MountNamespace::of(pid).is_ok_and(|own| own == MountNamespace { inode, id });
    loop {
        // All are picked before the first is killed: whose child an orphan becomes then may be what it is picked by.
        let mut picked = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            picked.extend(pid.filter(|pid| is_in(*pid) && doomed(*pid)));
        }
        let mut found = false;
        for pid in picked {
            // Again: the number may be another's by now.
            found = is_in(pid) && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() || found;
        }
        if !found {
            return Ok(());
        }
        std::thread::yield_now();
    }
}

/// Slots that say alive, and whose box nobody holds: under the run lock there are none but of a damaged table.
fn free_false_slots(locked: &Locked<'_>) {
    let slots = locked.slots();
    for slot in 0..slots.count() {
        let id = String::from_utf8_lossy(&slots.note(slot).id).into_owned();
        let held = || {
            BoxId::parse(&id).is_ok() && registry::look_up(locked.root(), &id).is_some_and(|(_, alive)| alive)
        };
        if matches!(slots.state(slot), SlotState::Alive(_)) && !held() {
            slots.give_back(slot);
        }
    }
}

/// Directories and names that no slot knows: from before a lost slot table, or put there by somebody.
fn add_orphaned_directories(locked: &Locked<'_>, swept: &mut Swept) {
    for id in registry::all_ids(locked.root()) {
        let known = (0..locked.slots().count()).any(|slot| locked.slots().note(slot).id == id.as_bytes());
        if known || registry::look_up(locked.root(), &id).is_none_or(|(_, alive)| alive) {
            continue;
        }
        if let Some((Some(record), _)) = registry::look_up(locked.root(), &id)
            && record.id == id
        {
            note_problem(
                &mut swept.problems,
                "cannot end the processes of a dead box",
                kill_processes(&record),
            );
            swept.problems.extend(note_lost(&record));
        }
        swept.problems.extend(lease::remove_directory(locked, &id));
        swept.boxes.push(id);
    }
    lease::remove_dangling_names(locked);
}
