//! What boxes cost while they live, and what one more costs beside 1, 100 and 1000 of them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a benchmark is for people")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, pipe};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};

use support::host::Host;
use support::processes::{Netbox, Resident, bury, cpu_of_the_dead, end, netboxes, populate, settle};
use support::program::Program;
use support::report::Report;
use support::statistics::Sample;
use support::{FLOOR, Length, NETBOX};

const TRUE: &str = "/usr/bin/true";

/// After this nothing is left of a box, the kernel's part included.
const ALL_GONE: Duration = Duration::from_millis(200);
/// Between two measured starts.
const REST: Duration = Duration::from_millis(30);

type Figures = Vec<(&'static str, f64)>;
type Row = (String, Figures);

fn main() -> ExitCode {
    support::main(measure)
}

fn measure(length: Length, report: &mut Report) {
    let mut starts: Vec<Row> = Vec::new();
    let mut idle: Vec<Row> = Vec::new();
    let mut commands: Vec<Row> = Vec::new();
    for count in length.pick([1, 100, 1000], [1, 10, 100]) {
        let (start, alive, command) = with_alive(count, length);
        starts.push((format!("{count} alive"), start));
        idle.push((format!("{count} alive"), alive));
        commands.push((format!("{count} alive"), command));
    }
    let figure = |rows: &[Row], row: usize, name: &str| {
        rows[row].1.iter().find(|(column, _)| *column == name).map_or(f64::NAN, |(_, value)| *value)
    };
    for row in 1..starts.len() {
        let ratio = figure(&starts, row, "difference") / figure(&starts, 0, "difference");
        let what = format!("{}: netbox less floor, off that at 1", starts[row].0);
        report.bar("C2", &what, (ratio - 1.0).abs() * 100.0, 20.0, "%");
    }
    for (row, (name, _)) in idle.iter().enumerate() {
        report.bar("C3", &format!("{name}: memory of a box"), figure(&idle, row, "pss_kib"), 2048.0, "KiB");
        for (column, when) in [("idle_cpu_us", "nothing happens"), ("busy_cpu_us", "others come and go")] {
            let what = format!("{name}: CPU of all of them in a second, {when}");
            report.bar("C3", &what, figure(&idle, row, column), 0.0, "µs");
        }
    }
    if let Some((name, figures)) = commands.last() {
        for (command, time) in figures {
            let limit = if *command == "ps_ms" { 50.0 } else { 10.0 };
            let command = command.trim_end_matches("_ms").replace('_', " ");
            report.bar("commands", &format!("{name}: netbox {command}"), *time, limit, "ms");
        }
    }
    report.section("one more box, `true`", starts);
    report.section("boxes alive", idle);
    report.section("commands that look at one box, and `ps`", commands);
    let at_once = length.pick(100, 30);
    let rows =
        [("floor", true), ("netbox", false)].map(|(name, floor)| (name.to_owned(), together(at_once, floor)));
    report.section("at once, from nothing", rows.into());
    report.note("at once", format!("{at_once} programs, none ending before all had told their address"));
}

/// What one more start costs, what those alive cost, and what commands on them do, with `count` alive.
fn with_alive(count: usize, length: Length) -> (Figures, Figures, Figures) {
    let rounds = length.pick(100, 12);
    let host = Host::new();
    host.enter();
    let (floors, floors_time) = residents(count, || Program::floor(&[FLOOR, "--stay"]));
    let (unshare_beside_floors, floor) = beside(rounds, count, &mut Program::floor(&[TRUE]));
    end(&floors);
    settle(0);
    thread::sleep(ALL_GONE);
    let (boxes, boxes_time) = residents(count, || Program::netbox(&[], &[FLOOR, "--stay"]));
    let (unshare_beside_boxes, netbox) = beside(rounds, count, &mut Program::netbox(&[], &[TRUE]));
    let start = vec![
        ("unshare_ms", unshare_beside_floors),
        ("floor_ms", floor),
        ("unshare_ms'", unshare_beside_boxes),
        ("netbox_ms", netbox),
        ("difference", netbox - floor),
        ("ratio", netbox / floor),
        ("floors_up_ms", floors_time),
        ("boxes_up_ms", boxes_time),
    ];
    let seconds = length.pick(5, 1);
    let processes = netboxes();
    let pss: f64 = processes.iter().map(|process| process.pss()).sum();
    let so_far: f64 = processes.iter().map(|process| process.cpu()).sum();
    let nothing = cpu_meanwhile(&processes, || thread::sleep(Duration::from_secs(seconds)));
    let mut other = Program::netbox(&["-p", "8080:80"], &[TRUE]);
    let others = cpu_meanwhile(&processes, || {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            other.run();
            bury();
        }
    });
    let per_second = |milliseconds: f64| milliseconds * 1e3 / Duration::from_secs(seconds).as_secs_f64();
    let each = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let alive = vec![
        ("processes", f64::from(u32::try_from(processes.len()).unwrap_or(u32::MAX)) / each),
        ("pss_kib", pss / each),
        ("cpu_so_far_ms", so_far / each),
        ("idle_cpu_us", per_second(nothing)),
        ("busy_cpu_us", per_second(others)),
    ];
    settle(count);
    let commands = commands(&boxes, length);
    end(&boxes);
    settle(0);
    thread::sleep(ALL_GONE);
    (start, alive, commands)
}

/// The median times of commands, in turns, on the box in the middle, found by the process that it runs.
fn commands(boxes: &[Resident], length: Length) -> Figures {
    let pid = boxes.get(boxes.len() / 2).expect("one box at least").command.to_string();
    let said = Command::new(NETBOX).args(["identify", &pid]).output().expect("netbox can be started").stdout;
    let name = String::from_utf8(said).expect("a name");
    let name = name.trim();
    let words: [(&str, &[&str]); 5] = [
        ("inspect_ms", &["inspect", name]),
        ("port_ls_ms", &["port", "ls", name]),
        ("pids_ms", &["pids", name]),
        ("identify_ms", &["identify", &pid]),
        ("ps_ms", &["ps"]),
    ];
    let mut programs = words.map(|(column, words)| (column, Program::new(NETBOX, words), Sample::default()));
    for _ in 0..length.pick(50, 12) {
        for (_, program, sample) in &mut programs {
            sample.add(program.run());
        }
    }
    programs.map(|(column, _, sample)| (column, sample.median())).to_vec()
}

/// Starts so many, one after the other is up, and tells how long that took in milliseconds.
fn residents(count: usize, program: impl Fn() -> Program) -> (Vec<Resident>, f64) {
    let start = Instant::now();
    let started = populate(0..count, |_| program());
    (started, start.elapsed().as_secs_f64() * 1e3)
}

/// The medians of `unshare -n` and of the program, in turns.
fn beside(rounds: usize, alive: usize, program: &mut Program) -> (f64, f64) {
    let mut bare = Program::floor(&["--only-unshare", TRUE]);
    let (mut wake_up, mut bares, mut programs) =
        (Program::new(TRUE, &[]), Sample::default(), Sample::default());
    for _ in 0..rounds {
        for (program, sample) in [(&mut bare, &mut bares), (&mut *program, &mut programs)] {
            settle(alive);
            thread::sleep(REST);
            wake_up.run();
            sample.add(program.run());
        }
    }
    settle(alive);
    (bares.median(), programs.median())
}

/// The CPU in milliseconds that these processes used while something else was done.
fn cpu_meanwhile(processes: &[Netbox], work: impl FnOnce()) -> f64 {
    let sum = || processes.iter().map(|process| process.cpu()).sum::<f64>();
    let before = sum();
    work();
    sum() - before
}

/// So many at once, from nothing: all of them live at the same time, then all end.
fn together(count: usize, floor: bool) -> Figures {
    let host = Host::new();
    host.enter();
    let (said, say) = pipe().expect("a pipe");
    let (hold, held) = pipe().expect("a pipe");
    let command = [FLOOR, "--address"];
    let program = if floor { Program::floor(&command) } else { Program::netbox(&[], &command) };
    let mut program = program.input(hold.into()).output(say.into());
    let cpu = cpu_of_the_dead();
    let start = Instant::now();
    let started: Vec<_> = (0..count).map(|_| program.start()).collect();
    drop(program);
    let told: Vec<_> =
        BufReader::new(said).lines().take(count).map(|line| line.expect("an address")).collect();
    let up = start.elapsed();
    drop(held);
    let succeeded =
        started.iter().filter(|pid| waitpid(**pid, None) == Ok(WaitStatus::Exited(**pid, 0))).count();
    let all = start.elapsed();
    settle(0);
    let addresses: BTreeSet<_> = told.iter().filter(|address| *address != "none").collect();
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    thread::sleep(ALL_GONE);
    vec![
        ("all_up_ms", up.as_secs_f64() * 1e3),
        ("all_ended_ms", all.as_secs_f64() * 1e3),
        ("succeeded", number(succeeded)),
        ("addresses", number(addresses.len())),
        ("cpu_ms_each", (cpu_of_the_dead() - cpu) / number(count)),
    ]
}
