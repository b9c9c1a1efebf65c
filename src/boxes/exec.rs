//! The story of `netbox exec`: a further command in a living box, under the limits of the box's own.
//!
//! Three processes. The **launcher** is the one that the user started, and does what that of `netbox run` does. The **supervisor**
//! is its child: it stays outside, and kills the command with all its descendants when the launcher or the box ends. Its child
//! **joins** the box, gives up every privilege and becomes the command; in a box with a pid namespace of its own it stays above
//! the command, as a warden.

use std::ffi::OsString;
use std::os::fd::AsFd;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::control::{self, Connection};
use super::find::{self, Found};
use crate::error::{Context, Error, Kind, Result};
use crate::host::caller;
use crate::kernel::channel::Channel;
use crate::kernel::process::{self, Process, Side};
use crate::kernel::signal::{self, OriginalMask, Signals};
use crate::kernel::wait;
use crate::kernel::{entry, namespace};
use crate::launch::first_process::FirstProcess;
use crate::launch::joining::{self, Directory, Joining};
use crate::launch::launcher::{Launcher, takes_terminal_at_once};
use crate::launch::message::{FromBox, ToLauncher, introduce, tell};
use crate::launch::supervise::{launcher_is_there, wake};
use crate::launch::supervisor::{End, after_supervisor, attend, kill_all, tell_end_of_box};
use crate::plan::environment::{Sources, environment, own};
use crate::plan::identity::{Accounts, Caller, Identity};
use crate::plan::privileges::Privileges;
use crate::plan::record::BoxRecord;
use crate::plan::refusal;
use crate::plan::wiring::BoxLink;
use crate::report::Report;
use crate::spec::exec::ExecRequest;

/// The status of a command that ended with its box: killed by SIGKILL.
const KILLED: u8 = 128 + 9;

/// Runs a command in one box, or in every one that lives, and returns the status to exit with (promise R2).
///
/// # Errors
/// A refusal; a box that is not there, or has just ended; a step that failed.
pub fn exec(request: &ExecRequest, report: &Report) -> Result<u8> {
    // What the caller left open is for nobody here, least of all where a box could see it.
    process::close_all_but(&[]).context(|| "cannot close the inherited descriptors")?;
    process::hide_from_tracers().context(|| "cannot keep tracers out")?;
    let caller = caller::caller()?;
    refusal::before_exec(&caller, caller::is_setuid())?;
    // A directory that was removed has no name; nor has one outside of this process's root directory.
    let directory = match &request.workdir {
        Some(path) => Directory::Asked(path.clone()),
        None => Directory::Callers(nix::unistd::getcwd().ok().filter(|path| path.is_absolute())),
    };
    let calling = Calling {
        request,
        caller,
        directory,
        mask: signal::block_all().context(|| "cannot block signals")?,
        launcher: nix::unistd::getpid(),
        report,
    };
    // The supervisor's orphans come here if it dies.
    process::become_subreaper().context(|| "cannot become a subreaper")?;
    match &request.target {
        Some(wanted) => calling.enter(find::find(wanted)?, Turn::Only),
        None => calling.enter_all(),
    }
}

/// Whether the launcher has to keep what the next command inherits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There is no next one.
    Only,
    /// There may be one.
    OneOfSeveral,
}

/// What is the same for every box.
struct Calling<'a> {
    request: &'a ExecRequest,
    caller: Caller,
    directory: Directory,
    mask: OriginalMask,
    launcher: Pid,
    report: &'a Report,
}

impl Calling<'_> {
    /// One box after the other, as `ip -all netns exec` does: a failure ends nothing, and the first one is the status.
    fn enter_all(&self) -> Result<u8> {
        let mut first_failure = 0;
        for record in find::all()? {
            let Some(found) = find::with_id(&record.id)? else { continue };
            self.report.note(&format!("box {}", record.name));
            let status = match self.enter(found, Turn::OneOfSeveral) {
                Ok(status) => status,
                Err(error) => {
                    self.report.error(&error);
                    error.exit_status()
                }
            };
            if first_failure == 0 {
                first_failure = status;
            }
            if is_end_of_all(status) {
                break;
            }
        }
        Ok(first_failure)
    }

    fn enter(&self, found: Found, turn: Turn) -> Result<u8> {
        let member = found.command()?;
        let namespaces = found.namespaces(&member)?;
        let keeper = control::connect(&found)?;
        let record = found.into_record();
        let name = &record.name;
        let rights = record.rights.as_ref().ok_or_else(|| {
            Error::new(format!("cannot enter box {name}"))
                .because("an earlier netbox started it, which did not write down with which rights")
        })?;
        let somebody_else = self.request.user.is_some() || rights.uid != self.caller.uid;
        let accounts = if somebody_else { caller::accounts() } else { Accounts::default() };
        let identity = rights.identity(&self.caller, &accounts, self.request.user.as_ref())?;
        let entry = Entry {
            privileges: rights.privileges(&identity),
            environment: self.environment(&record, &identity),
            identity,
            namespaces,
            keeper,
            member,
            name,
            publish_all: record.publish_all,
            take_terminal: takes_terminal_at_once(),
        };
        let (supervisor, launcher) = Channel::pair().context(|| "cannot make a channel")?;
        let pid = match process::fork().context(|| "cannot start the supervisor")? {
            Side::Child => {
                drop(supervisor);
                process::exit_now(self.supervise(&entry, &launcher))
            }
            Side::Parent(pid) => pid,
        };
        let take_terminal = entry.take_terminal;
        let has_warden = entry.namespaces.contains(CloneFlags::CLONE_NEWPID);
        // The keeper must see the end of the supervisor's connection.
        drop((launcher, entry));
        if turn == Turn::Only {
            process::let_go_of_input_and_output().context(|| "cannot open /dev/null")?;
        }
        let outcome = Launcher::new(&supervisor, self.report, take_terminal, None, None).attend()?;
        let tell = |problems: &[String]| problems.iter().for_each(|problem| self.report.problem(problem));
        let ended = outcome.conclude(tell, || after_supervisor(pid, has_warden));
        // It has said all, and ends. The launcher may have waited for it already.
        wait::end_of(pid).context(|| "cannot wait for the supervisor")?;
        ended
    }

    fn environment(&self, record: &BoxRecord, identity: &Identity) -> Vec<OsString> {
        // Its MTU is no part of the environment.
        let link =
            record.attachment.as_ref().map(|attachment| BoxLink::new(attachment, attachment.topology.mtu));
        environment(&Sources {
            caller: &entry::environment(),
            clear: self.request.clear_env,
            settings: &self.request.env,
            account: identity.account.as_ref(),
            own: &own(&record.id, &record.name, link.as_ref()),
        })
    }

    /// The supervisor, from its birth to its end.
    fn supervise(&self, entry: &Entry<'_>, launcher: &Channel) -> u8 {
        let (first, mut signals) = match self.start(entry, launcher) {
            Ok(started) => started,
            Err(error) => {
                tell(launcher, &ToLauncher::Failed(explained(error, entry), Vec::new()));
                return 0;
            }
        };
        let ended = run_command(&first, entry, launcher)
            .and_then(|()| attend(&first, launcher, &mut signals, entry.keeper.as_fd()));
        let was_stopped = first.was_stopped();
        let mut problems = Vec::new();
        if let Err(error) = kill_all(first) {
            problems.push(format!("cannot end the processes of the command: {error}"));
        } else if !matches!(ended, Ok(End::Box)) {
            // A keeper that is gone has ended the box.
            let _ = entry.keeper.say(control::Request::Goodbye, &[]);
        }
        match ended {
            Ok(End::Command(status)) => tell(launcher, &ToLauncher::Ended(status, problems)),
            // Nobody is left to be told.
            Ok(End::LauncherGone) => {}
            Ok(End::Box) => {
                tell_end_of_box(launcher, entry.name);
                tell(launcher, &ToLauncher::Ended(KILLED, problems));
            }
            Err(error) => tell(launcher, &ToLauncher::Failed(explained(error, entry), problems)),
        }
        if was_stopped {
            wake(self.launcher);
        }
        0
    }

    /// Starts the process that becomes the command, while this one still has what the command inherits, and then lets go of it.
    fn start(&self, entry: &Entry<'_>, launcher: &Channel) -> Result<(FirstProcess, Signals)> {
        let pids = entry.namespaces.intersection(CloneFlags::CLONE_NEWPID);
        let supervisor = nix::unistd::getpid();
        let fork = || {
            // For the child: this process stays where it is.
            namespace::enter(entry.member.as_fd(), pids)?;
            process::fork()
        };
        let kept = [entry.member.as_fd(), entry.keeper.as_fd()];
        FirstProcess::begin(!pids.is_empty(), launcher, &kept, fork, |warden, to_supervisor| {
            let joining = Joining {
                command: &self.request.command,
                environment: &entry.environment,
                directory: &self.directory,
                identity: &entry.identity,
                privileges: entry.privileges,
                member: entry.member.as_fd(),
                namespaces: entry.namespaces,
                publish_all: entry.publish_all,
                mask: self.mask,
                take_terminal: entry.take_terminal,
                supervisor,
                warden,
            };
            joining::join(joining, to_supervisor)
        })
    }
}

/// What is a box's own.
struct Entry<'a> {
    keeper: Connection,
    name: &'a str,
    member: Process,
    namespaces: CloneFlags,
    identity: Identity,
    privileges: Privileges,
    environment: Vec<OsString>,
    publish_all: bool,
    take_terminal: bool,
}

/// Whatever step failed: where the box has ended meanwhile, that is why. Its pid namespace, for one, then has room for nobody (ENOMEM).
fn explained(error: Error, entry: &Entry<'_>) -> Error {
    match entry.member.has_ended() {
        Ok(true) if error.exit_status() == Kind::Failure.exit_status() => {
            Error::new(format!("box {} has just ended", entry.name))
        }
        _ => error,
    }
}

/// Lets the process become the command, once it is in the box and known to the launcher.
fn run_command(first: &FirstProcess, entry: &Entry<'_>, launcher: &Channel) -> Result<()> {
    let calls = first.wait_until(FromBox::Unshared)?.pop();
    if let Some(command) = first.meet_command()? {
        introduce(launcher, command);
    }
    let own = process::open(std::process::id()).context(|| "cannot open the supervisor's own process")?;
    // From here on the box does not end without the command.
    let (own, calls_fd) = (own.as_fd(), calls.as_ref().map(AsFd::as_fd));
    entry.keeper.register(own, first.command().as_fd(), calls_fd, launcher.as_fd())?;
    // A call that waits for nobody but this process would wait for ever.
    drop(calls);
    launcher_is_there(launcher)?;
    first.become_command(|line| tell(launcher, &ToLauncher::Warning(line)))
}

/// Whether somebody wanted an end, by the terminal or by a signal to netbox, and not of one command alone.
fn is_end_of_all(status: u8) -> bool {
    let asked = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    asked.into_iter().any(|signal| i32::from(status) == 128 + signal as i32)
}
