//! The keeper's helpers: processes that serve the box, started when somebody first asks for it, and again if they die.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::error::{Context, Result};
use crate::kernel::process::{self, Side};

use super::confine::confine;

/// A helper that dies is not started again sooner than this.
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be done in a helper.
pub struct Errand<'a> {
    /// How the process is called in lists of processes, at most 15 characters (PR_SET_NAME(2const)).
    pub name: &'static str,
    /// What starts it: descriptors that become readable. The helper watches them from then on.
    pub activity: Vec<BorrowedFd<'a>>,
    /// What it keeps open. All else is closed, the locks of the keeper among it.
    pub kept: Vec<BorrowedFd<'a>>,
    /// The user that it runs as.
    pub user: u32,
    /// The memory that it may have, in bytes.
    pub memory: u64,
    /// What has to be done with the keeper's rights.
    pub prepare: Box<dyn Fn() -> Result<()> + 'a>,
    /// What it does without any. Returns only when it cannot.
    pub serve: Box<dyn Fn(Vec<OwnedFd>) + 'a>,
}

impl std::fmt::Debug for Errand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A helper, running or not.
#[derive(Debug)]
pub struct Helper<'a> {
    errand: Errand<'a>,
    running: Option<Pid>,
    started: Option<Instant>,
}

impl<'a> Helper<'a> {
    /// Not running.
    #[must_use]
    pub const fn new(errand: Errand<'a>) -> Self {
        Self { errand, running: None, started: None }
    }

    /// What it is called.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.errand.name
    }

    /// What to watch for it: nothing while it runs, or has just died.
    pub(super) fn wanted(&self, now: Instant) -> &[BorrowedFd<'a>] {
        if self.running.is_some() || self.pause(now).is_some() { &[] } else { &self.errand.activity }
    }

    /// How long until it may be started again.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        if self.running.is_some() {
            return None;
        }
        PAUSE.checked_sub(now.duration_since(self.started?)).filter(|left| !left.is_zero())
    }

    /// Takes note that a child of the keeper's ended.
    pub(super) fn child_ended(&mut self, pid: Pid) {
        self.running = self.running.filter(|running| *running != pid);
    }

    /// Starts it. To be called while this process has a single thread.
    ///
    /// # Errors
    /// Those of fork(2).
    pub(super) fn start(&mut self, now: Instant) -> Result<()> {
        self.started = Some(now);
        let keeper = nix::unistd::getpid();
        match process::fork().context(|| format!("cannot start {}", self.errand.name))? {
            Side::Parent(pid) => self.running = Some(pid),
            Side::Child => {
                // Nobody is told: what it should have served fails, and it is started again.
                let _ = run(&self.errand, keeper);
                process::exit_now(1)
            }
        }
        Ok(())
    }
}

fn run(errand: &Errand<'_>, keeper: Pid) -> Result<()> {
    if let Ok(name) = std::ffi::CString::new(errand.name) {
        // A name is for people.
        let _ = nix::sys::prctl::set_name(&name);
    }
    (errand.prepare)()?;
    let kept = errand.kept.iter().map(|fd| fd.try_clone_to_owned()).collect::<std::io::Result<Vec<_>>>();
    let kept = kept.context(|| "cannot keep what is to be served")?;
    process::close_all_but(&kept.iter().map(AsFd::as_fd).collect::<Vec<_>>())
        .context(|| "cannot close the keeper's descriptors")?;
    confine(errand.user, keeper, errand.memory, kept.len())?;
    (errand.serve)(kept);
    Ok(())
}
