//! What a run is held to: `--timeout`, `--keep-fd`.

use std::fs;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::lab::{Lab, NETBOX, PROBE, RunningBox, Shape, live_tests, words};

live_tests![
    a_command_that_runs_too_long_is_124,
    a_command_that_is_stopped_is_ended_in_time,
    a_command_that_ignores_everything_is_killed_in_time,
    a_stopped_launcher_does_not_stop_the_clock,
    a_command_that_ends_in_time_has_its_own_status,
    a_descriptor_asked_for_is_passed_on_and_not_held,
    a_descriptor_that_is_not_open_is_an_error,
];

fn lab() -> Lab {
    Lab::new(Shape::OwnLan)
}

fn shell(lab: &Lab, options: &[&str], script: &str) -> Output {
    lab.netbox(&[&["run"], options, &["--", "/bin/sh", "-c", script]].concat()).output().expect("netbox")
}

const PIDS: [&[&str]; 2] = [&[], &["--unshare-pid"]];

/// R2: though it ends with another status when asked to.
fn a_command_that_runs_too_long_is_124() {
    let lab = lab();
    for options in PIDS {
        let options = [options, &["--timeout", "200ms"]].concat();
        let began = Instant::now();
        let output = shell(&lab, &options, "trap 'exit 7' TERM; sleep 1000 & wait");
        let took = began.elapsed();
        assert_eq!(output.status.code(), Some(124), "{}", words(&output));
        assert!(output.stderr.is_empty(), "{}", words(&output));
        assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(4), "{took:?}");
    }
}

/// R2: and the launcher, which stopped with it, sees that.
fn a_command_that_is_stopped_is_ended_in_time() {
    let lab = lab();
    for options in PIDS {
        let options = [options, &["--timeout", "300ms"]].concat();
        let began = Instant::now();
        let output = shell(&lab, &options, "kill -STOP $$; sleep 1000");
        assert_eq!(output.status.code(), Some(124), "{}", words(&output));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

/// R2: five seconds after it was asked.
fn a_command_that_ignores_everything_is_killed_in_time() {
    let lab = lab();
    let began = Instant::now();
    let script = "trap '' TERM INT HUP QUIT; sleep 1000";
    let output = shell(&lab, &["--timeout", "200ms"], script);
    assert_eq!(output.status.code(), Some(124), "{}", words(&output));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(5200) && took < Duration::from_secs(9), "{took:?}");
}

/// The box dies in time though nobody can be told.
fn a_stopped_launcher_does_not_stop_the_clock() {
    let lab = lab();
    let mut running = lab.start(&["--timeout", "500ms"], &["sleep"]);
    running.signal(Signal::SIGSTOP);
    wait_for_end_of_output(&mut running);
    running.signal(Signal::SIGCONT);
    assert_eq!(running.wait().code(), Some(124));
}

fn wait_for_end_of_output(running: &mut RunningBox) {
    running.stdout.read_to_end(&mut Vec::new()).expect("the end of the command's output");
}

/// R2.
fn a_command_that_ends_in_time_has_its_own_status() {
    let lab = lab();
    let output = lab.run(&["--timeout", "1h"], &["exit", "3"]);
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
    for wrong in ["0", "0s", "x", ""] {
        let output = lab.run(&["--timeout", wrong], &["exit", "0"]);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", words(&output));
    }
}

/// I5: and the command alone has it. When it closes it, whoever reads the other end sees that.
fn a_descriptor_asked_for_is_passed_on_and_not_held() {
    let lab = lab();
    let pipe = "/run/lab/pipe";
    nix::unistd::mkfifo(pipe, Mode::S_IRWXU).expect("a pipe");
    for options in PIDS.map(|options| options.join(" ")) {
        let script = format!(
            "exec 5>{pipe} 6>/dev/null; exec {NETBOX} run {options} --keep-fd 5 -- /bin/sh -c \
             'test ! -e /proc/self/fd/6 && echo kept >&5; exec 5>&-; exec {PROBE} sleep'"
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).stdin(Stdio::null()).env_remove("SUDO_UID");
        let reading = std::thread::spawn(move || fs::read_to_string(pipe).expect("what the command wrote"));
        let running = lab.start_command(&mut command);
        // To its end, while the box lives.
        assert_eq!(reading.join().expect("the reader"), "kept\n");
        assert_eq!(running.end().code(), Some(143));
    }
    fs::remove_file(pipe).expect("the pipe");
}

/// Before anything is changed.
fn a_descriptor_that_is_not_open_is_an_error() {
    let lab = lab();
    let output = shell(&lab, &["--keep-fd", "77"], "true");
    assert_eq!(output.status.code(), Some(125), "{}", words(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("77") && said.contains("not open"), "{said}");
    let harmless = shell(&lab, &["--keep-fd", "0", "--keep-fd", "2"], "exit 3");
    assert_eq!(harmless.status.code(), Some(3), "{}", words(&harmless));
}
