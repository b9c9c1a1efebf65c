//! `netbox stop` and `netbox kill`: the ends of boxes, as they are asked for from outside.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::find::{self, Found};
use crate::error::{Context, Error, Result};
use crate::kernel::process::{self, Process};
use crate::report::{self, Report};
use crate::spec::reference::{BoxRef, Which};
use crate::spec::signal::SignalNumber;

/// Ends boxes, all at the same time: SIGTERM to the command, and when `time` is over SIGKILL. Prints the name of each when it is
/// gone for everybody (promise L1): its `netbox run` has returned.
///
/// # Errors
/// The last failure; earlier ones are told, and the other boxes ended nevertheless.
pub fn stop(which: &Which, time: Duration, report: &Report) -> Result<()> {
    let mut failures = Failures::new(report);
    let named = match which {
        Which::Named(boxes) => boxes.clone(),
        Which::All => find::all()?.iter().map(|record| BoxRef::parse(&record.id)).collect::<Result<_>>()?,
    };
    // Three descriptors for each box. Where the limit cannot be raised, the box that has none left tells.
    let _ = process::raise_descriptor_limit();
    let mut ending = Vec::new();
    for wanted in &named {
        let begun = match (begin(wanted, which), which) {
            // One that has ended by itself meanwhile was not asked for by its name.
            (Ok(None), Which::All) => continue,
            (Ok(None), Which::Named(_)) => say(wanted.as_str()),
            (Ok(Some(one)), _) => one.ask().map(|()| ending.push(one)),
            (Err(error), _) => Err(error),
        };
        failures.note(begun);
    }
    let gone = |one: Ending| say(&one.shown);
    wait(&mut ending, Some(Instant::now() + time), |one| failures.note(gone(one)))?;
    for one in &ending {
        failures.note(one.kill());
    }
    wait(&mut ending, None, |one| failures.note(gone(one)))?;
    failures.last()
}

/// Sends a signal to the commands of boxes, and prints the name of each. After SIGKILL it waits until the boxes are gone, as
/// [`stop`] does.
///
/// # Errors
/// The last failure; earlier ones are told, and the other boxes have the signal nevertheless.
pub fn kill(boxes: &[BoxRef], signal: SignalNumber, report: &Report) -> Result<()> {
    let mut failures = Failures::new(report);
    let mut ending = Vec::new();
    for wanted in boxes {
        let sent = Ending::of(wanted, wanted.as_str()).and_then(|one| {
            if signal == SignalNumber::KILL {
                one.kill()?;
                ending.push(one);
                return Ok(());
            }
            one.signal(signal)?;
            say(&one.shown)
        });
        failures.note(sent);
    }
    wait(&mut ending, None, |one| failures.note(say(&one.shown)))?;
    failures.last()
}

/// A box that is to end.
#[derive(Debug)]
struct Ending {
    /// What it is called by whoever ends it.
    shown: String,
    command: Process,
    launcher: Process,
    keeper: Process,
}

/// `None`: it has ended meanwhile.
fn begin(wanted: &BoxRef, which: &Which) -> Result<Option<Ending>> {
    let found = match which {
        Which::Named(_) => find::find(wanted)?,
        // Not by what may be another's name.
        Which::All => match find::with_id(wanted.as_str())? {
            Some(found) => found,
            None => return Ok(None),
        },
    };
    let shown = match which {
        Which::Named(_) => wanted.as_str().to_owned(),
        Which::All => found.record.name.clone(),
    };
    match Ending::from_found(&found, shown) {
        Err(_) if !found.lives() => Ok(None),
        other => other.map(Some),
    }
}

impl Ending {
    fn of(wanted: &BoxRef, shown: &str) -> Result<Self> {
        Self::from_found(&find::find(wanted)?, shown.to_owned())
    }

    fn from_found(found: &Found, shown: String) -> Result<Self> {
        let (command, launcher, keeper) = (found.command()?, found.launcher()?, found.keeper()?);
        Ok(Self { shown, command, launcher, keeper })
    }

    fn send(&self, process: &Process, signal: SignalNumber) -> Result<()> {
        let sent = process.signal(signal.as_raw());
        sent.context(|| format!("cannot send {signal} to box {}", self.shown))
    }

    /// To the command; but a launcher that was stopped as its command was continues both.
    fn signal(&self, signal: SignalNumber) -> Result<()> {
        let both = signal == SignalNumber::CONT && process::is_stopped(&self.launcher);
        self.send(if both { &self.launcher } else { &self.command }, signal)
    }

    /// SIGCONT after it, so that a stopped command hears it, as systemd does (systemd.kill(5), SendSIGCONT).
    fn ask(&self) -> Result<()> {
        self.send(&self.command, SignalNumber::TERM)?;
        self.go_on()
    }

    fn kill(&self) -> Result<()> {
        self.send(&self.command, SignalNumber::KILL)?;
        self.go_on()
    }

    /// A launcher that was stopped has to return, and a keeper has to take the box down before.
    fn go_on(&self) -> Result<()> {
        self.send(&self.command, SignalNumber::CONT)?;
        for process in [&self.keeper, &self.launcher] {
            if process::is_stopped(process) {
                self.send(process, SignalNumber::CONT)?;
            }
        }
        Ok(())
    }
}

/// Waits until the launcher of every box has ended, no longer than to the time, and takes those out that have.
fn wait(ending: &mut Vec<Ending>, until: Option<Instant>, mut gone: impl FnMut(Ending)) -> Result<()> {
    let cannot = || "cannot wait for the end of boxes";
    while !ending.is_empty() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        let mut wanted: Vec<_> =
            ending.iter().map(|one| PollFd::new(one.launcher.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut wanted, at_most(left)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno)).context(cannot),
        }
        let ended: Vec<_> = wanted.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut ended = ended.into_iter();
        let has_ended = |_: &mut Ending| ended.next().unwrap_or(false);
        ending.extract_if(.., has_ended).for_each(&mut gone);
    }
    Ok(())
}

/// Rounded up: poll(2) takes milliseconds, and must not return before the time.
fn at_most(left: Option<Duration>) -> PollTimeout {
    left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    })
}

fn say(name: &str) -> Result<()> {
    if report::output(&format!("{name}\n")) {
        return Ok(());
    }
    Err(Error::new("cannot write to standard output"))
}

/// Of several boxes, those with which it did not work.
struct Failures<'a> {
    report: &'a Report,
    last: Option<Error>,
}

impl<'a> Failures<'a> {
    const fn new(report: &'a Report) -> Self {
        Self { report, last: None }
    }

    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result
            && let Some(earlier) = self.last.replace(error)
        {
            self.report.error(&earlier);
        }
    }

    fn last(self) -> Result<()> {
        self.last.map_or(Ok(()), Err)
    }
}
