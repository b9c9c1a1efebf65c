//! Runs in the lab that are killed or fail at a point, one after the other, and what must be true after each.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use netbox::apply::state::State;
use netbox::kernel::slots::SlotState;
use netbox::plan::topology::{RESERVED, SLOTS};

use super::{Call, Deed, LOG, Point, Role, Traced, trace};
use crate::lab::{
    ECHO, HOST_LAN, Lab, NETBOX, PROBE, Place, RunningBox, Shape, Snapshot, WAN, links, probe, running,
    settled, try_within, use_names, words,
};

mod prober;
use prober::Prober;

/// Within which the host must be as it was. The promise (L2) is a second for the box; its link is the kernel's to free, and
/// on a loaded machine a keeper was seen to wait for that (rcu_barrier) for several.
const LIMIT: Duration = Duration::from_secs(10);
/// After so many failures the rest would say the same.
const ENOUGH: usize = 15;
/// With what the command of the run that is struck ends (`probe burst`), and that of `netbox exec`.
pub(crate) const COMMAND_STATUS: i32 = 7;
/// What the run that is struck publishes.
const PORT: u16 = 8080;
/// The name that its network may have for ip-netns(8).
pub(crate) const EXPORTED: &str = "--export-netns=struck";
/// What the other box is called.
const OTHER: &str = "other";
/// The name of a network that other machines reach.
pub(crate) const ROUTED: &str = "routed";
/// What the other box publishes.
const OTHER_PORT: u16 = 9090;

/// Whether every point is wanted, or a choice of them.
pub(crate) fn whole() -> bool {
    std::env::var("NETBOX_KILL").is_ok_and(|value| value == "all")
}

/// What there is when a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    NoGateway,
    BesideAnother,
}

/// What a further command leaves behind when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    Nothing,
    /// A process that nothing ends but SIGKILL.
    ADaemon,
}

/// By when the host must be as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CleanBy {
    /// By itself; but where the run had ended and its launcher was gone, a slot, its
    /// directory and tracked connections may wait for
    /// the next netbox command.
    ItselfButForTheDead,
    /// By itself if the run failed; after the next netbox command if it ended as its command did.
    ItselfOrTheNextIfEnded,
    /// After the next netbox command.
    TheNext,
}

/// The lab between two trials.
pub(crate) struct World {
    pub(crate) lab: Lab,
    /// Of the run that is struck.
    options: &'static [&'static str],
    /// What is struck is no run, but a `netbox exec` in the other box, which leaves so much behind.
    enters: Option<Leaves>,
    other: Option<RunningBox>,
    prober: Prober,
    baseline: (Snapshot, Option<Snapshot>),
    slots: usize,
    failures: Vec<String>,
    tried: usize,
    began: Instant,
}

/// What a trial ended in, for whoever judges it.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) traced: Traced,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new(start: Start) -> Self {
        Self::with(start, &[])
    }

    /// The run that is struck has these options. Where it is in networks, they are there, and the other box is in all of them too, unless
    /// other machines reach them: then what it needs is made by the run that is struck.
    pub(crate) fn with(start: Start, options: &'static [&'static str]) -> Self {
        Self::made(start, options, &[], None)
    }

    /// A further command in the other box is struck, and that box has these options.
    pub(crate) fn entering(of_other: &[&str], leaves: Leaves) -> Self {
        Self::made(Start::BesideAnother, &[], of_other, Some(leaves))
    }

    fn made(
        start: Start,
        options: &'static [&'static str],
        of_other: &[&str],
        enters: Option<Leaves>,
    ) -> Self {
        let lab = match options.contains(&EXPORTED) {
            true => Lab::before(Shape::OwnLan, use_names),
            false => Lab::new(Shape::OwnLan),
        };
        let joins = options.windows(2).filter(|pair| pair[0] == "--net");
        let networks: Vec<_> = joins.map(|pair| pair[1].split(':').next().unwrap_or_default()).collect();
        let is_routed = networks == [ROUTED];
        for (number, name) in networks.iter().enumerate() {
            let subnet = format!("10.9.{number}.0/24");
            let options: &[&str] = if is_routed { &OF_ROUTED } else { &[] };
            let subnet6 = format!("fd09:{number}::/64");
            let create = ["network", "create", name, "--ipv6", "--subnet", &subnet, "--subnet", &subnet6];
            let made = lab.netbox(&[&create, options].concat()).output();
            assert!(made.expect("netbox can be started").status.success());
        }
        let pool = {
            let first = lab.start(&[], &["sleep"]);
            Ipv4Addr::from(u32::from(first.address) & !(SLOTS + RESERVED))
        };
        lab.assert_clean_within(LIMIT);
        let nets = networks.iter().filter(|_| !is_routed).flat_map(|name| ["--net", name]);
        let of_other: Vec<_> = ["--name", OTHER, "-p", "9090:80"]
            .into_iter()
            .chain(nets)
            .chain(of_other.iter().copied())
            .collect();
        let other =
            (start == Start::BesideAnother).then(|| lab.start(&of_other, &["listen", "tcp", "0.0.0.0:80"]));
        if other.is_some() && is_routed {
            // The gateway keeps the bridges' rules from then on.
            assert!(lab.run(&["--net", ROUTED], &["exit", "0"]).status.success());
            make_again().unwrap_or_else(|error| panic!("{error}"));
        }
        let prober = Prober::start(&lab, pool, other.as_ref().map(|other| other.address));
        let mut world = Self {
            lab,
            options,
            enters,
            other,
            prober,
            baseline: (Snapshot::take(), None),
            slots: 0,
            failures: Vec::new(),
            tried: 0,
            began: Instant::now(),
        };
        world.assert_other_goes_on();
        world.settle();
        world
    }

    /// Takes the state as it is, once it has stopped changing, for the one to come back to.
    fn settle(&mut self) {
        self.baseline = settled(Duration::from_millis(60), LIMIT, || self.look());
        self.slots = slots().len();
    }

    /// The host, and the gateway where there is one.
    fn look(&self) -> (Snapshot, Option<Snapshot>) {
        let gateway = self.other.as_ref().and_then(|_| gateway());
        (Snapshot::take(), gateway.map(|gateway| gateway.run(Snapshot::take)))
    }

    fn command(&self) -> Command {
        if let Some(leaves) = self.enters {
            let daemon = match leaves {
                Leaves::ADaemon => format!("(trap '' TERM HUP INT; setsid {PROBE} sleep >/dev/null 2>&1 &);"),
                Leaves::Nothing => String::new(),
            };
            // No trace in the box's network.
            let script = format!("{daemon} exec {PROBE} exit {COMMAND_STATUS}");
            return self.lab.netbox(&["exec", OTHER, "--", "sh", "-c", &script]);
        }
        let burst = [PROBE, "burst", &format!("{WAN}:{ECHO}")].map(str::to_owned);
        let [tcp, udp] = ["tcp", "udp"].map(|protocol| format!("{PORT}:80/{protocol}"));
        let mut command = self.lab.netbox(&["run", "-p", &tcp, "-p", &udp]);
        command.args(self.options).arg("--");
        command.args(burst);
        command
    }

    /// Every call of a run that nobody disturbs, in order.
    pub(crate) fn calls(&mut self) -> Vec<Call> {
        let verdict = self.run(None);
        assert_eq!(verdict.traced.status, self.undisturbed(), "an undisturbed run: {verdict:?}");
        if self.is_detached() {
            let forgotten = forget_detached();
            let is_own = |one: &serde_json::Value| one["exit_status"] == COMMAND_STATUS;
            assert!(
                forgotten.as_ref().is_ok_and(|all| all.len() == 1 && all.iter().all(is_own)),
                "{forgotten:?}"
            );
        }
        if self.other.is_some() && self.options.iter().any(|option| option.starts_with(ROUTED)) {
            make_again().unwrap_or_else(|error| panic!("{error}"));
        }
        let left = self.left_after(LIMIT);
        assert_eq!(left, "", "after an undisturbed run");
        verdict.traced.calls
    }

    /// Whether the run that is struck ends before its command does. The roles are then one off: the launcher has a parent, whose
    /// role is its own in the foreground.
    fn is_detached(&self) -> bool {
        self.options.contains(&"-d")
    }

    /// The status of a run that nobody disturbs.
    fn undisturbed(&self) -> i32 {
        if self.is_detached() { 0 } else { COMMAND_STATUS }
    }

    fn run(&self, at: Option<(Point, Deed<'_>)>) -> Verdict {
        let traced = trace(&self.command(), at);
        let stderr = fs::read(LOG).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Verdict { traced, stderr: stderr.unwrap_or_default() }
    }

    /// What differs from the beginning; empty is clean.
    fn difference(&self) -> String {
        let (host, gateway) = self.look();
        let mut text = self.baseline.0.difference(&host);
        match (&self.baseline.1, &gateway) {
            (Some(before), Some(now)) => {
                let inside = before.difference(now);
                // Seen from there, the rest is the same.
                for line in inside.lines().filter(|line| !line.contains(" process: ")) {
                    let _ = writeln!(text, "in the gateway: {line}");
                }
            }
            (Some(_), None) => text.push_str("the gateway is gone\n"),
            (None, _) => {}
        }
        // The other box's own connections come and go.
        let others = self.other.as_ref().map(|other| other.address.to_string()).unwrap_or_default();
        // In a network the host knows it by another address, and its port.
        let port = format!("Some({OTHER_PORT})");
        let is_others = |line: &str| line.contains(&others) || line.contains(&port);
        let mut text: String = text
            .lines()
            .filter(|line| others.is_empty() || !(line.contains("conntrack") && is_others(line)))
            .fold(String::new(), |text, line| text + line + "\n");
        let taken = slots();
        if taken.len() != self.slots {
            let _ = writeln!(text, "+ slots: {taken:?}");
        }
        let all = (Ipv6Addr::UNSPECIFIED, PORT);
        if let Err(error) = TcpListener::bind(all).map(drop).and(UdpSocket::bind(all).map(drop)) {
            let _ = writeln!(text, "+ port {PORT}: {error}");
        }
        text
    }

    /// What is left `limit` later; empty as soon as nothing is.
    fn left_after(&self, limit: Duration) -> String {
        let mut difference = String::new();
        try_within(limit, || {
            difference = self.difference();
            difference.is_empty().then_some(())
        });
        difference
    }

    /// Strikes one run at a point and finds out whether everything is as before in time.
    pub(crate) fn strike(
        &mut self,
        point: Point,
        deed: Deed<'_>,
        clean_by: CleanBy,
        judge: impl FnOnce(&Verdict) -> Result<(), String>,
    ) {
        self.tried += 1;
        let verdict = self.run(Some((point, deed)));
        let name = verdict.traced.struck.map_or("(not reached)".to_owned(), |call| name_of(call.number));
        let mut wrong = String::new();
        if verdict.traced.hung {
            wrong.push_str("the run hung\n");
        }
        if verdict.stderr.contains("panicked") {
            wrong.push_str("a panic\n");
        }
        if let Err(error) = judge(&verdict) {
            let _ = writeln!(wrong, "{error}");
        }
        let left = self.left_by(clean_by, verdict.traced.status == self.undisturbed());
        if !left.is_empty() {
            let _ = writeln!(wrong, "left behind:\n{left}");
            let helped = self.help();
            let later = self.left_after(LIMIT);
            let _ = writeln!(wrong, "and after the next command: {later:?} {helped}");
        }
        if !wrong.is_empty() {
            let (status, stderr) = (verdict.traced.status, verdict.stderr.trim());
            self.failures
                .push(format!("{point:?} {name} {deed:?}: status {status}, stderr {stderr:?}\n{wrong}"));
            if self.failures.len() >= ENOUGH {
                self.give_up();
            }
            // What nobody could clean up must not be counted again.
            self.settle();
        }
        if self.tried.is_multiple_of(50) {
            self.assert_other_goes_on();
        }
    }

    fn left_by(&self, clean_by: CleanBy, ended: bool) -> String {
        let may_wait = match clean_by {
            CleanBy::ItselfButForTheDead | CleanBy::ItselfOrTheNextIfEnded => ended,
            CleanBy::TheNext => true,
        };
        if !may_wait {
            return self.left_after(LIMIT);
        }
        let waits = |line: &str| {
            let of_the_dead = ["slots", "conntrack", "/run/netbox/0/"];
            clean_by != CleanBy::ItselfButForTheDead || of_the_dead.iter().any(|words| line.contains(words))
        };
        let end = Instant::now() + LIMIT;
        let mut left = self.difference();
        while !left.lines().all(waits) && Instant::now() < end {
            left = self.difference();
        }
        if !left.lines().all(waits) {
            return left;
        }
        // A keeper that lingers still may be about to do it, and until it ends its box is not dead for others.
        let end = Instant::now() + LIMIT;
        while left.lines().any(|line| line.contains(" process: ")) && Instant::now() < end {
            left = self.left_after(Duration::from_millis(300));
        }
        left = self.left_after(Duration::from_millis(300));
        if left.is_empty() { left } else { self.help() + &self.left_after(LIMIT) }
    }

    /// The next netbox command.
    fn help(&self) -> String {
        let arguments: &[&str] =
            if self.tried.is_multiple_of(2) { &["gc"] } else { &["run", "--", PROBE, "exit", "0"] };
        let output = self.lab.netbox(arguments).output().expect("netbox can be started");
        if output.status.success() { String::new() } else { format!("{arguments:?}: {}\n", words(&output)) }
    }

    /// The other box must still be reached by its port.
    fn assert_other_goes_on(&mut self) {
        let target = SocketAddr::from((HOST_LAN, OTHER_PORT));
        if self.other.is_some() {
            let outcome = self.lab.client(|| probe::tcp(target));
            if !outcome.reached() {
                self.failures.push(format!("the other box's port after {} points: {outcome}", self.tried));
                self.give_up();
            }
        }
    }

    fn give_up(&self) -> ! {
        panic!("{} of {} points failed:\n{}", self.failures.len(), self.tried, self.failures.join("\n"));
    }

    /// Ends the harness; fails with every failure found.
    pub(crate) fn end(mut self) {
        self.assert_other_goes_on();
        println!(
            "tried: {} points in {:.1} s; {} answers awaited in vain by the neighbour",
            self.tried,
            self.began.elapsed().as_secs_f32(),
            self.prober.sent()
        );
        self.prober.stop();
        if !self.failures.is_empty() {
            self.give_up();
        }
        if let Some(other) = self.other.take() {
            assert_eq!(other.end().code(), Some(143), "the other box");
        }
    }
}

/// Waits until no netbox lives, has one sweep, and forgets the detached boxes that are known then. Returns what was listed of them;
/// fails where one lives.
pub(crate) fn forget_detached() -> Result<Vec<serde_json::Value>, String> {
    if try_within(LIMIT, || running(NETBOX).is_empty().then_some(())).is_none() {
        return Err(format!("netbox still runs: {:?}", running(NETBOX)));
    }
    let netbox = |arguments: &[&str]| {
        let output = Command::new(NETBOX).args(arguments).output().expect("netbox can be started");
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(format!("{arguments:?}: {}", words(&output)))
        }
    };
    netbox(&["gc"])?;
    let listed = netbox(&["ps", "-a", "--json"])?;
    let all: Vec<serde_json::Value> = serde_json::from_slice(&listed).map_err(|error| error.to_string())?;
    if let Some(alive) = all.iter().find(|one| one["status"] != "exited") {
        return Err(format!("it lives: {alive}"));
    }
    netbox(&["rm", "--all"])?;
    Ok(all)
}

/// What makes other machines reach a network.
const OF_ROUTED: [&str; 4] = ["--route", "10.9.1.0/24=192.0.2.10", "--no-masquerade", "10.9.0.0/16"];

/// Finds out, after one sweep, whether the host has all of what the network that other machines reach needs, where that has a bridge,
/// and else nothing; then removes the network and makes it again.
pub(crate) fn make_again() -> Result<(), String> {
    let netbox = |arguments: &[&str]| {
        let output = Command::new(NETBOX).args(arguments).output().expect("netbox can be started");
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(format!("{arguments:?}: {}", words(&output))),
        }
    };
    netbox(&["gc"])?;
    let inspected = netbox(&["network", "inspect", ROUTED])?;
    let all: serde_json::Value = serde_json::from_slice(&inspected).map_err(|error| error.to_string())?;
    let has_bridge = !all[0]["bridge"].is_null();
    let ours = |lines: Vec<String>| lines.into_iter().filter(|line| line.contains("10, 9, 0, 0")).count();
    let (rules, routes) = links::owned_by(110);
    let outward = usize::from(links::has_route([10, 9, 1, 0].into(), 24));
    let there = (ours(rules), ours(routes), outward);
    netbox(&["network", "rm", ROUTED])?;
    netbox(&[&["network", "create", ROUTED, "--subnet", "10.9.0.0/24"], &OF_ROUTED[..]].concat())?;
    match (has_bridge, there) {
        (true, (1, 2, 1)) | (false, (0, 0, 0)) => Ok(()),
        _ => Err(format!("the network has a bridge: {has_bridge}; on the host there is {there:?}")),
    }
}

/// The slots that are not free.
fn slots() -> Vec<SlotState> {
    let Ok(Some(state)) = State::open_existing() else { return Vec::new() };
    let slots = state.slots();
    (0..slots.count()).map(|slot| slots.state(slot)).filter(|state| *state != SlotState::Free).collect()
}

/// The gateway's network namespace, through whoever holds it.
pub(crate) fn gateway() -> Option<Place> {
    let host = fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    for pid in running(NETBOX) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let is_network =
                fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("net:["));
            if is_network && fs::metadata(entry.path()).is_ok_and(|file| file.ino() != host) {
                return Place::held(&entry.path()).ok();
            }
        }
    }
    None
}

/// Whether a call is one of those.
pub(crate) fn is_one_of(call: &Call, names: &[&str]) -> bool {
    names.contains(&name_of(call.number).as_str())
}

/// The points of a role's calls: every `step`-th, from the `first`, or all if the whole is wanted.
pub(crate) fn points(calls: &[Call], role: Role, side: super::Side, first: usize, step: usize) -> Vec<Point> {
    let (first, step) = if whole() { (0, 1) } else { (first, step) };
    let own = calls.iter().filter(|call| call.role == role);
    own.skip(first).step_by(step).map(|call| Point { role, nth: call.nth, side }).collect()
}

/// A system call's name, as far as the harness has met it.
pub(crate) fn name_of(number: i64) -> String {
    super::registers::NAMES
        .iter()
        .find(|(known, _)| *known == number)
        .map_or_else(|| format!("system call {number}"), |(_, name)| (*name).to_owned())
}
