//! Stops the processes of a run at their system calls, by ptrace(2), and kills them or fails a call there.
//!
//! Between two system calls a process changes nothing but its own memory (and the slot table): who kills it once
//! at every call has killed it in every state of the machine that it can leave behind.

mod registers;
pub(crate) mod trial;

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::lab::{NETBOX, PROBE, running};

/// A run that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which process of a run, told by parentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Launcher,
    Keeper,
    /// The threads of the keeper's, one after the other, while it makes the gateway. To kill one is to kill the keeper.
    Thread,
    /// The box's first process, until it becomes the command; or, with `--unshare-pid`, the init that it stays.
    First,
    /// The process below that init, until it becomes the command.
    Below,
}

/// On which side of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It is not carried out.
    Entry,
    /// It was carried out.
    Exit,
}

/// The `nth` system call of a process, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) role: Role,
    pub(crate) nth: usize,
    pub(crate) side: Side,
}

/// What happens there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed<'a> {
    Kill(&'a [Role]),
    /// The call, if it is the one of this number, is not carried out and gives this error.
    Fail(Errno, i64),
}

/// A system call that was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) role: Role,
    pub(crate) nth: usize,
    /// SYS_…
    pub(crate) number: i64,
    /// Its fifth argument, which for mmap(2) tells memory from files.
    pub(crate) fifth: i64,
}

/// How a traced run went.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The launcher's end: its status, or 128 + the signal.
    pub(crate) status: i32,
    /// Every call up to the point.
    pub(crate) calls: Vec<Call>,
    /// The call at the point, if the run came to it.
    pub(crate) struck: Option<Call>,
    /// It was ended because it hung.
    pub(crate) hung: bool,
}

/// Runs `command` to its end and does the deed at the point. From then on nobody is traced any more.
pub(crate) fn trace(command: &Command, at: Option<(Point, Deed<'_>)>) -> Traced {
    // On a thread of its own, so that it waits for nobody else's children.
    thread::scope(|scope| {
        let traced = scope.spawn(|| Tracer::start(command, at).follow());
        traced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Tracer<'a> {
    at: Option<(Point, Deed<'a>)>,
    launcher: Pid,
    /// Of everybody whose parent is known; threads have none.
    roles: HashMap<Pid, Option<Role>>,
    /// Traced and not yet gone.
    held: HashSet<Pid>,
    /// Those that have begun a call and not ended it.
    inside: HashSet<Pid>,
    /// Stopped before it was known whose child it is.
    parked: HashSet<Pid>,
    /// Where each role is: how many calls it has begun.
    counts: HashMap<Role, usize>,
    calls: Vec<Call>,
    struck: Option<Call>,
    /// Whose call was made to fail, and how; its exit is still to come.
    failing: Option<(Pid, Errno)>,
    letting_go: bool,
    status: Option<i32>,
}

impl<'a> Tracer<'a> {
    fn start(command: &Command, at: Option<(Point, Deed<'a>)>) -> Self {
        let mut helper = Command::new(PROBE);
        helper.arg("traced").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => helper.env(name, value),
                None => helper.env_remove(name),
            };
        }
        let log = std::fs::File::create(LOG).expect("a file for the output");
        helper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        #[expect(clippy::zombie_processes, reason = "it is waited for by number, in the loop below")]
        let mut child = helper.spawn().expect("the helper");
        let launcher = Pid::from_raw(child.id().cast_signed());
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(launcher, options).expect("to trace a child");
        ptrace::interrupt(launcher).expect("to stop a child");
        drop(child.stdin.take());
        Self {
            at,
            launcher,
            roles: HashMap::new(),
            held: HashSet::from([launcher]),
            inside: HashSet::new(),
            parked: HashSet::new(),
            counts: HashMap::new(),
            calls: Vec::new(),
            struck: None,
            failing: None,
            letting_go: false,
            status: None,
        }
    }

    fn follow(mut self) -> Traced {
        let (finished, wait_for_end) = channel::<()>();
        let watchdog = thread::spawn(move || {
            let hung = wait_for_end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if hung {
                // The lab's own pid namespace: all of them are of this test.
                for pid in running(NETBOX) {
                    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
                }
            }
            hung
        });
        while self.status.is_none() || !self.held.is_empty() {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Ok(status) => self.attend(status),
                Err(Errno::EINTR) => {}
                // Whoever is still awaited died before it was known whose child it was.
                Err(Errno::ECHILD) => break,
                Err(errno) => panic!("cannot wait for {:?}: {errno}", self.held),
            }
        }
        drop(finished);
        let hung = watchdog.join().unwrap_or(true);
        Traced { status: self.status.unwrap_or(-1), calls: self.calls, struck: self.struck, hung }
    }

    fn attend(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => self.gone(pid, code),
            WaitStatus::Signaled(pid, signal, _) => self.gone(pid, 128 + signal as i32),
            WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
            WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
            WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
            _ => {}
        }
    }

    fn gone(&mut self, pid: Pid, status: i32) {
        self.held.remove(&pid);
        self.inside.remove(&pid);
        if pid == self.launcher {
            self.status = Some(status);
        }
    }

    fn at_event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_EXEC if pid == self.launcher => {
                // It is within execve(2), whatever was seen before: the helper may have been seized in the midst of a call.
                self.inside.insert(pid);
                self.roles.insert(pid, Some(Role::Launcher));
            }
            // The command: no business of ours.
            libc::PTRACE_EVENT_EXEC => return self.let_go(pid),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                let child = ptrace::getevent(pid).ok().and_then(|child| i32::try_from(child).ok());
                if let Some(child) = child.map(Pid::from_raw) {
                    self.born(child, pid, event == libc::PTRACE_EVENT_CLONE);
                }
            }
            // PTRACE_EVENT_STOP of one that was just born. (The launcher is interrupted once, at its start.)
            _ if pid != self.launcher && !self.roles.contains_key(&pid) && !self.letting_go => {
                self.held.insert(pid);
                self.parked.insert(pid);
                return;
            }
            _ => {}
        }
        self.go_on(pid, None);
    }

    fn born(&mut self, child: Pid, parent: Pid, is_thread: bool) {
        self.held.insert(child);
        let role = match self.roles.get(&parent).copied().flatten() {
            Some(Role::Launcher) if !is_thread => Some(Role::Keeper),
            Some(Role::Keeper) if is_thread => Some(Role::Thread),
            Some(Role::Keeper) => Some(Role::First),
            Some(Role::First) if !is_thread => Some(Role::Below),
            _ => None,
        };
        self.roles.insert(child, role);
        if self.parked.remove(&child) {
            self.go_on(child, None);
        }
    }

    fn at_call(&mut self, pid: Pid) {
        // Entry and exit alternate (ptrace(2), Syscall-stops).
        let side = if self.inside.remove(&pid) { Side::Exit } else { Side::Entry };
        if side == Side::Entry {
            self.inside.insert(pid);
        }
        let Some(role) = self.roles.get(&pid).copied().flatten().filter(|_| !self.letting_go) else {
            return self.go_on(pid, None);
        };
        if side == Side::Exit
            && let Some((_, errno)) = self.failing.take_if(|(failing, _)| *failing == pid)
        {
            registers::set_result(pid, -i64::from(errno as i32));
            self.let_everybody_go();
            return self.go_on(pid, None);
        }
        let begun = (side == Side::Entry).then(|| registers::call(pid));
        // Killed meanwhile.
        if begun == Some(None) {
            return;
        }
        let begun = begun.flatten();
        if begun.is_some_and(|(number, _)| number == libc::SYS_futex) {
            // Whether one thread has to wait for another is not the same each time, and it changes nothing.
            return self.go_on(pid, None);
        }
        let count = self.counts.entry(role).or_default();
        *count += usize::from(side == Side::Entry);
        let here = Point { role, nth: *count, side };
        if let Some((number, fifth)) = begun {
            self.calls.push(Call { role, nth: here.nth, number, fifth });
        }
        match self.at {
            Some((point, deed)) if point == here && self.struck.is_none() => {
                let call = self.calls.iter().rfind(|call| call.role == role).copied();
                match (deed, call) {
                    (Deed::Fail(_, number), Some(call)) if call.number != number => self.go_on(pid, None),
                    _ => {
                        self.struck = call;
                        self.strike(pid, deed);
                    }
                }
            }
            _ => self.go_on(pid, None),
        }
    }

    fn strike(&mut self, pid: Pid, deed: Deed<'_>) {
        match deed {
            Deed::Fail(errno, _) => {
                registers::skip_call(pid);
                self.failing = Some((pid, errno));
                self.go_on(pid, None);
            }
            Deed::Kill(victims) => {
                for victim in victims {
                    let of_role =
                        |(pid, role): (&Pid, &Option<Role>)| (role.as_ref() == Some(victim)).then_some(*pid);
                    for victim in self.roles.iter().filter_map(of_role).filter(|pid| self.held.contains(pid))
                    {
                        // Not reaped yet, so the number is its own.
                        let _ = kill(victim, Signal::SIGKILL);
                    }
                }
                self.let_everybody_go();
                // Where it is not itself among the victims.
                self.go_on(pid, None);
            }
        }
    }

    /// From now on whoever stops is let go. Those who wait in a call stop at its end.
    fn let_everybody_go(&mut self) {
        self.letting_go = true;
        for pid in std::mem::take(&mut self.parked) {
            self.let_go(pid);
        }
    }

    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        if self.letting_go {
            // ESRCH: killed; its end is still to be waited for.
            if ptrace::detach(pid, signal) != Err(Errno::ESRCH) {
                self.held.remove(&pid);
            }
        } else {
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn let_go(&mut self, pid: Pid) {
        if ptrace::detach(pid, None) != Err(Errno::ESRCH) {
            self.held.remove(&pid);
        }
    }
}

/// Where a traced run's standard error goes.
pub(crate) const LOG: &str = "/run/lab/stderr";
