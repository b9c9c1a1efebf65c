//! Live tests: what only a kernel can say. Each runs in the lab (`tests/support/lab`), needs nothing but
//! Rust, and names the promise (docs/security.md) that it is about.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a test program is for people")]

#[path = "../support/lab/mod.rs"]
mod lab;
#[path = "../support/tracer/mod.rs"]
mod tracer;

mod addresses;
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
mod inspection;
mod interference;
mod ipv6;
mod isolation;
mod joined;
mod kill;
mod leaving;
mod limits;
mod logs;
mod names;
mod namespaces;
mod netns;
mod networks;
mod port_changes;
mod ports;
mod privileges;
mod process;
mod publish;
mod publish_all;
mod status;
mod terminal;
mod the_lab;

fn main() -> std::process::ExitCode {
    lab::main(&[
        the_lab::TESTS,
        egress::TESTS,
        isolation::TESTS,
        publish::TESTS,
        publish_all::TESTS,
        names::TESTS,
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
        networks::TESTS,
        kill::TESTS,
        fail::TESTS,
    ])
}
