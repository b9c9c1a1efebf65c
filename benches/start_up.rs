//! What starting a command in a box costs, against starting it bare, under `unshare -n`, and under the floor program.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output of a benchmark is for people")]

mod support;

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use support::host::Host;
use support::processes::{bury, cpu_of_the_dead, end, populate, settle};
use support::program::Program;
use support::report::Report;
use support::statistics::Sample;
use support::{FLOOR, Length};

const TRUE: &str = "/usr/bin/true";
const UNSHARE: &str = "/usr/bin/unshare";

/// After this nothing is left of a run, its keeper and its gateway included.
const ALL_GONE: Duration = Duration::from_millis(120);
/// Between two measured starts: the kernel has taken down the links of the one before.
const REST: Duration = Duration::from_millis(30);

/// One of the things that are compared.
struct Series {
    name: &'static str,
    program: Program,
    /// Whether a box lives on the host where it is started.
    on_warm_host: bool,
    sample: Sample,
    cpu: f64,
}

fn main() -> ExitCode {
    support::main(measure)
}

fn measure(length: Length, report: &mut Report) {
    let cold = Host::new();
    let warm = Host::new();
    let living = populate(0..1, |_| Program::netbox(&[], &[FLOOR, "--stay"]));
    thread::sleep(ALL_GONE);

    let mut series = series(report);
    interleaved(length.pick(200, 12), &mut series, &cold, &warm);
    for one in &mut series {
        if one.on_warm_host {
            warm.enter()
        } else {
            cold.enter()
        }
        one.cpu =
            cpu(&mut one.program, length.pick(100, 8), if one.on_warm_host { None } else { Some(ALL_GONE) });
    }
    let rows = series.iter().map(|one| (one.name.to_owned(), one.figures(&series))).collect();
    report.section("start to end of `true`", rows);

    let count = length.pick(500, 60);
    let part = count / 5;
    let mut rows = Vec::new();
    for (name, host, program) in [
        ("unshare -n", &warm, &mut unshare().1),
        ("floor", &warm, &mut Program::floor(&[TRUE])),
        ("netbox, a gateway lives", &warm, &mut Program::netbox(&[], &[TRUE])),
        ("netbox, no gateway before", &cold, &mut Program::netbox(&[], &[TRUE])),
    ] {
        host.enter();
        settle(1);
        thread::sleep(ALL_GONE);
        let sample = back_to_back(program, count);
        let (first, last) = (sample.first(part).median(), sample.last(part).median());
        let figures = vec![
            ("first_fifth_ms", first),
            ("last_fifth_ms", last),
            ("all_ms", sample.median()),
            ("p90_ms", sample.quantile(90)),
            ("last_to_first", last / first),
        ];
        if name.starts_with("netbox") {
            report.bar("C2", &format!("{name}: {count} back to back, last to first"), last / first, 1.2, "");
        }
        rows.push((name.to_owned(), figures));
    }
    report.section("back to back", rows);
    warm.enter();
    settle(1);
    end(&living);
    settle(0);
    bars(&series, report);
}

fn series(report: &mut Report) -> Vec<Series> {
    let (which, unshare) = unshare();
    report.note("unshare -n", which);
    let one = |name, program, on_warm_host| Series {
        name,
        program,
        on_warm_host,
        sample: Sample::default(),
        cpu: 0.0,
    };
    vec![
        one("true", Program::new(TRUE, &[]), true),
        one("unshare -n", unshare, true),
        one("floor, exec alone", Program::floor(&["--only-exec", TRUE]), true),
        one("floor", Program::floor(&[TRUE]), true),
        one("netbox --version", Program::new(support::NETBOX, &["--version"]), true),
        one("netbox --net none", Program::netbox(&["--net", "none"], &[TRUE]), true),
        one("netbox, a gateway lives", Program::netbox(&[], &[TRUE]), true),
        one("netbox, a gateway lives, -p", Program::netbox(&["-p", "8080:80"], &[TRUE]), true),
        one("netbox, first box", Program::netbox(&[], &[TRUE]), false),
        one("netbox, first box, -p", Program::netbox(&["-p", "8080:80"], &[TRUE]), false),
    ]
}

/// util-linux's, or our own where it is not installed.
fn unshare() -> (&'static str, Program) {
    if fs::exists(UNSHARE).unwrap_or(false) {
        return ("util-linux", Program::new(UNSHARE, &["-n", TRUE]));
    }
    ("the floor program's own", Program::floor(&["--only-unshare", TRUE]))
}

/// Each series once a round, each round begun by another, so that what the machine does meanwhile hits all alike.
fn interleaved(rounds: usize, series: &mut [Series], cold: &Host, warm: &Host) {
    let mut wake_up = Program::new(TRUE, &[]);
    let mut last_cold = Instant::now();
    for round in 0..rounds {
        for turn in 0..series.len() {
            let index = (round + turn) % series.len();
            let one = &mut series[index];
            let host = if one.on_warm_host { warm } else { cold };
            host.enter();
            settle(1);
            thread::sleep(REST);
            if !one.on_warm_host {
                thread::sleep(ALL_GONE.saturating_sub(last_cold.elapsed()));
            }
            // The processors have slept: that is not to be measured.
            wake_up.run();
            one.sample.add(one.program.run());
            if !one.on_warm_host {
                last_cold = Instant::now();
            }
        }
    }
}

fn back_to_back(program: &mut Program, count: usize) -> Sample {
    let mut sample = Sample::default();
    for _ in 0..count {
        sample.add(program.run());
        bury();
    }
    sample
}

/// The CPU of a whole run, of everything that it started, in milliseconds.
fn cpu(program: &mut Program, count: u32, pause: Option<Duration>) -> f64 {
    settle(1);
    let before = cpu_of_the_dead();
    for _ in 0..count {
        program.run();
        settle(1);
        if let Some(pause) = pause {
            thread::sleep(pause);
        }
    }
    (cpu_of_the_dead() - before) / f64::from(count)
}

impl Series {
    fn figures(&self, all: &[Self]) -> Vec<(&'static str, f64)> {
        let own = self.sample.median();
        let (unshare, floor) = (median(all, "unshare -n"), median(all, "floor"));
        vec![
            ("median_ms", own),
            ("p10_ms", self.sample.quantile(10)),
            ("p90_ms", self.sample.quantile(90)),
            ("over_true", own - median(all, "true")),
            ("over_unshare", own - unshare),
            ("over_floor", own - floor),
            ("to_unshare", own / unshare),
            ("to_floor", own / floor),
            ("cpu_ms", self.cpu),
        ]
    }
}

fn median(series: &[Series], name: &str) -> f64 {
    series.iter().find(|one| one.name == name).map_or(f64::NAN, |one| one.sample.median())
}

fn bars(series: &[Series], report: &mut Report) {
    let median = |name| median(series, name);
    let cpu = |name| series.iter().find(|one| one.name == name).map_or(f64::NAN, |one| one.cpu);
    let (warm, first) = ("netbox, a gateway lives", "netbox, first box");
    let unshare = median("unshare -n");
    report.bar("C1", "a box over `unshare -n`, a gateway lives", median(warm) - unshare, 2.0, "ms");
    report.bar("C1", "the first box over `unshare -n`", median(first) - unshare, 3.5, "ms");
    for (name, with) in [(warm, "netbox, a gateway lives, -p"), (first, "netbox, first box, -p")] {
        report.bar("C1", &format!("-p 8080:80 over none: {name}"), median(with) - median(name), 1.0, "ms");
    }
    // What the command itself takes, started bare, is not netbox's.
    let own = |name| cpu(name) - cpu("true");
    report.bar("C3", "CPU of a whole run over `true`, a gateway lives", own(warm), 3.0, "ms");
    report.bar("C3", "CPU of a whole run over `true`, first box", own(first), 3.0, "ms");
}
