//! Live tests: what only a kernel can say. Each runs in the lab (`tests/support/lab`), needs nothing but
//! Rust, and names the promise (docs/security.md) that it is about.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a test program is for people")]

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::Signal;

#[path = "../support/lab/mod.rs"]
mod lab;
#[path = "../support/tracer/mod.rs"]
mod tracer;

mod addresses;
mod connected;
mod connections;
mod control;
mod detach;
mod egress;
mod ending;
mod exec;
mod fail;
mod following;
mod from;
mod host_changes;
mod host_ports;
mod inspection;
mod interference;
mod ipv6;
mod isolation;
mod joined;
mod kill;
mod leaving;
mod limits;
mod logs;
mod machines;
mod names;
mod namespaces;
mod netns;
mod networks;
mod networks6;
mod port_changes;
mod ports;
mod privileges;
mod process;
mod publish;
mod publish_all;
mod status;
mod terminal;
mod the_lab;

/// A shell without job control starts what is in its background with SIGINT and SIGQUIT ignored, and then every program below
/// ignores them: tests are not to depend on who started them.
fn begin_with_default_signals() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    if ignored & (bit(Signal::SIGINT) | bit(Signal::SIGQUIT)) != 0 {
        let program = std::env::current_exe().expect("this program");
        let mut again = Command::new("env");
        again.arg("--default-signal=INT,QUIT").arg(program).args(std::env::args_os().skip(1));
        panic!("env: {}", again.exec());
    }
}

fn main() -> std::process::ExitCode {
    begin_with_default_signals();
    lab::main(&[
        the_lab::TESTS,
        egress::TESTS,
        isolation::TESTS,
        publish::TESTS,
        publish_all::TESTS,
        names::TESTS,
        host_ports::TESTS,
        netns::TESTS,
        joined::TESTS,
        ports::TESTS,
        port_changes::TESTS,
        process::TESTS,
        privileges::TESTS,
        namespaces::TESTS,
        exec::TESTS,
        terminal::TESTS,
        limits::TESTS,
        status::TESTS,
        detach::TESTS,
        logs::TESTS,
        leaving::TESTS,
        interference::TESTS,
        ipv6::TESTS,
        addresses::TESTS,
        from::TESTS,
        host_changes::TESTS,
        connections::TESTS,
        control::TESTS,
        inspection::TESTS,
        following::TESTS,
        ending::TESTS,
        machines::TESTS,
        networks::TESTS,
        networks6::TESTS,
        connected::TESTS,
        kill::TESTS,
        fail::TESTS,
    ])
}
