//! Which box a user means, among those that live.

use nix::sched::CloneFlags;

use crate::apply::registry;
use crate::apply::state::State;
use crate::error::{Context, Error, Result};
use crate::kernel::namespace::{self, MountNamespace};
use crate::kernel::process::{self, Process};
use crate::plan::record::BoxRecord;
use crate::spec::name::BoxId;
use crate::spec::reference::BoxRef;

/// A box that lived when it was looked for.
#[derive(Debug)]
pub struct Found {
    state: State,
    /// As its keeper wrote it down.
    pub record: BoxRecord,
}

/// The living box with this name, else with this id, else the only one whose id begins so.
///
/// Takes no lock, and time for the name alone; a beginning of an id takes the reading of one directory.
///
/// # Errors
/// When there is none, or several; when it is only just starting; a state directory that is not ours.
pub fn find(wanted: &BoxRef) -> Result<Found> {
    let state = State::open_existing()?.ok_or_else(|| wanted.unknown())?;
    let exactly = || BoxId::parse(wanted.as_str()).ok().filter(|id| registry::is_there(&state, id));
    let id = match registry::with_name(&state, wanted.as_str()).or_else(exactly) {
        Some(id) => id,
        None => {
            let ids = registry::all_ids(state.root());
            let ids: Vec<_> = ids.iter().filter_map(|id| BoxId::parse(id).ok()).collect();
            *wanted.among(&ids)?
        }
    };
    in_state(state, &id, wanted)?.ok_or_else(|| wanted.unknown())
}

/// The living box with this id, in a state directory that is open. `None`: there is none, or it has ended.
///
/// # Errors
/// When it is only just starting.
pub fn in_state(state: State, id: &BoxId, wanted: &BoxRef) -> Result<Option<Found>> {
    match registry::look_up(state.root(), id.as_str()) {
        Some((Some(record), true)) if record.id == id.as_str() => Ok(Some(Found { state, record })),
        Some((None, true)) if !registry::has_ended(state.root(), id.as_str()) => Err(starting(wanted)),
        _ => Ok(None),
    }
}

/// The living box with this id. `None`: it has ended.
///
/// # Errors
/// A state directory that is not ours.
pub fn with_id(id: &str) -> Result<Option<Found>> {
    let Some(state) = State::open_existing()? else { return Ok(None) };
    Ok(match registry::look_up(state.root(), id) {
        Some((Some(record), true)) if record.id == id => Some(Found { state, record }),
        _ => None,
    })
}

/// Every living box, in the order in which they started. A box without a record is about to start, and not among them.
///
/// # Errors
/// A state directory that is not ours.
pub fn all() -> Result<Vec<BoxRecord>> {
    let Some(state) = State::open_existing()? else { return Ok(Vec::new()) };
    let mut records: Vec<_> = registry::all_ids(state.root())
        .iter()
        .filter_map(|id| match registry::look_up(state.root(), id) {
            Some((Some(record), true)) if record.id == *id => Some(record),
            _ => None,
        })
        .collect();
    records.sort_by(|a, b| (&a.started, &a.id).cmp(&(&b.started, &b.id)));
    Ok(records)
}

fn starting(wanted: &BoxRef) -> Error {
    Error::new(format!("box {wanted} is only just starting")).hint("try again in a moment")
}

impl Found {
    /// The state directory that it was found in.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What was found, without the state directory.
    #[must_use]
    pub fn into_record(self) -> BoxRecord {
        self.record
    }

    /// Whether it lives still.
    #[must_use]
    pub fn lives(&self) -> bool {
        let found = registry::look_up(self.state.root(), &self.record.id);
        matches!(found, Some((Some(record), true)) if record.id == self.record.id)
    }

    /// The command, to be signalled, entered or waited for. It is the box's and nobody else's: the box still lived after the
    /// process was opened, and a keeper waits for its command only when it takes the box down.
    ///
    /// # Errors
    /// When the box has ended meanwhile.
    pub fn command(&self) -> Result<Process> {
        self.open(self.record.box_pid)
    }

    /// The `netbox run` process, likewise.
    ///
    /// # Errors
    /// When the box has ended meanwhile.
    pub fn launcher(&self) -> Result<Process> {
        self.open(self.record.pid)
    }

    /// Its keeper, likewise.
    ///
    /// # Errors
    /// When the box has ended meanwhile.
    pub fn keeper(&self) -> Result<Process> {
        self.open(self.record.keeper_pid)
    }

    /// In which namespaces the box's command is and this process is not.
    ///
    /// # Errors
    /// When the box has ended meanwhile; when the command is in a user namespace that it was not started in, where the others
    /// may be anything, or in such a mount namespace, by which what is in a box is told.
    pub fn namespaces(&self, command: &Process) -> Result<CloneFlags> {
        let name = &self.record.name;
        let apart = namespace::apart_from(command.pid.as_raw());
        self.check(command)?;
        let apart = apart.map_err(|error| {
            let refusal = Error::new(format!("cannot look at the namespaces of box {name}")).os(&error);
            match error.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => refusal.hint("in a container that takes CAP_SYS_PTRACE"),
                _ => refusal,
            }
        })?;
        let own_users = self.record.rights.as_ref().is_some_and(|rights| rights.own_users);
        if apart.contains(CloneFlags::CLONE_NEWUSER) != own_users {
            return Err(Error::new(format!("cannot enter box {name}"))
                .because("its command is not in the user namespace that it was started in"));
        }
        let own_mounts = self.record.mounts.map(|(inode, id)| MountNamespace { inode, id });
        if own_mounts.is_some_and(|own| MountNamespace::of(command.pid.as_raw()).is_ok_and(|now| now != own))
        {
            return Err(Error::new(format!("cannot enter box {name}"))
                .because("its command is not in the mount namespace that it was started in"));
        }
        Ok(apart)
    }

    /// Whether the command still lives: then its number was its own all the time.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&self, command: &Process) -> Result<()> {
        let name = &self.record.name;
        match command.has_ended().context(|| format!("cannot watch the command of box {name}"))? {
            true => Err(Error::new(format!("box {name} has just ended"))),
            false => Ok(()),
        }
    }

    fn open(&self, pid: i32) -> Result<Process> {
        let name = &self.record.name;
        let ended = || Error::new(format!("box {name} has just ended"));
        let number = u32::try_from(pid).map_err(|_| ended())?;
        let process = match process::open(number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(ended()),
            other => other.context(|| format!("cannot watch process {pid} of box {name}"))?,
        };
        if !self.lives() {
            return Err(ended());
        }
        Ok(Process::from_parts(nix::unistd::Pid::from_raw(pid), process))
    }
}
