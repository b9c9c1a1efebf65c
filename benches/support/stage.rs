//! How a benchmark gets into namespaces of its own: this program is executed again, as the lab of the live tests does.
//!
//! `outside` (the caller's namespaces) → `namespaces` (enters new ones, waits for its user map) → `init` (pid 1:
//! mounts, then reaps) → `measure`. Each dies with the one before it, and everything with pid 1.

use std::env;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use nix::mount::MsFlags;
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::alarm;

use super::cgroup::{self, Cgroup};
use super::namespaces::{
    self, again, bury_until_end_of, die_with_parent, end_as, make_mounts_private, map_users, mount_new,
    mount_program,
};
use super::report::Report;
use super::{Length, floor};

/// The program that is measured, as the stage mounts it.
pub(crate) const NETBOX: &str = "/run/bench/netbox";
/// The floor program.
pub(crate) const FLOOR: &str = "/run/bench/floor";

const STAGE: &str = "NETBOX_BENCH_STAGE";
const PROGRAM: &str = "NETBOX_BENCH_PROGRAM";
const LENGTH: &str = "NETBOX_BENCH";
const JSON: &str = "NETBOX_BENCH_JSON";
const OUTSIDE: &str = "NETBOX_BENCH_OUTSIDE";
const CGROUP: &str = "NETBOX_BENCH_CGROUP";

/// As many users as a container has: with all of them, other programs take the namespace for the machine's first.
const IDS: u64 = 65_536;
/// Longer than this in seconds, something hangs: everything is killed.
const LIMIT: [u32; 2] = [900, 120];

/// The `main` of a benchmark.
pub(crate) fn main(measure: fn(Length, &mut Report)) -> ExitCode {
    stage(measure, || None)
}

/// The same, in a control group of its own where the caller may make one.
pub(crate) fn main_in_cgroup(measure: fn(Length, &mut Report)) -> ExitCode {
    stage(measure, || {
        let made = Cgroup::new();
        made.inspect_err(|error| eprintln!("no control group for the benchmark: {error}")).ok()
    })
}

/// Whether the benchmark has a control group of its own, and may mount the hierarchy.
pub(crate) fn has_cgroup() -> bool {
    env::var_os(CGROUP).is_some()
}

fn stage(measure: fn(Length, &mut Report), cgroup: fn() -> Option<Cgroup>) -> ExitCode {
    if env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Path::new(FLOOR).file_name())
    {
        return floor::main();
    }
    match env::var(STAGE).as_deref() {
        Ok("namespaces") => namespaces(),
        Ok("init") => init(),
        Ok("measure") => inside(measure),
        _ => outside(cgroup()),
    }
}

fn outside(cgroup: Option<Cgroup>) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let mut first = again(STAGE, "namespaces");
    first.env(OUTSIDE, own_network()).stdin(Stdio::piped()).stdout(Stdio::inherit()).stderr(Stdio::piped());
    if asked("--short") {
        first.env(LENGTH, "short");
    }
    if asked("--json") {
        first.env(JSON, "1");
    }
    if cgroup.is_some() {
        first.env(CGROUP, "1");
    }
    let mut child = first.spawn().expect("this program again");
    let ready = child.stderr.as_mut().expect("piped").read_exact(&mut [0; 1]);
    let ready = ready.and_then(|()| cgroup.as_ref().map_or(Ok(()), |group| group.admit(child.id())));
    let mapped = ready.and_then(|()| map_users(&mut child, IDS));
    let output = child.wait_with_output().expect("the benchmark's end");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    if let Err(error) = mapped {
        eprintln!("no namespaces for the benchmark ({error}): it needs root or unprivileged user namespaces");
        return ExitCode::FAILURE;
    }
    match output.status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => {
            eprintln!("the benchmark could not be finished: {}", output.status);
            ExitCode::FAILURE
        }
    }
}

fn namespaces() -> ExitCode {
    die_with_parent();
    if let Err(errno) = namespaces::enter() {
        eprintln!(" unshare: {errno}");
        return ExitCode::FAILURE;
    }
    eprint!(" ");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    if has_cgroup() {
        cgroup::make_root_and_leave_it().expect("a cgroup namespace");
    }
    // firejail looks for this word in pid 1: it sees no kernel threads, and would else not make a sandbox.
    end_as(again(STAGE, "init").env("container", "lxc").status().expect("pid 1"))
}

fn init() -> ExitCode {
    die_with_parent();
    let executable = env::current_exe().expect("this program's path");
    make_mounts_private();
    mount_new("proc", "/proc", MsFlags::empty());
    mount_new("tmpfs", "/run", MsFlags::empty());
    for directory in ["/run/bench", "/run/netbox"] {
        fs::create_dir(directory).expect("a directory in a fresh tmpfs");
    }
    let netbox = env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_netbox").to_owned());
    mount_program(&executable, FLOOR);
    mount_program(netbox.as_ref(), NETBOX);
    env::set_current_dir("/").expect("a root directory");
    let measure = again(STAGE, "measure").spawn().expect("the benchmark's process");
    bury_until_end_of(measure, "the benchmark")
}

fn inside(measure: fn(Length, &mut Report)) -> ExitCode {
    let outside = env::var(OUTSIDE).expect("set by the first stage");
    assert_ne!(own_network(), outside, "not in a network namespace of its own: refusing to touch anything");
    let length = if env::var(LENGTH).as_deref() == Ok("short") { Length::Short } else { Length::Full };
    alarm::set(length.pick(LIMIT[0], LIMIT[1]));
    // Keepers that outlive their launchers come here, and are counted.
    set_child_subreaper(true).expect("a subreaper");
    let mut report = Report::default();
    let load = || fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    report.note("load before", load());
    measure(length, &mut report);
    report.note("processors", std::thread::available_parallelism().map_or(0, usize::from).to_string());
    report.print(env::var_os(JSON).is_some());
    ExitCode::SUCCESS
}

fn own_network() -> String {
    fs::read_link("/proc/self/ns/net").expect("this process's network namespace").display().to_string()
}
