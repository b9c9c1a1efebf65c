//! Boxes that go on without their caller, and what is known of them when they have ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{HOST_LAN, Lab, NETBOX, PROBE, Place, Shape, live_tests, probe, send, words};

live_tests![
    a_detached_run_returns_with_the_id_when_its_ports_are_mapped,
    a_box_with_a_long_command_line_is_told_and_listed,
    a_failure_is_told_as_in_the_foreground_and_leaves_nothing,
    a_start_without_enough_descriptors_leaves_nothing,
    a_detached_box_has_nothing_of_its_callers,
    a_signal_to_a_detached_launcher_reaches_the_command,
    a_command_that_stops_does_not_stop_a_detached_launcher,
    a_box_without_a_command_waits_and_has_nothing_to_take_over,
    a_box_without_a_command_ends_when_it_is_asked_to,
    ended_boxes_are_listed_and_forgotten,
    a_detached_box_can_be_waited_for_before_and_after_its_end,
    a_name_of_an_ended_box_is_not_given_again,
    a_box_that_lives_is_forgotten_by_force_alone,
    a_box_with_rm_is_forgotten_when_it_ends,
    whoever_of_a_detached_box_is_killed_its_end_is_noted,
    a_box_that_a_reboot_ended_is_listed_as_lost,
    a_caller_that_goes_away_before_the_command_runs_leaves_no_box,
    boxes_of_another_network_namespace_are_left_alone,
    the_status_of_a_detached_box_is_told_to_its_end,
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

/// The launcher's end has nothing to say but the id, and nobody else has the caller's pipes: else `output` would not return.
fn a_detached_run_returns_with_the_id_when_its_ports_are_mapped() {
    let lab = lab();
    for init in [&[][..], &["--unshare-pid"]] {
        let options = [&["-p", "8080:80", "--name", "web"], init].concat();
        let one = lab.detach(&options, &[PROBE, "listen", "tcp", "0.0.0.0:80"]);
        assert!(one.id.len() == 8 && one.id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{:?}", one.id);
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "the port is not held");
        let listed = one.listed();
        assert_eq!((&listed["status"], &listed["name"]), (&"running".into(), &"web".into()), "{listed}");
        // The server has said that it listens: then a client reaches it, at the first attempt.
        let mut logs = lab.netbox(&["logs", "-f", "web"]).stdout(Stdio::piped()).spawn().expect("netbox");
        let mut line = String::new();
        BufReader::new(logs.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(line.starts_with("ready "), "{line}");
        let outcome = lab.client(|| probe::tcp(SocketAddr::from((HOST_LAN, 8080))));
        assert!(outcome.reached(), "{outcome}");
        drop(one);
        // Its reader is gone.
        assert!(logs.wait().is_ok());
    }
}

/// Longer than a message between netbox's processes.
fn a_box_with_a_long_command_line_is_told_and_listed() {
    let lab = lab();
    let long = "x".repeat(100_000);
    let command = ["--", PROBE, "sleep", &long, &long, &long];
    let detached = lab.netbox(&[&["run", "-d", "--name", "web"][..], &command].concat()).output();
    let detached = detached.expect("netbox");
    assert!(detached.status.success() && detached.stdout.len() == 9, "{}", words(&detached));
    let listed = lab.netbox(&["ps"]).output().expect("netbox");
    assert!(listed.status.success() && listed.stdout.len() > 300_000, "{:?}", listed.status);
    assert!(lab.netbox(&["rm", "-f", "web"]).output().expect("netbox").status.success());
}

/// R2, L1.
fn a_failure_is_told_as_in_the_foreground_and_leaves_nothing() {
    let lab = lab();
    let taken = TcpListener::bind("0.0.0.0:8080").expect("a free port");
    fs::write("/run/lab/no-program", "").expect("a file");
    for (status, rest) in [
        (127, &["--", "/nowhere"][..]),
        (126, &["--", "/run/lab/no-program"]),
        (125, &["-p", "8080:80", "--", PROBE, "sleep"]),
        (125, &["-w", "/nowhere", "--name", "web", "--", PROBE, "sleep"]),
        (2, &["--clear-env"]),
    ] {
        let detached = lab.netbox(&[&["run", "-d"], rest].concat()).output().expect("netbox");
        assert_eq!(detached.status.code(), Some(status), "{rest:?}: {}", words(&detached));
        assert_eq!(detached.stdout, b"", "{rest:?}: {}", words(&detached));
        if status != 2 {
            let foreground = lab.netbox(&[&["run"], rest].concat()).output().expect("netbox");
            assert_eq!(words(&detached), words(&foreground));
        }
        assert!(lab.listed().is_empty(), "{rest:?}");
    }
    drop(taken);
}

/// L1.
fn a_start_without_enough_descriptors_leaves_nothing() {
    let lab = lab();
    let mut started = 0;
    for limit in 4..40 {
        let mut command = lab.netbox(&["run", "-d", "--", PROBE, "sleep"]);
        let limited = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &limited]).arg(command.get_program()).args(arguments);
        command = shell;
        let output = command.output().expect("a shell");
        if output.status.success() {
            started += 1;
            let end = lab.netbox(&["rm", "-f", String::from_utf8_lossy(&output.stdout).trim()]).output();
            assert!(end.expect("netbox").status.success());
        }
        let kept = fs::read_dir("/var/lib/netbox/0/boxes").map_or(0, Iterator::count);
        assert_eq!(kept, 0, "of {limit} descriptors: {}", words(&output));
    }
    assert!((1..30).contains(&started), "{started} of 36 had enough");
}

fn link(pid: u32, name: &str) -> String {
    let path = format!("/proc/{pid}/{name}");
    fs::read_link(&path).unwrap_or_else(|error| panic!("{path}: {error}")).display().to_string()
}

/// Session, process group and terminal of a process, from /proc/PID/stat.
fn session(pid: u32) -> [i64; 3] {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, rest) = text.rsplit_once(')').expect("a name in parentheses");
    let words: Vec<i64> =
        rest.split_whitespace().skip(2).take(3).map(|word| word.parse().expect("a number")).collect();
    let [group, session, terminal] = words[..] else { panic!("{text}") };
    [session, group, terminal]
}

fn descriptors(pid: u32) -> Vec<(String, String)> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
    let shown =
        |path: std::path::PathBuf| fs::read_link(path).map(|to| to.display().to_string()).unwrap_or_default();
    all.map(|entry| (entry.file_name().to_string_lossy().into_owned(), shown(entry.path()))).collect()
}

/// No terminal, no session, no directory, no descriptor. The command has the caller's directory, and environment.
fn a_detached_box_has_nothing_of_its_callers() {
    let lab = lab();
    fs::create_dir("/run/lab/here").expect("a directory");
    let file = File::create("/run/lab/here/file").expect("a file");
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
        .expect("a descriptor");
    let mut command = lab.netbox(&["run", "-d", "--name", "web", "--", PROBE, "sleep"]);
    let output = command.current_dir("/run/lab/here").env("MARK", "kept").output().expect("netbox");
    assert!(output.status.success(), "{}", words(&output));
    let id = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    let one = lab.adopt(id);
    let (launcher, keeper, inside) = (one.process("pid"), one.keeper(), one.process("box_pid"));
    let own = i64::from(launcher);
    assert_eq!(session(launcher), [own, own, 0]);
    assert_eq!(session(keeper), [own, i64::from(keeper), 0]);
    assert_eq!(session(inside), [own, i64::from(inside), 0]);
    assert_eq!((link(launcher, "cwd"), link(keeper, "cwd")), ("/".to_owned(), "/".to_owned()));
    assert_eq!(link(inside, "cwd"), "/run/lab/here");
    let environment = fs::read(format!("/proc/{inside}/environ")).expect("the environment");
    assert!(environment.split(|byte| *byte == 0).any(|entry| entry == b"MARK=kept"));
    for pid in [launcher, keeper, inside] {
        let all = descriptors(pid);
        assert!(all.iter().all(|(_, to)| !to.contains("/run/lab")), "{pid}: {all:?}");
        let standard = |number: &str| all.iter().find(|(own, _)| own == number).expect("open").1.clone();
        assert_eq!(standard("0"), "/dev/null");
        let is_kept = |number| standard(number).starts_with("pipe:");
        assert_eq!((is_kept("1"), is_kept("2")), (pid == inside, pid == inside), "{pid}: {all:?}");
    }
    drop(one);
    fs::remove_dir_all("/run/lab/here").expect("a directory");
}

/// R3.
fn a_signal_to_a_detached_launcher_reaches_the_command() {
    let lab = lab();
    for init in [&[][..], &["--unshare-pid"]] {
        let one = lab.detach(init, &[PROBE, "signals", "SIGHUP", "SIGUSR1"]);
        let mut logs = lab.netbox(&["logs", "-f", &one.id]).stdout(Stdio::piped()).spawn().expect("netbox");
        let mut lines = BufReader::new(logs.stdout.take().expect("piped")).lines();
        assert!(lines.next().expect("a line").expect("text").starts_with("ready "));
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
            send(one.process("pid"), signal);
            assert_eq!(lines.next().expect("a line").expect("text"), signal.as_str());
        }
        assert!(lines.next().is_none(), "each came once");
        assert!(logs.wait().expect("netbox").success());
        assert_eq!(one.ended()["exit_status"], 0);
    }
}

fn is_stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    status.lines().any(|line| line.starts_with("State:\tT"))
}

/// There is no shell that would continue it.
fn a_command_that_stops_does_not_stop_a_detached_launcher() {
    let lab = lab();
    let one = lab.detach(&[], &[PROBE, "sleep"]);
    let (launcher, inside) = (one.process("pid"), one.process("box_pid"));
    send(inside, Signal::SIGSTOP);
    while !is_stopped(inside) {
        std::thread::yield_now();
    }
    // By way of the keeper the launcher learns of it before this signal, which the command gets when it goes on.
    send(launcher, Signal::SIGTERM);
    send(launcher, Signal::SIGCONT);
    assert_eq!(one.ended()["exit_status"], 143);
}

/// I5: as a command would be.
fn a_box_without_a_command_waits_and_has_nothing_to_take_over() {
    let lab = lab();
    for options in [&["-u", "65534"][..], &[], &["--unshare-pid"], &["--cap-add", "NET_ADMIN"]] {
        let bare = lab.run(options, &["status"]);
        let bare = String::from_utf8_lossy(&bare.stdout).into_owned();
        let one = lab.detach(options, &[]);
        let listed = one.listed();
        assert_eq!(listed["command"], serde_json::json!([]));
        let pid = one.process("box_pid");
        let waiting = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        for field in
            ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"]
        {
            let of = |status: &str| status.lines().find(|line| line.starts_with(field)).map(str::to_owned);
            assert_eq!(of(&waiting), of(&bare), "{options:?}");
        }
        let all: Vec<_> = descriptors(pid).into_iter().map(|(_, to)| to).collect();
        assert_eq!(all, ["/dev/null"; 3], "{options:?}");
        assert_eq!(link(pid, "cwd"), "/");
        // What belongs to root there is of a process that only root may look into (proc(5)).
        assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).expect("a file").uid(), 0, "{options:?}");
        let address = listed["ipv4"].as_str().expect("an address").to_owned();
        assert_eq!(Place::of(pid).run(probe::own_address).map(|own| own.to_string()), Some(address));
    }
}

fn a_box_without_a_command_ends_when_it_is_asked_to() {
    let lab = lab();
    for init in [&[][..], &["--unshare-pid"]] {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            let one = lab.detach(init, &[]);
            // Nothing else moves it.
            send(one.process("pid"), Signal::SIGUSR1);
            send(one.process("pid"), signal);
            assert_eq!(one.ended()["exit_status"], 0, "{signal}");
        }
    }
    let one = lab.detach(&["--timeout", "50ms", "--verbose"], &[]);
    assert_eq!(one.ended()["exit_status"], 124);
    // What netbox says after it has returned is in the log.
    let said = one.logs(&[]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("time has run out"), "{}", words(&said));
}

fn ended_boxes_are_listed_and_forgotten() {
    let lab = lab();
    let all = [
        lab.detach(&["--name", "three"], &[PROBE, "exit", "3"]),
        lab.detach(&["--net", "none"], &[PROBE, "raise", "SIGKILL"]),
        lab.detach(&[], &[PROBE, "exit", "0"]),
    ];
    let statuses: Vec<_> = all.iter().map(|one| one.ended()["exit_status"].clone()).collect();
    assert_eq!(statuses, [3, 137, 0]);
    let three = all[0].listed();
    assert_eq!((&three["pid"], &three["box_pid"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let table = lab.netbox(&["ps", "-a"]).output().expect("netbox");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.lines().any(|line| line.contains("three") && line.contains("exited 3 at 2")), "{table}");
    let living = lab.netbox(&["ps"]).output().expect("netbox");
    assert!(!String::from_utf8_lossy(&living.stdout).contains("three"), "{}", words(&living));
    // As docker ps: a filter on what has ended needs no -a.
    let listed = |filters: &[&str]| {
        let output = lab.netbox(&[&["ps"], filters].concat()).output().expect("netbox");
        assert!(output.status.success(), "{}", words(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let running = lab.detach(&["--name", "four"], &[]);
    let table = listed(&["-f", "status=exited"]);
    assert!(table.contains(" STATUS ") && table.lines().count() == 4 && !table.contains("four"), "{table}");
    assert_eq!(listed(&["-qf", "exited=3"]), format!("{}\n", all[0].id));
    assert_eq!(listed(&["-aqf", "status=running"]), format!("{}\n", running.id));
    assert_eq!(listed(&["-qf", "status=running", "-f", "exited=3"]), "");
    assert!(lab.netbox(&["rm", "-f", "four"]).status().expect("netbox").success());

    let removed = lab.netbox(&["rm", "three", "nobody"]).output().expect("netbox");
    assert_eq!(removed.status.code(), Some(125), "{}", words(&removed));
    assert!(
        String::from_utf8_lossy(&removed.stderr).contains("there is no box nobody"),
        "{}",
        words(&removed)
    );
    assert_eq!(lab.listed().len(), 2);
    let living = lab.detach(&[], &[]);
    let removed = lab.netbox(&["rm", "--all"]).output().expect("netbox");
    assert!(removed.status.success(), "{}", words(&removed));
    assert_eq!(lab.listed().len(), 1);
    assert_eq!(living.listed()["status"], "running");
}

/// R2.
fn a_detached_box_can_be_waited_for_before_and_after_its_end() {
    let lab = lab();
    let one = lab.detach(&["--name", "web"], &[PROBE, "sleep"]);
    let mut waiting = lab.netbox(&["wait", "web"]).spawn().expect("netbox");
    // It has nothing else to listen to than the box.
    while !crate::lab::running(NETBOX).contains(&waiting.id()) {
        std::thread::yield_now();
    }
    send(one.process("pid"), Signal::SIGTERM);
    assert_eq!(waiting.wait().expect("netbox").code(), Some(143));
    let again = lab.netbox(&["wait", "web"]).output().expect("netbox");
    assert_eq!(again.status.code(), Some(143), "{}", words(&again));
}

/// By a run in the foreground too, and by --dry-run.
fn a_name_of_an_ended_box_is_not_given_again() {
    let lab = lab();
    let one = lab.detach(&["--name", "web"], &[PROBE, "exit", "0"]);
    one.ended();
    for way in [&["run", "-d"][..], &["run"], &["run", "--dry-run"]] {
        let again = lab
            .netbox(&[way, &["--name", "web", "--", PROBE, "exit", "0"]].concat())
            .output()
            .expect("netbox");
        assert_eq!(again.status.code(), Some(125), "{way:?}: {}", words(&again));
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(said.contains(&one.id) && said.contains("netbox rm web"), "{said}");
    }
    assert!(lab.netbox(&["rm", "web"]).status().expect("netbox").success());
    let again = lab.run(&["--name", "web"], &["exit", "0"]);
    assert!(again.status.success(), "{}", words(&again));
}

fn a_box_that_lives_is_forgotten_by_force_alone() {
    let lab = lab();
    let one = lab.detach(&["--name", "web", "-p", "8080:80"], &[PROBE, "sleep"]);
    let refused = lab.netbox(&["rm", "web"]).output().expect("netbox");
    assert_eq!(refused.status.code(), Some(125), "{}", words(&refused));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("rm -f web"), "{}", words(&refused));
    assert_eq!(one.listed()["status"], "running");
    let removed = lab.netbox(&["rm", "-f", "web"]).output().expect("netbox");
    assert!(removed.status.success(), "{}", words(&removed));
    // L1.
    TcpListener::bind("0.0.0.0:8080").expect("the port is free");
    assert!(lab.listed().is_empty());
    let foreground = lab.start(&["--name", "web"], &["sleep"]);
    let removed = lab.netbox(&["rm", "-f", "web"]).output().expect("netbox");
    assert!(removed.status.success(), "{}", words(&removed));
    let mut foreground = foreground;
    assert_eq!(foreground.wait().code(), Some(137));
}

fn a_box_with_rm_is_forgotten_when_it_ends() {
    let lab = lab();
    let one = lab.detach(&["--rm", "--name", "web"], &[PROBE, "sleep"]);
    assert_eq!(one.listed()["status"], "running");
    send(one.process("pid"), Signal::SIGTERM);
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while !lab.listed().is_empty() {
        assert!(std::time::Instant::now() < end, "{:?}", lab.listed());
    }
    let again = lab.run(&["--name", "web"], &["exit", "0"]);
    assert!(again.status.success(), "{}", words(&again));
    // Also where it ends before anybody could have looked, or prints more than a file's worth meanwhile.
    for command in ["exit 0", "head -c 12000000 /dev/zero"] {
        for _ in 0..10 {
            let output =
                lab.netbox(&["run", "-d", "--rm", "--", "/bin/sh", "-c", command]).output().expect("netbox");
            assert!(output.status.success() && output.stderr.is_empty(), "{}", words(&output));
        }
    }
    wait_until_all_are_gone();
    assert_eq!(fs::read_dir("/var/lib/netbox/0/boxes").expect("a directory").count(), 0);
}

/// Waits until no process of netbox's is left but what this test started in the foreground, which is none.
fn wait_until_all_are_gone() {
    [NETBOX, PROBE].iter().for_each(|program| crate::lab::wait_for_end_of(program, 0));
}

/// L2: by whoever is left, or by the next netbox.
fn whoever_of_a_detached_box_is_killed_its_end_is_noted() {
    let lab = lab();
    let (launcher, keeper, first) = ("launcher", "keeper", "first");
    for options in [&["-p", "8080:80"][..], &["-p", "8080:80", "--unshare-pid"]] {
        for (victims, status) in [
            (&[launcher][..], Some(137)),
            (&[keeper], Some(125)),
            (&[first], Some(137)),
            (&[launcher, keeper], None),
            (&[keeper, first], Some(125)),
            (&[launcher, first], Some(137)),
            (&[launcher, keeper, first], None),
        ] {
            let one = lab.detach(&[&["--name", "web"], options].concat(), &[PROBE, "sleep"]);
            let pids =
                [(launcher, one.process("pid")), (keeper, one.keeper()), (first, one.process("box_pid"))];
            kill_at_once(&pids, victims);
            wait_until_all_are_gone();
            let gc = lab.netbox(&["gc"]).output().expect("netbox");
            assert!(gc.status.success(), "{victims:?}: {}", words(&gc));
            let listed = one.ended();
            assert_eq!(listed["exit_status"].as_u64(), status, "{victims:?}: {listed}");
            assert!(lab.netbox(&["rm", "web"]).status().expect("netbox").success());
            lab.assert_clean_within(Duration::from_secs(5));
            assert_rm(&lab, options, victims, &pids.map(|(who, _)| who));
        }
    }
}

/// A box that is to be forgotten is, whoever is killed.
fn assert_rm(lab: &Lab, options: &[&str], victims: &[&str], roles: &[&'static str; 3]) {
    let one = lab.detach(&[&["--rm"], options].concat(), &[PROBE, "sleep"]);
    let pids = [one.process("pid"), one.keeper(), one.process("box_pid")];
    let pids = [(roles[0], pids[0]), (roles[1], pids[1]), (roles[2], pids[2])];
    kill_at_once(&pids, victims);
    wait_until_all_are_gone();
    assert!(lab.netbox(&["gc"]).status().expect("netbox").success());
    assert!(lab.listed().is_empty(), "{victims:?}: {:?}", lab.listed());
}

/// Stopped first, so that none sees another die before its own turn. The launcher last: at its end the kernel continues the
/// keeper, whose process group is an orphan's then and has a stopped member (setpgid(2)).
fn kill_at_once(pids: &[(&str, u32)], victims: &[&str]) {
    let all = pids.iter().filter(|(who, _)| victims.contains(who));
    all.clone().filter(|(who, _)| *who != "first").for_each(|(_, pid)| send(*pid, Signal::SIGSTOP));
    all.rev().for_each(|(_, pid)| send(*pid, Signal::SIGKILL));
}

/// A reboot takes the state directory and every process.
fn a_box_that_a_reboot_ended_is_listed_as_lost() {
    let lab = lab();
    // Without the gateway: what is left of that on the host, a reboot takes too.
    let one = lab.detach(&["--net", "none", "--name", "web"], &[PROBE, "sleep"]);
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !one.logs(&[]).stdout.starts_with(b"ready ") {
        assert!(std::time::Instant::now() < end, "{}", words(&one.logs(&[])));
    }
    let pids = [("a", one.process("pid")), ("b", one.keeper())];
    kill_at_once(&pids, &["a", "b"]);
    wait_until_all_are_gone();
    fs::remove_dir_all("/run/netbox").expect("the state directory");
    let listed = one.listed();
    assert_eq!((&listed["status"], &listed["name"]), (&"exited".into(), &"web".into()));
    assert!(listed["exit_status"].is_null() && listed["ended"].is_null(), "{listed}");
    let table = lab.netbox(&["ps", "-a"]).output().expect("netbox");
    assert!(String::from_utf8_lossy(&table.stdout).contains("  lost  "), "{}", words(&table));
    let logs = one.logs(&["-f"]);
    assert!(logs.status.success() && logs.stdout.starts_with(b"ready "), "{}", words(&logs));
    assert!(lab.netbox(&["rm", "web"]).status().expect("netbox").success());
    assert!(!Path::new("/run/netbox/0").exists() && lab.listed().is_empty());
}

/// L2: nobody would know its id.
fn a_caller_that_goes_away_before_the_command_runs_leaves_no_box() {
    let lab = lab();
    // The start waits for the run lock, which is held here.
    let other = lab.detach(&[], &[]);
    let host =
        fs::read_dir("/run/netbox/0").expect("a directory").flatten().next().expect("the host's").path();
    let lock = File::open(host.join("lock")).expect("the run lock");
    lock.lock().expect("the run lock");
    let mut caller = lab.netbox(&["run", "-d", "--", PROBE, "sleep"]).spawn().expect("netbox");
    let before = 3;
    // Caller, launcher, keeper and first process.
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while crate::lab::running(NETBOX).len() < before + 4 {
        assert!(std::time::Instant::now() < end, "{:?}", crate::lab::running(NETBOX));
    }
    send(caller.id(), Signal::SIGINT);
    assert!(caller.wait().is_ok());
    // The launcher has seen it too: else the command may still run, and then is known to have ended.
    while crate::lab::running(NETBOX).len() > before + 2 {
        assert!(std::time::Instant::now() < end, "{:?}", crate::lab::running(NETBOX));
    }
    lock.unlock().expect("the run lock");
    crate::lab::wait_for_end_of(NETBOX, before);
    assert_eq!(lab.listed().len(), 1);
    assert_eq!(other.listed()["status"], "running");
}

/// With a name that is taken there, too.
fn boxes_of_another_network_namespace_are_left_alone() {
    let lab = lab();
    let own = lab.detach(&["--name", "web"], &[]);
    let elsewhere = |arguments: &[&str]| lab.client(|| lab.netbox(arguments).output().expect("netbox"));
    let other = elsewhere(&["run", "-d", "--net", "none", "--name", "web"]);
    assert!(other.status.success(), "{}", words(&other));
    let other = String::from_utf8_lossy(&other.stdout).trim_end().to_owned();
    assert_eq!(lab.listed().len(), 1);
    for arguments in [&["rm", &other][..], &["rm", "-f", &other], &["logs", &other], &["wait", &other]] {
        let refused = lab.netbox(arguments).output().expect("netbox");
        assert_eq!(refused.status.code(), Some(125), "{arguments:?}: {}", words(&refused));
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("another network namespace"),
            "{}",
            words(&refused)
        );
    }
    assert!(lab.netbox(&["rm", "--all"]).status().expect("netbox").success());
    let listed = elsewhere(&["ps", "-a", "--json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&other), "{}", words(&listed));
    let removed = elsewhere(&["rm", "-f", "web"]);
    assert!(removed.status.success(), "{}", words(&removed));
    assert_eq!(own.listed()["status"], "running");
}

/// Also when the launcher's other descriptors have long been closed.
fn the_status_of_a_detached_box_is_told_to_its_end() {
    let lab = lab();
    let script = format!("exec {NETBOX} run -d --json-status-fd 7 -- {PROBE} exit 3 7>/run/lab/status");
    let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{}", words(&output));
    let one = lab.adopt(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    one.ended();
    wait_until_all_are_gone();
    let told = fs::read_to_string("/run/lab/status").expect("the status");
    fs::remove_file("/run/lab/status").expect("the status");
    let lines: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert_eq!((&lines[0]["event"], &lines[0]["id"]), (&"started".into(), &one.id.as_str().into()));
    assert_eq!(lines[1], serde_json::json!({"event": "exited", "status": 3}));
}
