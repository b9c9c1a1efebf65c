//! Further commands in living boxes: `netbox exec`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::lab::{Lab, NETBOX, PROBE, RunningBox, Shape, live_tests, running, send, wait_until, words};
use crate::privileges::lab_with_a_user;

live_tests![
    a_further_command_is_in_all_of_the_boxs_namespaces,
    a_further_command_has_the_rights_of_the_boxs_own,
    a_user_asked_for_has_no_more_rights_than_the_box,
    a_further_command_behaves_as_if_started_bare,
    a_further_commands_status_is_netboxs,
    a_further_command_has_the_boxs_variables,
    a_further_command_starts_where_its_caller_is,
    signals_reach_a_further_command_once,
    a_further_command_ends_with_its_launcher_or_its_supervisor,
    what_a_further_command_leaves_is_killed,
    who_is_not_answered_by_the_keeper_does_not_wait_for_ever,
    a_further_command_ends_with_the_box,
    a_box_can_neither_trace_nor_read_who_joins_it,
    only_living_boxes_are_joined,
    a_box_whose_command_has_left_its_mounts_is_not_joined,
    a_command_runs_in_every_box_in_turn,
];

/// What a box runs that others join. Its program is not the probe, so that every probe is a further command's.
const MEMBER: &str = "echo ready $$ -; exec sleep 1000";

/// Boxes with few and with many namespaces of their own.
const KINDS: [&[&str]; 5] = [
    &[],
    &["--unshare-pid", "--unshare-ipc", "--unshare-mount", "--hostname", "inside"],
    &["--net", "none"],
    &["--net", "host", "--unshare-pid"],
    &["--unshare-pid", "--cap-add", "NET_ADMIN"],
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

/// A box called `t`.
fn member(lab: &Lab, options: &[&str]) -> RunningBox {
    lab.start_command(
        &mut lab.netbox(&[&["run", "--name", "t"], options, &["--", "sh", "-c", MEMBER]].concat()),
    )
}

/// `netbox exec OPTIONS t -- probe WORDS`, not yet started.
fn exec(lab: &Lab, options: &[&str], words: &[&str]) -> Command {
    lab.netbox(&[&["exec"], options, &["t", "--", PROBE], words].concat())
}

fn shell(lab: &Lab, options: &[&str], script: &str) -> Output {
    lab.netbox(&[&["exec"], options, &["t", "--", "sh", "-c", script]].concat()).output().expect("netbox")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The command of the only box, as it is called here.
fn command_of_box(lab: &Lab) -> u32 {
    let listed = text(&lab.netbox(&["ps", "--json"]).output().expect("netbox"));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    u32::try_from(listed[0]["box_pid"].as_u64().expect("its command")).expect("a process")
}

/// I1, I2: the fence is that of the box.
fn a_further_command_is_in_all_of_the_boxs_namespaces() {
    let lab = lab();
    for options in KINDS {
        let in_box = member(&lab, options);
        let command = command_of_box(&lab);
        let names = ["net", "mnt", "pid", "uts", "ipc", "user"];
        let own = names.map(|name| {
            let link = fs::read_link(format!("/proc/{command}/ns/{name}")).expect("a namespace");
            link.to_string_lossy().into_owned() + "\n"
        });
        let script = names.map(|name| format!("readlink /proc/self/ns/{name};")).concat();
        assert_eq!(text(&shell(&lab, &[], &script)), own.concat(), "{options:?}");
        in_box.end();
    }
}

/// What a process may do, and who it is.
fn rights(status: &str) -> Vec<&str> {
    let names =
        ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"];
    let found: Vec<_> =
        status.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
    assert_eq!(found.len(), names.len(), "{status}");
    found
}

fn compare_rights(lab: &Lab, options: &[&str]) {
    let in_box = member(lab, options);
    let own = fs::read_to_string(format!("/proc/{}/status", command_of_box(lab))).expect("its status");
    let further = text(&exec(lab, &[], &["status"]).output().expect("netbox"));
    assert_eq!(rights(&further), rights(&own), "{options:?}");
    in_box.end();
}

/// I5: user, groups, every set of capabilities, and no_new_privs.
fn a_further_command_has_the_rights_of_the_boxs_own() {
    let Some(lab) = lab_with_a_user() else { return };
    for options in [
        &[][..],
        &["--cap-drop", "CHOWN", "--cap-drop", "SETUID"],
        &["--cap-drop", "ALL"],
        &["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--unshare-pid"],
        &["--allow-new-privs"],
        &["-u", "tester"],
        &["-u", "tester", "--unshare-pid", "--allow-new-privs"],
    ] {
        compare_rights(&lab, options);
    }
}

/// I5: no capability for another user, and no root where the box has none.
fn a_user_asked_for_has_no_more_rights_than_the_box() {
    let Some(lab) = lab_with_a_user() else { return };
    let of_root = member(&lab, &[]);
    let status = text(&exec(&lab, &["-u", "tester"], &["status"]).output().expect("netbox"));
    let bare = text(&lab.run(&["-u", "tester"], &["status"]));
    assert_eq!(rights(&status), rights(&bare));
    let environment = text(&exec(&lab, &["-u", "tester"], &["environment"]).output().expect("netbox"));
    assert!(environment.split('\0').any(|entry| entry == "HOME=/run/lab"), "{environment:?}");
    of_root.end();
    let of_user = member(&lab, &["-u", "tester"]);
    let output = exec(&lab, &["-u", "root"], &["status"]).output().expect("netbox");
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    assert!(words(&output).contains("nothing in it can be root"), "{}", words(&output));
    of_user.end();
}

/// R1: arguments byte for byte, standard input, and no descriptor but the standard ones.
fn a_further_command_behaves_as_if_started_bare() {
    let lab = lab();
    let file = File::open("/proc/self/status").expect("a file");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("an inheritable descriptor");
    for options in [&[][..], &["--unshare-pid"]] {
        let in_box = member(&lab, options);
        let given: Vec<_> = [&b"--"[..], b"", b"-u", b"a b", b"new\nline", b"\xff\xfe", b"$HOME", b"--help"]
            .map(|bytes| OsString::from_vec(bytes.to_vec()))
            .into();
        let output = exec(&lab, &[], &["arguments"]).args(&given).output().expect("netbox");
        let expected: Vec<u8> = given.iter().flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
        assert_eq!(output.stdout, expected, "{}", words(&output));
        assert_eq!(output.stderr, b"");
        let mut child =
            exec(&lab, &[], &["stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("netbox");
        child.stdin.take().expect("piped").write_all(b"all of \0 it").expect("to write");
        assert_eq!(child.wait_with_output().expect("its end").stdout, b"all of \0 it");
        let said = text(&exec(&lab, &[], &["descriptors"]).output().expect("netbox"));
        let lines = said.lines().filter(|line| !line.ends_with("/fd"));
        let numbers: Vec<_> = lines.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(numbers, ["0", "1", "2"], "{said}");
        in_box.end();
    }
}

/// R2.
fn a_further_commands_status_is_netboxs() {
    let lab = lab();
    for options in [&[][..], &["--unshare-pid"]] {
        let in_box = member(&lab, options);
        let status = |words: &[&str]| {
            let arguments = [&["exec", "t", "--"], words].concat();
            lab.netbox(&arguments).output().expect("netbox").status.code()
        };
        assert_eq!(status(&[PROBE, "exit", "42"]), Some(42));
        assert_eq!(status(&[PROBE, "raise", "SIGKILL"]), Some(137));
        assert_eq!(status(&[PROBE, "raise", "SIGTERM"]), Some(143));
        assert_eq!(status(&["/nowhere"]), Some(127));
        assert_eq!(status(&["nowhere"]), Some(127));
        assert_eq!(status(&["/etc/passwd"]), Some(126));
        in_box.end();
    }
    let wrong = lab.netbox(&["exec", "t"]).output().expect("netbox");
    assert_eq!(wrong.status.code(), Some(2), "{}", words(&wrong));
}

/// R1: `NETBOX_*` are the box's, the rest is the caller's but for what was asked for.
fn a_further_command_has_the_boxs_variables() {
    let lab = lab();
    let in_box = member(&lab, &[]);
    // Empty while it is executed.
    let mut own = Vec::new();
    wait_until("it runs", || {
        own = fs::read(format!("/proc/{}/environ", in_box.pid)).expect("its environment");
        !own.is_empty()
    });
    let own: Vec<_> = own.split(|byte| *byte == 0).filter(|entry| entry.starts_with(b"NETBOX_")).collect();
    assert!(own.len() >= 4, "{own:?}");
    let mut command = exec(&lab, &["-e", "A=1", "-e", "B"], &["environment"]);
    command.env("B", "2").env("C", "3").env("NETBOX_ID", "wrong");
    let output = command.output().expect("netbox");
    let said: Vec<_> = output.stdout.split(|byte| *byte == 0).collect();
    for expected in own.into_iter().chain([&b"A=1"[..], b"B=2", b"C=3"]) {
        assert!(said.contains(&expected), "{:?}: {}", String::from_utf8_lossy(expected), words(&output));
    }
    let cleared =
        text(&exec(&lab, &["--clear-env"], &["environment"]).env("C", "3").output().expect("netbox"));
    assert!(!cleared.contains("C=3") && cleared.contains("NETBOX_NAME=t\0"), "{cleared:?}");
    in_box.end();
}

/// R1: by the name that it has, where its user may enter it; else at the root, and that is said.
fn a_further_command_starts_where_its_caller_is() {
    let Some(lab) = lab_with_a_user() else { return };
    let in_box = member(&lab, &["--unshare-mount"]);
    let at = |directory: &str, options: &[&str]| {
        exec(&lab, options, &["directory"]).current_dir(directory).output().expect("netbox")
    };
    assert_eq!(text(&at("/run", &[])), "/run\n");
    assert_eq!(text(&at("/run", &["-w", "/proc"])), "/proc\n");
    let missing = at("/", &["-w", "/nowhere"]);
    assert_eq!(missing.status.code(), Some(125), "{}", words(&missing));
    let closed = "/run/lab/closed";
    fs::create_dir(closed).expect("a directory");
    fs::set_permissions(closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("to close it");
    let outside = at(closed, &["-u", "tester"]);
    assert_eq!(text(&outside), "/\n");
    assert!(words(&outside).contains(closed), "{}", words(&outside));
    let refused = at("/", &["-u", "tester", "-w", closed]);
    assert_eq!(refused.status.code(), Some(125), "{}", words(&refused));
    fs::remove_dir(closed).expect("to remove it");
    in_box.end();
}

/// R3: to the launcher, and to its process group.
fn signals_reach_a_further_command_once() {
    const SENT: [Signal; 4] = [Signal::SIGUSR1, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
    let lab = lab();
    for options in [&[][..], &["--unshare-pid"]] {
        let in_box = member(&lab, options);
        for to_group in [false, true] {
            let mut command = exec(&lab, &[], &["signals", "SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM"]);
            command.process_group(0);
            let mut further = lab.start_command(&mut command);
            let launcher = Pid::from_raw(further.launcher().cast_signed());
            let mut seen = Vec::new();
            for signal in SENT.into_iter().chain([Signal::SIGUSR2]) {
                if to_group {
                    killpg(launcher, signal).expect("a group")
                } else {
                    further.signal(signal)
                }
                let mut line = String::new();
                further.stdout.read_line(&mut line).expect("a line");
                seen.push(line.trim().to_owned());
            }
            assert_eq!(seen, ["SIGUSR1", "SIGHUP", "SIGINT", "SIGTERM", "SIGUSR2"]);
            assert_eq!(further.wait().code(), Some(0));
        }
        in_box.end();
    }
}

/// A further command, and a daemon of its own that ignores what can be ignored.
fn with_a_daemon(lab: &Lab) -> RunningBox {
    let script = format!(
        "(setsid sh -c 'trap \"\" TERM HUP INT; exec {PROBE} sleep' &) >/dev/null 2>&1; \
         until [ -e /proc/self ]; do :; done; echo ready $$ -; exec {PROBE} sleep"
    );
    let further = lab.start_command(&mut lab.netbox(&["exec", "t", "--", "sh", "-c", &script]));
    wait_until("both run", || running(PROBE).len() == 2);
    further
}

/// Its only child.
fn child_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
    children.trim().parse().expect("one child")
}

/// L2: with all that it left, and the box goes on.
fn a_further_command_ends_with_its_launcher_or_its_supervisor() {
    let lab = lab();
    for options in [&[][..], &["--unshare-pid"], &["--unshare-pid", "--cap-add", "NET_ADMIN"]] {
        let mut in_box = member(&lab, options);
        for victim in ["launcher", "supervisor", "both", "stopped launcher"] {
            let mut further = with_a_daemon(&lab);
            let launcher = further.launcher();
            match victim {
                "launcher" => send(launcher, Signal::SIGKILL),
                "supervisor" => send(child_of(launcher), Signal::SIGKILL),
                "both" => {
                    let both = [child_of(launcher), launcher];
                    both.into_iter().for_each(|pid| send(pid, Signal::SIGSTOP));
                    both.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
                }
                _ => {
                    send(launcher, Signal::SIGSTOP);
                    send(launcher, Signal::SIGKILL);
                }
            }
            wait_until("all of it is gone", || running(PROBE).is_empty());
            let status = further.wait();
            assert_eq!(status.code(), (victim == "supervisor").then_some(125), "{victim}");
        }
        in_box.signal(Signal::SIGTERM);
        assert_eq!(in_box.wait().code(), Some(143), "{options:?}");
    }
}

/// The `pids/WHO` of the box.
fn process_of_box(lab: &Lab, who: &str) -> u32 {
    let format = format!("--format=/0/pids/{who}");
    let printed = text(&lab.netbox(&["inspect", &format, "t"]).output().expect("netbox"));
    printed.trim().parse().expect("a process")
}

/// L2: nor does anything of it stay when its launcher is killed meanwhile.
fn who_is_not_answered_by_the_keeper_does_not_wait_for_ever() {
    let lab = lab();
    let in_box = member(&lab, &[]);
    // From now on the keeper listens.
    text(&shell(&lab, &[], ":"));
    let keeper = process_of_box(&lab, "keeper");
    send(keeper, Signal::SIGSTOP);
    let mut waiting = exec(&lab, &[], &["sleep"]).spawn().expect("netbox");
    wait_until("it waits for the keeper", || running(NETBOX).len() == 5);
    waiting.kill().expect("a signal");
    wait_until("all of it is gone", || running(NETBOX).len() == 2);
    waiting.wait().expect("an end");
    let output = exec(&lab, &[], &["sleep"]).output().expect("netbox");
    let expected = "netbox: cannot reach the keeper of box t: it does not answer\nhint: ";
    assert!(words(&output).contains(expected), "{}", words(&output));
    assert_eq!(output.status.code(), Some(125));
    send(keeper, Signal::SIGCONT);
    assert_eq!(text(&shell(&lab, &[], "echo well")), "well\n");
    in_box.end();
}

/// L1: what it left in the background is gone when netbox returns.
fn what_a_further_command_leaves_is_killed() {
    let lab = lab();
    for options in [&[][..], &["--unshare-pid"]] {
        let in_box = member(&lab, options);
        let output = exec(&lab, &[], &["leave-a-child"]).output().expect("netbox");
        assert_eq!(output.status.code(), Some(7), "{}", words(&output));
        assert_eq!(running(PROBE), Vec::<u32>::new());
        in_box.end();
    }
}

/// L1: its status is that of a command that was killed.
fn a_further_command_ends_with_the_box() {
    let lab = lab();
    for options in [&[][..], &["--unshare-pid"], &["--net", "host"]] {
        for stopped in [false, true] {
            let mut in_box = member(&lab, options);
            let mut further = with_a_daemon(&lab);
            if stopped {
                send(further.launcher(), Signal::SIGSTOP);
            }
            in_box.signal(Signal::SIGTERM);
            assert_eq!(in_box.wait().code(), Some(143));
            assert_eq!(running(PROBE), Vec::<u32>::new(), "{options:?}");
            if stopped {
                send(further.launcher(), Signal::SIGCONT);
            }
            assert_eq!(further.wait().code(), Some(137), "{options:?}");
        }
    }
}

/// I5: neither the warden, which stays, nor what becomes the command.
fn a_box_can_neither_trace_nor_read_who_joins_it() {
    let Some(lab) = lab_with_a_user() else { return };
    for user in [&["-u", "root"][..], &["-u", "tester"]] {
        let in_box = member(&lab, &[user, &["--unshare-pid"]].concat());
        let further = lab.start_command(&mut exec(&lab, &[], &["sleep"]));
        // 1 is the init, 2 the box's command.
        let script = "for p in /proc/[0-9]*; do case $p in */1|*/2|*/$$) ;; *) \
                      if tr '\\0' ' ' <$p/cmdline | grep -q '^/run/lab/netbox '; then \
                      readlink $p/exe $p/root $p/ns/net $p/fd/*; \
                      grep -E 'Cap(Prm|Eff|Bnd)' $p/status | sort -u | grep -v 0000000000000000; echo seen; fi;; esac; done";
        let output = shell(&lab, &[], script);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The one above the probe, and the one above this shell.
        assert_eq!(said, "seen\nseen\n", "{}", words(&output));
        further.end();
        in_box.end();
    }
}

fn a_box_whose_command_has_left_its_mounts_is_not_joined() {
    let lab = lab();
    let script = "echo ready $$ -; exec unshare -m sleep 1000";
    let options = ["run", "--name", "t", "--cap-add", "SYS_ADMIN", "--", "sh", "-c", script];
    let in_box = lab.start_command(&mut lab.netbox(&options));
    let refusal =
        "netbox: cannot enter box t: its command is not in the mount namespace that it was started in\n";
    wait_until("it is refused", || {
        let output = exec(&lab, &[], &["exit", "0"]).output().expect("netbox");
        output.status.code() == Some(125) && output.stderr == refusal.as_bytes()
    });
    in_box.end();
}

/// L3: one that has ended, or is none, is not; and nothing is started.
fn only_living_boxes_are_joined() {
    let lab = lab();
    let none = exec(&lab, &[], &["exit", "0"]).output().expect("netbox");
    assert_eq!(none.status.code(), Some(125), "{}", words(&none));
    assert!(words(&none).contains("there is no box t"), "{}", words(&none));
    let in_box = member(&lab, &[]);
    in_box.end();
    let ended = exec(&lab, &[], &["exit", "0"]).output().expect("netbox");
    assert_eq!(ended.status.code(), Some(125), "{}", words(&ended));
    // A killed box leaves its record to the next run.
    let mut killed = member(&lab, &[]);
    for pid in running(NETBOX) {
        send(pid, Signal::SIGSTOP);
    }
    for pid in running(NETBOX) {
        send(pid, Signal::SIGKILL);
    }
    killed.wait();
    let dead = exec(&lab, &[], &["exit", "0"]).output().expect("netbox");
    assert_eq!(dead.status.code(), Some(125), "{}", words(&dead));
    assert!(lab.netbox(&["gc"]).status().expect("netbox").success());
}

/// Each is named on standard error, a failure ends nothing, and the first one is the status.
fn a_command_runs_in_every_box_in_turn() {
    let lab = lab();
    let all =
        |script: &str| lab.netbox(&["exec", "--all", "--", "sh", "-c", script]).output().expect("netbox");
    assert_eq!(text(&all("echo none")), "");
    let boxes: Vec<_> =
        ["one", "two", "three"].into_iter().map(|name| lab.start(&["--name", name], &["sleep"])).collect();
    let output =
        all("echo $NETBOX_NAME; test $NETBOX_NAME != two || exit 3; test $NETBOX_NAME != three || exit 4");
    assert_eq!(output.stdout, b"one\ntwo\nthree\n", "{}", words(&output));
    assert_eq!(output.stderr, b"netbox: box one\nnetbox: box two\nnetbox: box three\n");
    assert_eq!(output.status.code(), Some(3));
    let interrupted = all("echo $NETBOX_NAME; kill -INT $$");
    assert_eq!((&interrupted.stdout[..], interrupted.status.code()), (&b"one\n"[..], Some(130)));
    for in_box in boxes {
        in_box.end();
    }
}
