//! What the command may do.

use std::ffi::CStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::lab::{Lab, NETBOX, PROBE, Service, Shape, links, live_tests, probe, words};

live_tests![
    roots_command_has_few_capabilities_and_no_way_to_more,
    a_box_cannot_make_boxes,
    under_sudo_the_command_is_the_user_who_called,
    a_user_asked_for_is_the_commands_user,
    another_user_has_no_keys_of_the_callers,
    a_box_that_may_configure_its_network_configures_no_other,
    a_box_that_may_configure_its_network_still_reaches_nobody,
    what_is_mounted_below_the_settings_is_no_obstacle_and_protected,
    capabilities_are_added_and_taken_as_asked,
    what_cannot_be_added_is_refused_before_anything_is_changed,
    set_user_id_programs_work_where_they_may,
    an_ordinary_user_has_no_boxes_beside_those_of_root,
];

/// Docker's default capabilities less `NET_RAW` (13) and `MKNOD` (27): capabilities(7), bits 0, 1, 3–8,
/// 10, 18, 29, 31.
const ROOTS: u64 = 0xa004_05fb;

const TESTER: u32 = 12345;
const EXTRA_GROUP: u32 = 12399;

/// A line of `/proc/self/status` in the box.
fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect()
}

fn capabilities(status: &str, name: &str) -> u64 {
    u64::from_str_radix(field(status, name)[0], 16).expect("a set of capabilities")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// I5: root without the capabilities is told so, and changes nothing.
fn a_box_cannot_make_boxes() {
    let lab = Lab::new(Shape::OwnLan);
    let output =
        lab.netbox(&["run", "--", NETBOX, "run", "--", PROBE, "exit", "0"]).output().expect("netbox");
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CAP_SYS_ADMIN"), "{}", words(&output));
}

/// I5: called by root itself.
fn roots_command_has_few_capabilities_and_no_way_to_more() {
    let lab = Lab::new(Shape::OwnLan);
    let status = text(&lab.run(&[], &["status"]));
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(capabilities(&status, set), ROOTS, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(capabilities(&status, set) & !ROOTS, 0, "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), ["1"]);
    assert_eq!(field(&status, "Uid"), ["0"; 4]);
}

/// A lab with a user `tester`, or the reason why there is none.
pub(crate) fn lab_with_a_user() -> Option<Lab> {
    let map = fs::read_to_string("/proc/self/uid_map").expect("the user map");
    let covered = map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (first, count) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
        (first..first + count).contains(&u64::from(EXTRA_GROUP)) && first <= u64::from(TESTER)
    });
    if !covered {
        let reason = "an ordinary user's namespace has one user: changing users can be tested as root only";
        assert!(std::env::var("NETBOX_LIVE").as_deref() != Ok("required"), "{reason}");
        println!("not tested: {reason}");
        return None;
    }
    Some(Lab::before(Shape::OwnLan, || {
        fs::create_dir("/run/lab/etc").expect("a directory");
        let passwd =
            format!("root:x:0:0:root:/root:/bin/sh\ntester:x:{TESTER}:{TESTER}::/run/lab:/bin/false\n");
        let group = format!("root:x:0:\ntester:x:{TESTER}:\nextra:x:{EXTRA_GROUP}:tester\n");
        for (name, content) in [("passwd", passwd), ("group", group)] {
            let own = format!("/run/lab/etc/{name}");
            fs::write(&own, content).expect("a file");
            let none: Option<&str> = None;
            mount(Some(own.as_str()), format!("/etc/{name}").as_str(), none, MsFlags::MS_BIND, none)
                .expect("a mount");
        }
    }))
}

fn assert_is_tester(status: &str) {
    let user = TESTER.to_string();
    assert_eq!(field(status, "Uid"), [user.as_str(); 4]);
    assert_eq!(field(status, "Gid"), [user.as_str(); 4]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(capabilities(status, set), 0, "{set}");
    }
    assert_eq!(field(status, "NoNewPrivs"), ["1"]);
    let groups = field(status, "Groups");
    assert!(groups.contains(&EXTRA_GROUP.to_string().as_str()), "{groups:?}");
    assert!(!groups.contains(&"0"), "root's group is left: {groups:?}");
}

fn assert_lives_as_tester(environment: &str) {
    for expected in ["HOME=/run/lab", "USER=tester", "LOGNAME=tester", "SHELL=/bin/false"] {
        assert!(environment.split('\0').any(|line| line == expected), "{expected} in {environment:?}");
    }
}

/// I5, R1: its ids, its groups, its HOME, USER, LOGNAME and SHELL, and no capability.
fn under_sudo_the_command_is_the_user_who_called() {
    let Some(lab) = lab_with_a_user() else { return };
    let run = |word| {
        let mut command = lab.run_command(&[], &[word]);
        command
            .env("SUDO_UID", TESTER.to_string())
            .env("SUDO_GID", TESTER.to_string())
            .env("SUDO_USER", "tester");
        text(&command.output().expect("netbox can be started"))
    };
    assert_is_tester(&run("status"));
    assert_lives_as_tester(&run("environment"));
}

/// I5: `-u USER`, by name and by number.
fn a_user_asked_for_is_the_commands_user() {
    let Some(lab) = lab_with_a_user() else { return };
    assert_is_tester(&text(&lab.run(&["-u", "tester"], &["status"])));
    assert_is_tester(&text(&lab.run(&["-u", &TESTER.to_string()], &["status"])));
    assert_lives_as_tester(&text(&lab.run(&["-u", "tester"], &["environment"])));
}

/// I5: what root's session holds is not possessed by another user, and by root as if started bare.
fn another_user_has_no_keys_of_the_callers() {
    let Some(lab) = lab_with_a_user() else { return };
    let keys = |options: &[&str]| {
        let mut command = lab.run_command(options, &["cat", "/proc/keys"]);
        let join = || join_session_keyring(c"netbox-lab");
        // SAFETY: a system call is all that happens between fork and exec.
        let command = unsafe { command.pre_exec(join) };
        text(&command.output().expect("netbox can be started"))
    };
    assert!(keys(&[]).contains("netbox-lab"));
    let others = keys(&["-u", "tester"]);
    assert!(!others.contains("netbox-lab"), "{others}");
}

fn join_session_keyring(name: &CStr) -> std::io::Result<()> {
    // SAFETY: keyctl(2) reads a string that ends with a NUL.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(joined).map(drop).map_err(Into::into)
}

/// What the kernel says to who may not (EPERM).
const NOT_ALLOWED: &str = "1";
/// And of a process's namespaces to who may not trace it (EACCES).
const NOT_SHOWN: &str = "13";

/// I1, I2, I5: NET_ADMIN is over the box's own namespaces. Its link stays, and nothing appears elsewhere.
fn a_box_that_may_configure_its_network_configures_no_other() {
    let lab = Lab::new(Shape::OwnLan);
    let own = std::process::id().to_string();
    for more in [&[][..], &["--cap-add", "SYS_ADMIN"], &["--cap-add", "ALL"]] {
        let options = [&["--cap-add", "NET_ADMIN", "--cap-add", "cap_net_raw"], more].concat();
        let said = text(&lab.run(&options, &["escape", &own]));
        let outcomes: Vec<_> = said.lines().filter_map(|line| line.split_once(": ")).collect();
        let expected = [
            ("an address", "done"),
            ("a packet socket", "done"),
            ("its link to the host", NOT_ALLOWED),
            ("its link to the gateway", NOT_ALLOWED),
            ("a link on the host", NOT_ALLOWED),
            ("a link in the gateway", NOT_ALLOWED),
            ("the host's network", NOT_SHOWN),
        ];
        assert_eq!(outcomes, expected, "{options:?}");
    }
}

/// I1, I2: neither the host nor another box, and under no address but its own.
fn a_box_that_may_configure_its_network_still_reaches_nobody() {
    let lab = Lab::new(Shape::OwnLan);
    let host = SocketAddr::from((crate::lab::HOST, 9999));
    let service = Service::tcp(lab.host_place(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9999)));
    let other = lab.start(&[], &["listen", "tcp", "0.0.0.0:80"]);
    let options = ["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    for to in [host, SocketAddr::from((other.address, 80))] {
        let outcome = crate::lab::outcome(&lab.run(&options, &["tcp", &to.to_string()]));
        assert!(outcome.refused(), "{to}: {outcome}");
    }
    assert_eq!(service.visits(), 0);
    let wan = SocketAddr::from((crate::lab::WAN, crate::lab::ECHO));
    assert!(crate::lab::outcome(&lab.run(&options, &["tcp", &wan.to_string()])).reached());
    // The link, its address and its neighbours are the box's to change; what the gateway takes from it is not.
    let spoofer = lab.start(&options, &["sleep"]);
    let stranger = Ipv4Addr::new(198, 51, 100, 77);
    spoofer.inside(|| {
        links::address("eth0", stranger.into(), 32);
        let socket = UdpSocket::bind((stranger, 0)).expect("an address of this namespace");
        socket.send_to(b"spoofed", wan).expect("to send");
        assert!(probe::udp(wan).reached(), "by the same way, later: the honest one arrives");
    });
    assert_eq!(lab.wan_udp.visits(), 1, "{:?}", lab.wan_udp.visitors());
}

/// I5: systemd mounts binfmt_misc there.
fn what_is_mounted_below_the_settings_is_no_obstacle_and_protected() {
    const BELOW: &str = "/proc/sys/vm";
    let lab = Lab::new(Shape::OwnLan);
    mount(Some("tmpfs"), BELOW, Some("tmpfs"), MsFlags::empty(), Some("mode=777")).expect("to mount");
    let script = format!("test -d {BELOW} && ! touch {BELOW}/new && ! echo 1 >/proc/sys/net/ipv4/ip_forward");
    let run = |options: &[&str]| {
        let arguments = [&["run"], options, &["--", "sh", "-c", &script]].concat();
        lab.netbox(&arguments).output().expect("netbox can be started")
    };
    for options in [&[][..], &["--cap-add", "NET_ADMIN"], &["--unshare-pid"]] {
        let output = run(options);
        assert!(output.status.success(), "{options:?}: {}", words(&output));
    }
    // The kernel has no new /proc for a user namespace that sees an old one in part.
    let output = run(&["--cap-add", "NET_ADMIN", "--unshare-pid"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(words(&output).contains("cannot mount a /proc for the box's processes"), "{}", words(&output));
    umount2(BELOW, MntFlags::empty()).expect("to unmount it");
}

/// I5: the sets of the command, and nothing but what was asked for.
fn capabilities_are_added_and_taken_as_asked() {
    let lab = Lab::new(Shape::OwnLan);
    const KILL: u64 = 1 << 5;
    const NET_ADMIN: u64 = 1 << 12;
    for (options, expected) in [
        (&["--cap-drop", "ALL"][..], 0),
        (&["--cap-drop", "kill"], ROOTS & !KILL),
        (&["--cap-add", "NET_ADMIN"], ROOTS | NET_ADMIN),
        (&["--cap-drop", "ALL", "--cap-add", "CAP_NET_ADMIN"], NET_ADMIN),
        (&["--unshare-pid", "--cap-add", "NET_ADMIN"], ROOTS | NET_ADMIN),
    ] {
        let status = text(&lab.run(options, &["status"]));
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(capabilities(&status, set), expected, "{options:?} {set}");
        }
        assert_eq!(capabilities(&status, "CapInh") | capabilities(&status, "CapAmb"), 0, "{options:?}");
        assert_eq!((field(&status, "Uid"), field(&status, "NoNewPrivs")), (vec!["0"; 4], vec!["1"]));
    }
}

/// I5.
fn what_cannot_be_added_is_refused_before_anything_is_changed() {
    let Some(lab) = lab_with_a_user() else { return };
    for (options, status, words_of_it) in [
        (&["-u", "tester", "--cap-add", "NET_ADMIN"][..], 125, ["CAP_NET_ADMIN", "12345"]),
        (&["--cap-add", "NET_ADMN"], 2, ["NET_ADMN", "capabilit"]),
        (&["--cap-add", "KILL", "--cap-drop", "KILL"], 2, ["--cap-add", "--cap-drop"]),
    ] {
        let output = lab.run(options, &["exit", "0"]);
        assert_eq!(output.status.code(), Some(status), "{options:?}: {}", words(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words_of_it.iter().all(|word| said.contains(word)), "{options:?}: {said}");
    }
}

/// I5: with `--allow-new-privs`, and then they are root with a box of root's capabilities.
fn set_user_id_programs_work_where_they_may() {
    let Some(lab) = lab_with_a_user() else { return };
    let none: Option<&str> = None;
    fs::create_dir("/run/suid").expect("a directory");
    mount(Some("suid"), "/run/suid", Some("tmpfs"), MsFlags::empty(), none).expect("a mount");
    fs::copy(PROBE, "/run/suid/probe").expect("a program");
    fs::set_permissions("/run/suid/probe", fs::Permissions::from_mode(0o4755)).expect("set-user-id");
    let status = |options: &[&str]| {
        let arguments = [&["run", "-u", "tester"], options, &["--", "/run/suid/probe", "status"]].concat();
        text(&lab.netbox(&arguments).output().expect("netbox"))
    };
    let user = TESTER.to_string();
    let held_back = status(&[]);
    assert_eq!(field(&held_back, "Uid"), [user.as_str(); 4]);
    for options in [&["--allow-new-privs"][..], &["--allow-new-privs", "--unshare-pid"]] {
        let raised = status(options);
        assert_eq!(field(&raised, "Uid"), [user.as_str(), "0", "0", "0"]);
        assert_eq!(capabilities(&raised, "CapEff"), ROOTS, "{options:?}");
        assert_eq!(field(&raised, "NoNewPrivs"), ["0"]);
    }
    let limited = status(&["--allow-new-privs", "--cap-drop", "ALL"]);
    assert_eq!(capabilities(&limited, "CapEff"), 0);
    umount2("/run/suid", MntFlags::MNT_DETACH).expect("to unmount");
    fs::remove_dir("/run/suid").expect("the directory");
}

/// Nor is told to remove what is root's.
fn an_ordinary_user_has_no_boxes_beside_those_of_root() {
    let Some(lab) = lab_with_a_user() else { return };
    let started = lab.netbox(&["run", "-d", "--name", "web", "--", PROBE, "sleep"]).output();
    assert!(started.expect("netbox").status.success());
    let none = "netbox: there is no box web\nhint: `netbox ps` lists the boxes\n";
    for (arguments, status, said) in [
        (&["ps", "-a", "-q"][..], 0, ""),
        (&["port", "ls"], 0, ""),
        (&["logs", "web"], 125, none),
        (&["inspect", "web"], 125, none),
        (&["rm", "-f", "web"], 125, none),
        (&["stop", "web"], 125, none),
    ] {
        let output = lab.netbox(arguments).uid(TESTER).gid(TESTER).output().expect("netbox");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", words(&output));
        assert_eq!(String::from_utf8_lossy(&output.stderr), said, "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
    }
    assert!(lab.netbox(&["rm", "-f", "web"]).output().expect("netbox").status.success());
}
