//! How a test gets into namespaces of its own: this program is executed again for it, three times.
//!
//! `runner` (the caller's namespaces; one child per test) → `namespaces` (enters new ones, waits for
//! its user map) → `init` (pid 1: mounts, then reaps) → `test` (runs the one test). Each dies with
//! the one before it, and everything with pid 1.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, getegid, geteuid};

use super::{NETBOX, PROBE, SHELL, probe, snapshot};

/// Longer than this, a test has failed, unless it says otherwise.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const STAGE: &str = "NETBOX_LAB_STAGE";
const TEST: &str = "NETBOX_LAB_TEST";
/// The program under test, where it is not the one just built.
const PROGRAM: &str = "NETBOX_LAB_PROGRAM";
const OUTSIDE: &str = "NETBOX_LAB_OUTSIDE";
const KINDS: [&str; 6] = ["user", "net", "mnt", "pid", "uts", "ipc"];

/// A live test: a sentence, and the function that finds out whether it is true.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveTest {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
    /// Longer than this, it has failed.
    pub(crate) limit: Duration,
}

/// The tests of a file, by their functions' names; `within LIMIT;` before them where they take long.
macro_rules! live_tests {
    (within $limit:expr; $($test:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::lab::LiveTest] = &[$(
            $crate::lab::LiveTest {
                name: concat!(module_path!(), "::", stringify!($test)),
                run: $test,
                limit: $limit,
            }
        ),*];
    };
    ($($test:ident),* $(,)?) => {
        $crate::lab::live_tests![within $crate::lab::LIMIT; $($test),*];
    };
}
pub(crate) use live_tests;

/// The `main` of a crate of live tests.
pub(crate) fn main(groups: &[&[LiveTest]]) -> ExitCode {
    let tests: Vec<LiveTest> = groups.concat();
    if env::args().next().is_some_and(|name| name.ends_with("/probe")) {
        return probe::main();
    }
    match env::var(STAGE).as_deref() {
        Ok("namespaces") => namespaces(),
        Ok("init") => init(),
        Ok("test") => test(&tests),
        _ => runner(&tests),
    }
}

fn runner(tests: &[LiveTest]) -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = tests.iter().copied().map(|test| {
        let short = test.name.split_once("::").map_or(test.name, |(_, rest)| rest);
        let echo = arguments.nocapture;
        Trial::test(short, move || isolated(test, echo))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs one test in namespaces of its own; what it printed is the failure's text.
fn isolated(LiveTest { name, limit, .. }: LiveTest, echo: bool) -> Result<(), Failed> {
    let shell = env::var_os(SHELL).is_some();
    let outside = KINDS.map(namespace).join(" ");
    let mut child = Command::new(env::current_exe()?)
        .envs([(STAGE, "namespaces"), (TEST, name), (OUTSIDE, &outside), ("RUST_BACKTRACE", "0")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if shell { Stdio::inherit() } else { Stdio::piped() })
        .spawn()?;
    if let Err(error) = map_users(&mut child) {
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("no namespaces for the lab ({error}): {said}").into());
    }
    let pid = Pid::from_raw(child.id().cast_signed());
    let (finished, wait_for_end) = channel::<()>();
    let guard = thread::spawn(move || {
        let limit = if shell { Duration::MAX } else { limit + Duration::from_secs(10) };
        if wait_for_end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            // Not reaped yet, so the number is still its own. Whatever it started dies with it.
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output()?;
    drop(finished);
    let _ = guard.join();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() {
        if echo {
            print!("{said}");
        } else {
            // How much of it a test could do is shown in any case.
            said.lines()
                .filter(|line| line.starts_with("not tested:") || line.starts_with("tried:"))
                .for_each(|line| eprintln!("{name}: {line}"));
        }
        return Ok(());
    }
    Err(format!("{}: {said}", output.status).into())
}

/// Waits until the child has entered its user namespace, maps its users, and lets it go on.
///
/// Root maps every id it has to itself, so that tests can change users; anybody else becomes 0.
fn map_users(child: &mut Child) -> std::io::Result<()> {
    let mut ready = [0; 1];
    child.stdout.as_mut().expect("piped").read_exact(&mut ready)?;
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

/// The first program inside: it can make pid 1, but cannot be it.
fn namespaces() -> ExitCode {
    die_with_parent();
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    if let Err(errno) = unshare(all) {
        eprintln!("unshare: {errno}; live tests need unprivileged user namespaces, or root");
        return ExitCode::FAILURE;
    }
    std::io::stdout().write_all(b"u").expect("to tell the runner");
    std::io::stdout().flush().expect("to tell the runner");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    end_as(again("init").status().expect("pid 1"))
}

/// Pid 1: the mounts, the test, and the burial of orphans.
fn init() -> ExitCode {
    die_with_parent();
    let none: Option<&str> = None;
    let on = |kind: &str, at: &str, flags| {
        mount(Some(kind), at, Some(kind), flags, none)
            .unwrap_or_else(|errno| panic!("the lab cannot mount {kind} on {at}: {errno}"));
    };
    let executable = env::current_exe().expect("this program's path");
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
    on("proc", "/proc", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    on("sysfs", "/sys", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    on("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    fs::create_dir("/run/lab").expect("a directory in a fresh tmpfs");
    // Before /tmp is covered: the programs may be under it.
    let netbox = env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_netbox").to_owned());
    for (program, at) in [(executable.as_path(), PROBE), (netbox.as_ref(), NETBOX)] {
        fs::write(at, "").expect("a file to mount on");
        mount(Some(program), at, none, MsFlags::MS_BIND, none).expect("a bind mount of a program");
    }
    on("tmpfs", "/tmp", MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    env::set_current_dir("/").expect("a root directory");

    #[expect(clippy::zombie_processes, reason = "the loop below waits for every child")]
    let test = again("test").spawn().expect("the test's process");
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if is(pid, &test) => {
                return ExitCode::from(u8::try_from(status).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if is(pid, &test) => {
                eprintln!("the test was killed by {signal}");
                return ExitCode::FAILURE;
            }
            Ok(_) => {}
            Err(errno) => panic!("pid 1 cannot wait: {errno}"),
        }
    }
}

fn test(tests: &[LiveTest]) -> ExitCode {
    for (kind, outside) in KINDS.iter().zip(env::var(OUTSIDE).expect("set by the runner").split(' ')) {
        assert_ne!(
            namespace(kind),
            outside,
            "not in a {kind} namespace of its own: refusing to touch anything"
        );
    }
    let links = nix::net::if_::if_nameindex().expect("the links");
    assert_eq!(links.to_slice().len(), 1, "a fresh network namespace has lo alone");

    let name = env::var(TEST).expect("set by the runner");
    let test = tests.iter().find(|test| test.name == name).expect("a test of this crate");
    if env::var_os(SHELL).is_none() {
        let limit = test.limit;
        thread::spawn(move || {
            thread::sleep(limit);
            eprintln!("still running after {limit:?}; processes:\n{}", snapshot::processes().join("\n"));
            std::process::exit(1);
        });
    }
    (test.run)();
    ExitCode::SUCCESS
}

fn again(stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(STAGE, stage).stdin(Stdio::null());
    command
}

/// What the lab's own variables are: no business of the programs under test.
pub(crate) fn hide_from(command: &mut Command) {
    for variable in [STAGE, TEST, OUTSIDE, PROGRAM, SHELL, "NETBOX_LIVE", "NETBOX_KILL"] {
        command.env_remove(variable);
    }
}

fn die_with_parent() {
    set_pdeathsig(Signal::SIGKILL).expect("a parent-death signal");
}

fn namespace(kind: &str) -> String {
    let path = format!("/proc/self/ns/{kind}");
    fs::read_link(&path).unwrap_or_else(|error| panic!("{path}: {error}")).display().to_string()
}

fn is(pid: Pid, child: &Child) -> bool {
    pid.as_raw().cast_unsigned() == child.id()
}

fn end_as(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
