//! What the command may do.

use std::fs;
use std::process::Output;

use nix::mount::{MsFlags, mount};

use crate::lab::{Lab, NETBOX, PROBE, Shape, live_tests, words};

live_tests![
    roots_command_has_few_capabilities_and_no_way_to_more,
    a_box_cannot_make_boxes,
    under_sudo_the_command_is_the_user_who_called,
    a_user_asked_for_is_the_commands_user,
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
