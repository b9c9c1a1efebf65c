//! How a test gets into namespaces of its own: this program is executed again for it, three times.
//!
//! `runner` (the caller's namespaces; one child per test) → `namespaces` (enters new ones, waits for
//! its user map) → `init` (pid 1: mounts, then reaps) → `test` (runs the one test). Each dies with
//! the one before it, and everything with pid 1.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespaces::{
    self, again, bury_until_end_of, die_with_parent, end_as, make_mounts_private, map_users, mount_new,
    mount_program,
};
use super::{NETBOX, PROBE, SHELL, let_pass, probe, snapshot};

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
    let mut ready = [0; 1];
    let said = child.stdout.as_mut().expect("piped").read_exact(&mut ready);
    if let Err(error) = said.and_then(|()| map_users(&mut child, u64::MAX)) {
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

/// The first program inside: it can make pid 1, but cannot be it.
fn namespaces() -> ExitCode {
    die_with_parent();
    if let Err(errno) = namespaces::enter() {
        eprintln!("unshare: {errno}; live tests need unprivileged user namespaces, or root");
        return ExitCode::FAILURE;
    }
    std::io::stdout().write_all(b"u").expect("to tell the runner");
    std::io::stdout().flush().expect("to tell the runner");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    end_as(again(STAGE, "init").status().expect("pid 1"))
}

/// Pid 1: the mounts, the test, and the burial of orphans.
fn init() -> ExitCode {
    die_with_parent();
    let executable = env::current_exe().expect("this program's path");
    make_mounts_private();
    mount_new("proc", "/proc", MsFlags::MS_NOEXEC);
    mount_new("sysfs", "/sys", MsFlags::MS_NOEXEC);
    mount_new("tmpfs", "/run", MsFlags::empty());
    fs::create_dir("/run/lab").expect("a directory in a fresh tmpfs");
    // Before /tmp is covered: the programs may be under it.
    let netbox = env::var(PROGRAM).unwrap_or_else(|_| env!("CARGO_BIN_EXE_netbox").to_owned());
    mount_program(&executable, PROBE);
    mount_program(netbox.as_ref(), NETBOX);
    mount_new("tmpfs", "/tmp", MsFlags::empty());
    // Where netbox keeps what outlives a reboot.
    mount_new("tmpfs", "/var/lib", MsFlags::empty());
    env::set_current_dir("/").expect("a root directory");
    let test = again(STAGE, "test").spawn().expect("the test's process");
    bury_until_end_of(test, "the test")
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
            let_pass(limit);
            eprintln!("still running after {limit:?}; processes:\n{}", snapshot::processes().join("\n"));
            std::process::exit(1);
        });
    }
    (test.run)();
    ExitCode::SUCCESS
}

/// What the lab's own variables are: no business of the programs under test.
pub(crate) fn hide_from(command: &mut Command) {
    for variable in [STAGE, TEST, OUTSIDE, PROGRAM, SHELL, "NETBOX_LIVE", "NETBOX_KILL"] {
        command.env_remove(variable);
    }
}

fn namespace(kind: &str) -> String {
    let path = format!("/proc/self/ns/{kind}");
    fs::read_link(&path).unwrap_or_else(|error| panic!("{path}: {error}")).display().to_string()
}
