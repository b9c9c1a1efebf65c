//! `netbox` as the tests call it.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, NETBOX, Outcome, PROBE, Place, end_within, find_within, stage};

/// No end of a box takes so long, not even that of one of a hundred on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(30);

impl Lab {
    /// `netbox` with these arguments, to be run in the host's namespace (or the place of the caller's thread).
    pub(crate) fn netbox(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NETBOX);
        command.args(arguments).stdin(Stdio::null());
        for variable in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(variable);
        }
        stage::hide_from(&mut command);
        command
    }

    /// `netbox run OPTIONS -- probe WORDS`, run to its end.
    pub(crate) fn run(&self, options: &[&str], words: &[&str]) -> Output {
        self.run_command(options, words).output().expect("netbox can be started")
    }

    /// The same, not yet started.
    pub(crate) fn run_command(&self, options: &[&str], words: &[&str]) -> Command {
        self.netbox(&[&["run"], options, &["--", PROBE], words].concat())
    }

    /// How an attempt from a box of its own ends.
    pub(crate) fn attempt(&self, words: &[&str]) -> Outcome {
        outcome(&self.run(&[], words))
    }

    /// A box whose command is a probe that stays; it is ready when this returns.
    pub(crate) fn start(&self, options: &[&str], words: &[&str]) -> RunningBox {
        self.start_command(&mut self.run_command(options, words))
    }

    /// `netbox run -d OPTIONS -- COMMAND`.
    pub(crate) fn detach(&self, options: &[&str], command: &[&str]) -> DetachedBox<'_> {
        let end: &[&str] = if command.is_empty() { &[] } else { &["--"] };
        let mut run = self.netbox(&[&["run", "-d"], options, end, command].concat());
        let output = run.output().expect("netbox can be started");
        assert!(output.status.success(), "{}", words(&output));
        DetachedBox { lab: self, id: String::from_utf8_lossy(&output.stdout).trim_end().to_owned() }
    }

    /// A detached box that somebody else started.
    pub(crate) const fn adopt(&self, id: String) -> DetachedBox<'_> {
        DetachedBox { lab: self, id }
    }

    /// What `netbox ps -a` lists, as programs see it.
    pub(crate) fn listed(&self) -> Vec<serde_json::Value> {
        let output = self.netbox(&["ps", "-a", "--json"]).output().expect("netbox can be started");
        assert!(output.status.success(), "{}", words(&output));
        serde_json::from_slice(&output.stdout).expect("an array")
    }

    /// The same with a command that the caller has prepared.
    pub(crate) fn start_command(&self, command: &mut Command) -> RunningBox {
        // Its standard error is the test's, and so part of a failure's text.
        let mut child = command.stdout(Stdio::piped()).spawn().expect("netbox can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the probe's first line");
        let (pid, address, address6) = parse_ready(&line).unwrap_or_else(|| {
            panic!("the box did not get ready: {:?}, stdout {line:?}", child.wait());
        });
        RunningBox { child, stdout, pid, address, address6, ended: false }
    }
}

fn parse_ready(line: &str) -> Option<(u32, Ipv4Addr, Option<Ipv6Addr>)> {
    let mut words = line.trim().strip_prefix("ready ")?.split(' ');
    let pid = words.next()?.parse().ok()?;
    // A box without a network has no address.
    let address = words.next()?.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some((pid, address, words.next().and_then(|word| word.parse().ok())))
}

/// What a probe found, provided that netbox and the probe themselves went well.
pub(crate) fn outcome(output: &Output) -> Outcome {
    assert!(output.status.success(), "{}", words(output));
    let said = String::from_utf8_lossy(&output.stdout);
    Outcome::parse(&said).unwrap_or_else(|| panic!("the probe did not say how it went: {}", words(output)))
}

/// An output for a failure's text.
pub(crate) fn words(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("netbox ended with {}, stdout {out:?}, stderr:\n{err}", output.status)
}

/// A detached box; killed and forgotten with this value.
#[derive(Debug)]
pub(crate) struct DetachedBox<'l> {
    lab: &'l Lab,
    pub(crate) id: String,
}

impl DetachedBox<'_> {
    /// As `netbox ps -a` lists it.
    pub(crate) fn listed(&self) -> serde_json::Value {
        let all = self.lab.listed();
        let found = all.iter().find(|listed| listed["id"] == self.id.as_str());
        found.unwrap_or_else(|| panic!("{} is not among {all:?}", self.id)).clone()
    }

    /// One of its processes: `pid`, `box_pid`.
    pub(crate) fn process(&self, field: &str) -> u32 {
        let listed = self.listed();
        listed[field]
            .as_u64()
            .and_then(|pid| pid.try_into().ok())
            .unwrap_or_else(|| panic!("{field} of {listed}"))
    }

    /// Its keeper: the launcher's child.
    pub(crate) fn keeper(&self) -> u32 {
        let launcher = self.process("pid");
        let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children"));
        children.expect("the launcher lives").trim().parse().expect("one child")
    }

    /// Waits until it has ended, and lists it.
    pub(crate) fn ended(&self) -> serde_json::Value {
        // Of one that was killed with all of its netbox this knows nothing, and returns at once.
        let mut wait = self.lab.netbox(&["wait", &self.id]);
        let mut wait = wait.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("netbox");
        if end_within(LONG, &mut wait).is_none() {
            let _ = wait.kill().and_then(|()| wait.wait());
        }
        find_within(
            LONG,
            || format!("it ends: {}", self.listed()),
            || Some(self.listed()).filter(|it| it["status"] == "exited" && !it["ended"].is_null()),
        )
    }

    /// `netbox logs OPTIONS`.
    pub(crate) fn logs(&self, options: &[&str]) -> Output {
        let mut command = self.lab.netbox(&[&["logs"], options, &[&self.id]].concat());
        command.output().expect("netbox can be started")
    }
}

impl Drop for DetachedBox<'_> {
    fn drop(&mut self) {
        // It may have been forgotten.
        let _ = self.lab.netbox(&["rm", "-f", &self.id]).stderr(Stdio::null()).status();
    }
}

/// A box that runs; ends with this value.
#[derive(Debug)]
pub(crate) struct RunningBox {
    child: Child,
    pub(crate) stdout: BufReader<ChildStdout>,
    /// The command's process, in the lab's pid namespace.
    pub(crate) pid: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Option<Ipv6Addr>,
    ended: bool,
}

impl RunningBox {
    /// The launcher's process.
    pub(crate) fn launcher(&self) -> u32 {
        self.child.id()
    }

    /// The network namespace of the box, to be entered with all rights that the lab has.
    pub(crate) fn place(&self) -> Place {
        Place::of(self.pid)
    }

    /// What a probe finds from within this very box (with the lab's rights, not the box's).
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.place().run(work)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.launcher(), signal);
    }

    /// Writes a line to the command's standard input, which must be a pipe, and waits for its answer.
    pub(crate) fn tell(&mut self, line: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{line}").expect("a command that listens");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("an answer");
        answer
    }

    /// Whether the launcher still runs so much later.
    pub(crate) fn goes_on_for(&mut self, time: Duration) -> bool {
        end_within(time, &mut self.child).is_none()
    }

    /// SIGTERM to the launcher, and its status.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for the launcher to return by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.ended = true;
        if let Some(status) = end_within(LONG, &mut self.child) {
            return status;
        }
        self.signal(Signal::SIGKILL);
        panic!("netbox did not end within {LONG:?}");
    }
}

impl Drop for RunningBox {
    fn drop(&mut self) {
        if !self.ended {
            let launcher = Pid::from_raw(self.child.id().cast_signed());
            // It may have ended by itself; it is reaped below either way.
            let _ = kill(launcher, Signal::SIGTERM);
            if std::thread::panicking() {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to a process of the lab.
pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal)
        .unwrap_or_else(|errno| panic!("{signal} to {pid}: {errno}"));
}
