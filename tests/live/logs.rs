//! What a detached box prints, kept and shown.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::lab::{DetachedBox, Lab, PROBE, Shape, live_tests, send, wait_until, words};

live_tests![
    output_is_kept_byte_for_byte_in_both_streams,
    the_last_lines_and_their_times_are_shown,
    a_followed_log_ends_with_its_box,
    a_log_is_followed_from_file_to_file,
    a_log_has_a_largest_size_and_keeps_the_newest,
    a_log_ends_with_the_last_words_of_a_box_that_was_killed,
    the_end_of_a_box_is_noted_on_a_full_disk,
    a_full_disk_does_not_stop_a_command,
    a_log_that_may_not_grow_does_not_end_a_command,
    a_removed_log_does_not_stop_a_command,
    a_box_in_the_foreground_has_no_log,
    a_log_is_for_its_user_alone_and_a_damaged_one_is_an_error,
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

fn shell<'l>(lab: &'l Lab, script: &str) -> DetachedBox<'l> {
    lab.detach(&[], &["/bin/sh", "-c", script])
}

/// Of a box that lives, and of one that has ended. Also where a box prints by an init, and without a newline.
fn output_is_kept_byte_for_byte_in_both_streams() {
    let lab = lab();
    fs::write("/run/lab/bytes", (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).expect("a file");
    let wanted = fs::read("/run/lab/bytes").expect("a file");
    for init in [&[][..], &["--unshare-pid"]] {
        let one =
            lab.detach(init, &["/bin/sh", "-c", "cat /run/lab/bytes; cat /run/lab/bytes >&2; printf end"]);
        one.ended();
        let output = one.logs(&[]);
        assert!(output.status.success(), "{}", output.status);
        assert!(output.stdout == [&wanted[..], b"end"].concat(), "{} bytes", output.stdout.len());
        assert!(output.stderr == wanted, "{} bytes", output.stderr.len());
    }
    let one = lab.detach(&[], &[PROBE, "sleep"]);
    let end = Instant::now() + Duration::from_secs(5);
    while !one.logs(&[]).stdout.starts_with(b"ready ") {
        assert!(Instant::now() < end, "{}", words(&one.logs(&[])));
    }
}

fn the_last_lines_and_their_times_are_shown() {
    let lab = lab();
    let one = shell(&lab, "echo one; echo two; echo three >&2");
    one.ended();
    let shown = |options: &[&str]| {
        let output = one.logs(options);
        assert!(output.status.success(), "{options:?}: {}", words(&output));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr))
    };
    for options in [&["--tail", "2"][..], &["-n", "2", "-f"], &["-fn2"]] {
        let (out, err) = shown(options);
        // Which of the streams was read first is nobody's promise.
        assert!(err.ends_with("three\n") && (out == "two\n" || out == "one\ntwo\n"), "{out:?} {err:?}");
    }
    assert_eq!(shown(&["--tail", "0"]), (String::new(), String::new()));
    assert_eq!(shown(&["--tail", "all"]), shown(&[]));
    let (out, _) = shown(&["-t"]);
    let times: Vec<_> = out.lines().map(|line| line.split_once(' ').expect("a time")).collect();
    assert_eq!(times.iter().map(|(_, line)| *line).collect::<Vec<_>>(), ["one", "two"]);
    assert!(times.iter().all(|(time, _)| humantime::parse_rfc3339(time).is_ok()), "{out}");
}

fn a_followed_log_ends_with_its_box() {
    let lab = lab();
    for rm in [&[][..], &["--rm"]] {
        let one = lab.detach(rm, &[PROBE, "signals", "SIGUSR1"]);
        let mut logs = lab.netbox(&["logs", "-f", &one.id]).stdout(Stdio::piped()).spawn().expect("netbox");
        let mut lines = BufReader::new(logs.stdout.take().expect("piped")).lines();
        assert!(lines.next().expect("a line").expect("text").starts_with("ready "));
        let launcher = one.process("pid");
        send(launcher, Signal::SIGUSR1);
        assert_eq!(lines.next().expect("a line").expect("text"), "SIGUSR1");
        // Nobody reads any more while the box says nothing: that is an end too.
        let mut other = lab.netbox(&["logs", "-f", &one.id]).stdout(Stdio::piped()).spawn().expect("netbox");
        drop(other.stdout.take());
        assert_eq!(other.wait().expect("netbox").code(), Some(141));
        send(launcher, Signal::SIGUSR2);
        assert_eq!(lines.next().expect("a line").expect("text"), "SIGUSR2");
        assert!(lines.next().is_none());
        assert!(logs.wait().expect("netbox").success());
    }
}

/// 12 MiB in lines, through two changes of the file, to a reader that keeps up.
fn a_log_is_followed_from_file_to_file() {
    let lab = lab();
    nix::unistd::mkfifo("/run/lab/go", Mode::S_IRWXU).expect("a pipe");
    let one =
        shell(&lab, "for i in 1 2 3; do cat /run/lab/go >/dev/null; head -c 4194303 /dev/zero; echo; done");
    let mut logs = lab.netbox(&["logs", "-f", &one.id]).stdout(Stdio::piped()).spawn().expect("netbox");
    let mut stdout = BufReader::new(logs.stdout.take().expect("piped"));
    for _ in 0..3 {
        fs::write("/run/lab/go", "").expect("the pipe");
        let mut line = Vec::new();
        stdout.read_until(b'\n', &mut line).expect("a line");
        assert_eq!(line.len(), 4 << 20);
    }
    assert_eq!(stdout.read_to_end(&mut Vec::new()).expect("the end"), 0);
    assert!(logs.wait().expect("netbox").success());
    fs::remove_file("/run/lab/go").expect("the pipe");
}

fn directory(one: &DetachedBox<'_>) -> PathBuf {
    Path::new("/var/lib/netbox/0/boxes").join(&one.id)
}

fn a_log_has_a_largest_size_and_keeps_the_newest() {
    let lab = lab();
    let one = shell(&lab, "head -c 25000000 /dev/zero; echo; echo the last line");
    one.ended();
    let output = one.logs(&[]);
    assert!(output.status.success(), "{}", output.status);
    assert!(output.stdout.ends_with(b"\0\nthe last line\n"));
    let sizes: Vec<_> =
        ["log", "log.1"].map(|name| fs::metadata(directory(&one).join(name)).expect("a file").len()).into();
    assert!(sizes.iter().all(|size| *size <= 5 << 20) && sizes[1] > 5_000_000, "{sizes:?}");
    assert!(output.stdout.len() > 5_000_000, "{}", output.stdout.len());
}

/// L2.
fn a_log_ends_with_the_last_words_of_a_box_that_was_killed() {
    let lab = lab();
    let one = shell(&lab, "head -c 50000 /dev/zero; kill -9 $$");
    assert_eq!(one.ended()["exit_status"], 137);
    assert_eq!(one.logs(&[]).stdout.len(), 50_000);
    // A keeper that died says so.
    let one = lab.detach(&[], &[PROBE, "sleep"]);
    let end = Instant::now() + Duration::from_secs(10);
    while one.logs(&[]).stdout.is_empty() {
        assert!(Instant::now() < end, "it prints nothing");
    }
    let launcher = one.process("pid");
    send(one.keeper(), Signal::SIGKILL);
    assert_eq!(one.ended()["exit_status"], 125);
    let mut said = one.logs(&[]);
    assert!(said.stdout.starts_with(b"ready "), "{}", words(&said));
    while Path::new(&format!("/proc/{launcher}")).exists() {
        std::thread::yield_now();
    }
    said = one.logs(&[]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("keeper"), "{}", words(&said));
}

/// R2: by the box itself, or by somebody else.
fn the_end_of_a_box_is_noted_on_a_full_disk() {
    let lab = lab();
    fs::create_dir("/var/lib/netbox").expect("a directory");
    let options = Some("size=256k,mode=755");
    mount(Some("tmpfs"), "/var/lib/netbox", Some("tmpfs"), MsFlags::empty(), options).expect("a mount");
    let one = shell(&lab, "head -c 2000000 /dev/zero; exit 5");
    assert_eq!(one.ended()["exit_status"], 5);
    drop(one);
    // Its launcher may have it open for a moment yet.
    wait_until("the file system can be unmounted", || umount("/var/lib/netbox").is_ok());
}

/// R3: the signal for it is the launcher's.
fn a_log_that_may_not_grow_does_not_end_a_command() {
    let lab = lab();
    // The first box has made the state directory, which takes longer files.
    let other = lab.start(&[], &["sleep"]);
    let run =
        lab.netbox(&["run", "-d", "--name", "web", "--", "sh", "-c", "head -c 100000 /dev/zero; exit 5"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\""]).arg(run.get_program()).args(run.get_args());
    let started = shell.output().expect("a shell");
    assert!(started.status.success(), "{}", words(&started));
    let waited = lab.netbox(&["wait", "web"]).output().expect("netbox");
    assert_eq!(waited.status.code(), Some(5), "{}", words(&waited));
    assert!(lab.netbox(&["rm", "web"]).status().expect("netbox").success());
    other.end();
}

/// What cannot be written is dropped, and that is said where it would have been.
fn a_full_disk_does_not_stop_a_command() {
    let lab = lab();
    fs::create_dir("/var/lib/netbox").expect("a directory");
    let mount_with = |flags, options| {
        mount(Some("tmpfs"), "/var/lib/netbox", Some("tmpfs"), flags, Some(options))
            .expect("a small file system");
    };
    mount_with(MsFlags::empty(), "size=256k,mode=755");
    nix::unistd::mkfifo("/run/lab/go", Mode::S_IRWXU).expect("a pipe");
    let one = shell(&lab, "echo first; head -c 2000000 /dev/zero; cat /run/lab/go; echo last; exit 5");
    // Opened when the command opens it to read: by then all that came before is in the pipe, or further.
    let go = fs::File::options().write(true).open("/run/lab/go").expect("the pipe");
    mount_with(MsFlags::MS_REMOUNT, "size=16m,mode=755");
    drop(go);
    assert_eq!(one.ended()["exit_status"], 5);
    let output = one.logs(&[]);
    assert!(
        output.stdout.starts_with(b"first\n") && output.stdout.ends_with(b"last\n"),
        "{}",
        output.stdout.len()
    );
    assert!(output.stdout.len() < 1_000_000, "{}", output.stdout.len());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A short piece may have had room between two long ones that had not.
    let gaps = said.matches("output is missing here: No space left on device").count();
    assert!((1..=5).contains(&gaps), "{said}");
    drop(one);
    wait_until("the file system can be unmounted", || umount("/var/lib/netbox").is_ok());
    fs::remove_file("/run/lab/go").expect("the pipe");
}

fn a_removed_log_does_not_stop_a_command() {
    let lab = lab();
    let pipes = ["/run/lab/first", "/run/lab/second"];
    pipes.iter().for_each(|pipe| nix::unistd::mkfifo(*pipe, Mode::S_IRWXU).expect("a pipe"));
    let one = shell(&lab, "cat /run/lab/first; head -c 12000000 /dev/zero; cat /run/lab/second");
    fs::remove_dir_all(directory(&one)).expect("its directory");
    for pipe in pipes {
        // Opened when the command reads it: the second when all that came before is printed.
        fs::write(pipe, "").expect("a pipe");
    }
    let end = Instant::now() + Duration::from_secs(5);
    while !lab.listed().is_empty() {
        assert!(Instant::now() < end, "{:?}", lab.listed());
    }
    pipes.iter().for_each(|pipe| fs::remove_file(pipe).expect("a pipe"));
}

fn a_box_in_the_foreground_has_no_log() {
    let lab = lab();
    let _one = lab.start(&["--name", "web"], &["sleep"]);
    for name in ["web", "nobody"] {
        let output = lab.netbox(&["logs", name]).output().expect("netbox");
        assert_eq!(output.status.code(), Some(125), "{}", words(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{}", words(&output));
    }
}

fn a_log_is_for_its_user_alone_and_a_damaged_one_is_an_error() {
    let lab = lab();
    let one = shell(&lab, "umask 0; echo a secret");
    one.ended();
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o7777;
    let log = directory(&one).join("log");
    assert_eq!((mode(&directory(&one)), mode(&log)), (0o700, 0o600));
    let whole = fs::read(&log).expect("the log");
    // Cut short, as by a machine that lost its power: what is whole is shown.
    fs::write(&log, [&whole[..], &whole[..whole.len() - 1]].concat()).expect("the log");
    let output = one.logs(&[]);
    assert!(output.status.success() && output.stdout == b"a secret\n", "{}", words(&output));
    fs::write(
        &log,
        [&whole[..], b"something else that is no entry, and longer than the first line of one"].concat(),
    )
    .expect("the log");
    let output = one.logs(&[]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(125), &b"a secret\n"[..]),
        "{}",
        words(&output)
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"), "{}", words(&output));
    // Nor is another's file shown.
    fs::remove_file(&log).expect("the log");
    std::os::unix::fs::symlink("/etc/passwd", &log).expect("a link");
    assert_eq!(one.logs(&[]).status.code(), Some(125));
    // A box whose record was damaged is not listed, and can be forgotten.
    fs::write(directory(&one).join("box.json"), "{").expect("the record");
    assert!(lab.listed().is_empty());
    assert!(lab.netbox(&["rm", "--all"]).status().expect("netbox").success());
    assert!(!directory(&one).exists());
}
