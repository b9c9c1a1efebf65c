//! Boxes with more namespaces of their own: `--unshare-…`, `--hostname`.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::lab::{Lab, Shape, live_tests, send, words};

live_tests![
    a_box_with_pids_of_its_own_sees_no_others,
    its_init_has_no_privileges_and_cannot_be_killed_or_traced,
    its_init_buries_orphans,
    its_init_passes_signals_on,
    everything_ends_with_its_init,
    a_box_on_the_hosts_network_may_have_namespaces_too,
    a_host_name_is_the_boxs_alone,
    a_wrong_host_name_is_wrong_usage,
    ipc_objects_are_the_boxs_alone,
    later_mounts_of_the_host_appear_unless_kept_out,
    all_namespaces_at_once_also_for_a_user,
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `netbox run OPTIONS -- /bin/sh -c SCRIPT`
fn shell(lab: &Lab, options: &[&str], script: &str) -> Output {
    lab.netbox(&[&["run"], options, &["--", "/bin/sh", "-c", script]].concat()).output().expect("netbox")
}

/// /proc is that of the namespace: the init, the command, and what it starts.
fn a_box_with_pids_of_its_own_sees_no_others() {
    let lab = lab();
    let said = text(&shell(&lab, &["--unshare-pid"], "echo $$ $PPID /proc/[0-9]*"));
    assert_eq!(said, "2 1 /proc/1 /proc/2\n");
    let bare = text(&shell(&lab, &[], "echo $$ $PPID"));
    assert_ne!(bare, "2 1\n");
}

/// I5: whoever took it over would have nothing more than the command has.
fn its_init_has_no_privileges_and_cannot_be_killed_or_traced() {
    let lab = lab();
    let status = text(&shell(&lab, &["--unshare-pid"], "kill -9 1; kill -STOP 1; cat /proc/1/status"));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{set} in {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("State:\tS"), "{status}");
    // As ptrace(2) decides, so does /proc (PTRACE_MODE_READ).
    let said = text(&shell(
        &lab,
        &["--unshare-pid"],
        "readlink /proc/1/ns/net /proc/1/root; readlink /proc/2/ns/net",
    ));
    assert_eq!(said.lines().count(), 1, "{said}");
    // Only the box's own namespaces are there to be had.
    let running = lab.start(&["--unshare-pid"], &["sleep"]);
    let command = outside(2);
    for kind in ["net", "mnt", "pid"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(of(parent_of(command)), of(command), "{kind}");
        assert_ne!(of(command), of(std::process::id()), "{kind}");
    }
    drop(running);
}

/// The one process of the lab whose number in its own namespace is `inner`, in a namespace below the lab's.
fn outside(inner: u32) -> u32 {
    let inner = inner.to_string();
    let is_it = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let numbers: Vec<_> = numbers.split_whitespace().collect();
        numbers.len() == 2 && numbers[1] == inner
    };
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let mut found = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_it);
    let pid = found.next().expect("a process with that number");
    assert_eq!(found.next(), None);
    pid
}

fn parent_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).expect("its parent");
    line.parse().expect("a number")
}

/// No zombie is left, though their parents never wait.
fn its_init_buries_orphans() {
    let lab = lab();
    let script = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 3' &) & done; wait; \
                  while cat /proc/[0-9]*/stat 2>/dev/null | grep -q ') Z '; do :; done; echo clean";
    assert_eq!(text(&shell(&lab, &["--unshare-pid"], script)), "clean\n");
}

/// R3: `kill 1` means the command, as in a container.
fn its_init_passes_signals_on() {
    let lab = lab();
    let script = "trap 'echo heard; exit 9' USR1; sleep 1000 & kill -USR1 1; wait";
    let output = shell(&lab, &["--unshare-pid"], script);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(9), &b"heard\n"[..]), "{}", words(&output));
}

/// L1, L2: a daemon in a session of its own that ignores what can be ignored, however the box ends.
fn everything_ends_with_its_init() {
    let lab = lab();
    let script = "setsid /bin/sh -c 'trap \"\" TERM HUP INT; echo ready $$ -; exec sleep 1000' & \
                  sleep 1000";
    let start =
        || lab.start_command(&mut lab.netbox(&["run", "--unshare-pid", "--", "/bin/sh", "-c", script]));
    let gone = || {
        let end = Instant::now() + Duration::from_secs(1);
        while !lab.difference().is_empty() {
            assert!(Instant::now() < end, "{}", lab.difference());
        }
    };
    // The launcher; the init; the keeper.
    let mut running_box = start();
    send(running_box.launcher(), Signal::SIGKILL);
    running_box.wait();
    gone();
    let mut running_box = start();
    send(outside(1), Signal::SIGKILL);
    assert_eq!(running_box.wait().code(), Some(137));
    gone();
    let mut running_box = start();
    send(parent_of(outside(1)), Signal::SIGKILL);
    assert_eq!(running_box.wait().code(), Some(125));
    gone();
    assert_eq!(start().end().code(), Some(143));
}

/// `--net host` shares the network alone.
fn a_box_on_the_hosts_network_may_have_namespaces_too() {
    let lab = lab();
    let all = ["--net", "host", "--unshare-pid", "--unshare-mount", "--unshare-ipc", "--hostname", "inside"];
    let said = text(&shell(&lab, &all, "echo $$; readlink /proc/self/ns/net; hostname"));
    let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
    assert_eq!(said, format!("2\n{}\ninside\n", own.display()));
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name")
}

/// `--hostname` implies its namespace.
fn a_host_name_is_the_boxs_alone() {
    let lab = lab();
    let before = hostname();
    let script = "cat /proc/sys/kernel/hostname";
    assert_eq!(text(&shell(&lab, &["--hostname", "web-1.example.org"], script)), "web-1.example.org\n");
    assert_eq!(text(&shell(&lab, &["--unshare-uts"], script)), before);
    assert_eq!(hostname(), before);
}

/// R2.
fn a_wrong_host_name_is_wrong_usage() {
    let lab = lab();
    let output = shell(&lab, &["--hostname", "a_b"], "true");
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
}

/// System V objects and, where the host has them mounted, message queues.
fn ipc_objects_are_the_boxs_alone() {
    let lab = Lab::before(Shape::OwnLan, || {
        if fs::exists("/dev/mqueue").unwrap_or(false) {
            mount(Some("mqueue"), "/dev/mqueue", Some("mqueue"), MsFlags::empty(), None::<&str>)
                .expect("the lab's own message queues");
        }
    });
    let script = "readlink /proc/self/ns/ipc; ls /dev/mqueue 2>/dev/null; true";
    let has_queues = fs::write("/dev/mqueue/hosts", "").is_ok();
    let own = fs::read_link("/proc/self/ns/ipc").expect("a namespace").display().to_string();
    let shared = text(&shell(&lab, &[], script));
    assert_eq!(shared, if has_queues { format!("{own}\nhosts\n") } else { format!("{own}\n") });
    let apart = text(&shell(&lab, &["--unshare-ipc"], script));
    assert!(!apart.contains(&own) && apart.lines().count() == 1, "{apart}");
    if has_queues {
        fs::remove_file("/dev/mqueue/hosts").expect("the queue");
    }
}

/// Propagation: from the host to the box by default, never back.
fn later_mounts_of_the_host_appear_unless_kept_out() {
    let none: Option<&str> = None;
    let lab = Lab::before(Shape::OwnLan, || {
        fs::create_dir("/run/later").expect("a directory");
        mount(none, "/run", none, MsFlags::MS_SHARED, none).expect("a shared mount");
    });
    let (shared, apart) = (lab.start(&[], &["sleep"]), lab.start(&["--unshare-mount"], &["sleep"]));
    mount(Some("later"), "/run/later", Some("tmpfs"), MsFlags::empty(), none).expect("a mount");
    let sees = |pid: u32| {
        fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts").contains(" /run/later ")
    };
    assert!(sees(shared.pid) && !sees(apart.pid));
    umount2("/run/later", MntFlags::MNT_DETACH).expect("to unmount");
    drop((shared, apart));
}

/// I5, with -u; the command is an ordinary user's all the same.
fn all_namespaces_at_once_also_for_a_user() {
    let Some(lab) = crate::privileges::lab_with_a_user() else { return };
    let all = [
        "--unshare-pid",
        "--unshare-mount",
        "--unshare-uts",
        "--unshare-ipc",
        "--hostname",
        "x",
        "-u",
        "tester",
    ];
    let said = text(&shell(
        &lab,
        &all,
        "id -u; echo $$; cat /proc/sys/kernel/hostname; kill -9 1 && echo killed; ps -A | wc -l; true",
    ));
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("12345"), "{said}");
    assert_eq!((lines.next(), lines.next()), (Some("2"), Some("x")), "{said}");
}
