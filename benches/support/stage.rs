//! How a benchmark gets into namespaces of its own: this program is executed again, as the lab of the live tests does.
//!
//! `outside` (the caller's namespaces) → `namespaces` (enters new ones, waits for its user map) → `init` (pid 1:
//! mounts, then reaps) → `measure`. Each dies with the one before it, and everything with pid 1.

use std::env;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, alarm, getegid, geteuid};

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

/// Longer than this in seconds, something hangs: everything is killed.
const LIMIT: [u32; 2] = [900, 120];

/// The `main` of a benchmark.
pub(crate) fn main(measure: fn(Length, &mut Report)) -> ExitCode {
    if env::args_os().next().is_some_and(|name| name == FLOOR) {
        return floor::main();
    }
    match env::var(STAGE).as_deref() {
        Ok("namespaces") => namespaces(),
        Ok("init") => init(),
        Ok("measure") => inside(measure),
        _ => outside(),
    }
}

fn outside() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let mut first = again("namespaces");
    first.env(OUTSIDE, own_network()).stdin(Stdio::piped()).stdout(Stdio::inherit()).stderr(Stdio::piped());
    if asked("--short") {
        first.env(LENGTH, "short");
    }
    if asked("--json") {
        first.env(JSON, "1");
    }
    let mut child = first.spawn().expect("this program again");
    let mapped = map_users(&mut child);
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

/// Waits until the child has entered its user namespace, maps its users, and lets it go on. Root maps every id it has to
/// itself; anybody else becomes 0.
fn map_users(child: &mut Child) -> std::io::Result<()> {
    child.stderr.as_mut().expect("piped").read_exact(&mut [0; 1])?;
    let pid = child.id();
    if geteuid().is_root() {
        for map in ["uid_map", "gid_map"] {
            let own = fs::read_to_string(format!("/proc/self/{map}"))?;
            let same = own.lines().map(|line| {
                let mut words = line.split_whitespace();
                let (first, count) = (words.next().unwrap_or("0"), words.nth(1).unwrap_or("1"));
                format!("{first} {first} {count}\n")
            });
            fs::write(format!("/proc/{pid}/{map}"), same.collect::<String>())?;
        }
    } else {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        fs::write(format!("/proc/{pid}/uid_map"), format!("0 {} 1", geteuid()))?;
        fs::write(format!("/proc/{pid}/gid_map"), format!("0 {} 1", getegid()))?;
    }
    drop(child.stdin.take());
    Ok(())
}

fn namespaces() -> ExitCode {
    set_pdeathsig(Signal::SIGKILL).expect("a parent-death signal");
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if let Err(errno) = unshare(all) {
        eprintln!(" unshare: {errno}");
        return ExitCode::FAILURE;
    }
    eprint!(" ");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let status = again("init").status().expect("pid 1");
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn init() -> ExitCode {
    set_pdeathsig(Signal::SIGKILL).expect("a parent-death signal");
    let none: Option<&str> = None;
    let on = |kind: &str, at: &str| {
        mount(Some(kind), at, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, none)
            .unwrap_or_else(|errno| panic!("cannot mount {kind} on {at}: {errno}"));
    };
    let executable = env::current_exe().expect("this program's path");
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
    on("proc", "/proc");
    on("tmpfs", "/run");
    for directory in ["/run/bench", "/run/netbox"] {
        fs::create_dir(directory).expect("a directory in a fresh tmpfs");
    }
    let netbox = env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_netbox").to_owned());
    for (program, at) in [(executable.as_path(), FLOOR), (netbox.as_ref(), NETBOX)] {
        fs::write(at, "").expect("a file to mount on");
        mount(Some(program), at, none, MsFlags::MS_BIND, none).expect("a bind mount of a program");
    }
    env::set_current_dir("/").expect("a root directory");

    #[expect(clippy::zombie_processes, reason = "the loop below waits for every child")]
    let child = again("measure").spawn().expect("the benchmark's process");
    let own = Pid::from_raw(child.id().cast_signed());
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == own => {
                return ExitCode::from(u8::try_from(status).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == own => {
                eprintln!("the benchmark was killed by {signal}");
                return ExitCode::FAILURE;
            }
            Ok(_) => {}
            Err(errno) => panic!("pid 1 cannot wait: {errno}"),
        }
    }
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

fn again(stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(STAGE, stage).stdin(Stdio::null());
    command
}

fn own_network() -> String {
    fs::read_link("/proc/self/ns/net").expect("this process's network namespace").display().to_string()
}
