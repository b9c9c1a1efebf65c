//! `netbox pids` and `netbox identify`: which processes are whose.

use std::collections::{BTreeSet, HashSet};
use std::io;

use super::find::{self, Found};
use super::shown;
use crate::apply::{registry, state};
use crate::error::{Context, Error, Result};
use crate::kernel::slots::{SlotState, Slots};
use crate::kernel::{namespace, tree};
use crate::plan::belonging::{Marks, Whereabouts};
use crate::spec::reference::BoxRef;

/// The numbers of a box's processes in ascending order, one on a line, or with `json` as an array.
///
/// # Errors
/// When there is no such box; where /proc cannot be read.
pub fn pids(of: &BoxRef, json: bool) -> Result<String> {
    let found = find::find(of)?;
    let pids = processes_of(&found);
    // What was seen below its keeper's number was its own, if it lives.
    if !found.lives() {
        return Err(Error::new(format!("box {of} has just ended")));
    }
    let pids = pids.context(|| format!("cannot look at the processes of box {of}"))?;
    if json {
        return shown::on_a_line(&pids);
    }
    Ok(pids.iter().map(|pid| format!("{pid}\n")).collect())
}

fn processes_of(found: &Found) -> io::Result<BTreeSet<i32>> {
    let record = &found.record;
    let marks = Marks { keeper_pid: record.keeper_pid, mounts: record.mounts, network: record.network };
    let keeper = whereabouts(marks.keeper_pid)?;
    let is_own = |pid: &i32| whereabouts(*pid).is_ok_and(|there| marks.has_as_descendant(there, keeper));
    let mut pids: BTreeSet<_> = tree::descendants(marks.keeper_pid).into_iter().filter(is_own).collect();
    // And who came from elsewhere, as by nsenter(1).
    if let Some((kind, inode)) = marks.enclosure() {
        pids.extend(tree::in_namespace(kind, inode, &elsewhere(found.state().slots()))?);
    }
    Ok(pids)
}

/// The processes of other boxes that can be in no box but their own, and netbox's: of many boxes' that is all. This box's own are
/// among them, and found below its keeper.
fn elsewhere(slots: &Slots) -> HashSet<i32> {
    let alive = slots.taken().filter_map(|slot| match slots.state(slot) {
        SlotState::Alive(keeper) => {
            let [launcher, command] = slots.processes(slot);
            Some([keeper, launcher, command])
        }
        _ => None,
    });
    // A number that was given to somebody else since is that of a process that has come since.
    alive.flatten().filter_map(|pid| i32::try_from(pid).ok()).collect()
}

fn whereabouts(pid: i32) -> io::Result<Whereabouts> {
    Ok(Whereabouts { network: namespace::inode_of(pid, "net")?, mounts: namespace::inode_of(pid, "mnt")? })
}

/// The name of the box that a process is in, on a line; of boxes in boxes the innermost first; nothing where it is in none. It
/// may have been started in any network namespace.
///
/// # Errors
/// When there is no such process; a state directory that is not ours.
pub fn identify(pid: i32) -> Result<String> {
    let there = whereabouts(pid).map_err(|error| cannot_look(pid, &error))?;
    let ancestors = tree::ancestors(pid).map_err(|error| cannot_look(pid, &error))?;
    let mut boxes = Vec::new();
    for root in state::roots()? {
        for id in registry::all_ids(&root) {
            let Some(marks) = registry::marks(&root, &id) else { continue };
            let is_below = || {
                let keeper = || whereabouts(marks.keeper_pid);
                ancestors.contains(&marks.keeper_pid)
                    && keeper().is_ok_and(|keeper| marks.has_as_descendant(there, keeper))
            };
            if (marks.encloses(there) || is_below())
                && let Some((Some(record), true)) = registry::look_up(&root, &id)
            {
                boxes.push(record);
            }
        }
    }
    boxes.sort_by(|a, b| b.started.cmp(&a.started));
    Ok(boxes.into_iter().map(|record| record.name + "\n").collect())
}

fn cannot_look(pid: i32, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::new(format!("there is no process {pid}")),
        _ => Error::new(format!("cannot look at process {pid}")).os(error),
    }
}
