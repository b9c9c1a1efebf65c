//! Every step fails once. `NETBOX_KILL=all` tries every call with every error, else a choice.

use std::time::Duration;

use nix::errno::Errno;

use crate::lab::live_tests;
use crate::tracer::trial::{
    COMMAND_STATUS, CleanBy, EXPORTED, Start, Verdict, World, forget_detached, is_one_of, whole,
};
use crate::tracer::{Call, Deed, Point, Role, Side};

live_tests![
    within Duration::from_secs(3600);
    every_step_of_the_keeper_fails,
    every_step_of_the_keeper_fails_beside_another_box,
    every_step_of_the_keeper_fails_with_chosen_addresses,
    every_step_of_the_keeper_fails_with_a_network_that_has_a_name,
    every_step_of_the_keepers_threads_fails,
    every_step_of_the_keeper_fails_in_a_network,
    every_step_of_the_launcher_fails,
    every_step_of_the_first_process_fails,
    every_step_of_the_init_fails,
    every_step_of_the_process_below_the_init_fails,
    every_step_of_the_keeper_fails_with_a_user_namespace,
    every_step_of_the_first_process_fails_in_a_user_namespace,
    every_step_of_a_detached_start_fails,
];

const ERRORS: [Errno; 4] = [Errno::ENOMEM, Errno::EPERM, Errno::EEXIST, Errno::ENOBUFS];

/// What can fail on a machine in trouble. The rest asks for what a process always gets.
const STEPS: &[&str] = &[
    "bind",
    "capset",
    "clone",
    "clone3",
    "close_range",
    "connect",
    "dup2",
    "flock",
    "fork",
    "fstat",
    "fstatfs",
    "getrandom",
    "getsockname",
    "ioctl",
    "listen",
    "madvise",
    "mkdir",
    "mkdirat",
    "mmap",
    "mount",
    "move_mount",
    "open",
    "open_tree",
    "openat",
    "openat2",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "poll",
    "prctl",
    "read",
    "recvfrom",
    "recvmsg",
    "renameat",
    "sendmsg",
    "sendto",
    "set_robust_list",
    "setgroups",
    "setns",
    "setpgid",
    "setresgid",
    "setresuid",
    "setsockopt",
    "signalfd4",
    "socket",
    "socketpair",
    "unlinkat",
    "unshare",
    "write",
];

/// Memory, which every program dies of, is left out: what is mapped must be a file.
fn is_a_step(call: &Call) -> bool {
    let (name_fits, file) = (is_one_of(call, STEPS), call.fifth & 0xffff_ffff != 0xffff_ffff);
    // The C and the Rust runtime do these before main, and abort where they fail.
    let of_the_runtime = call.role == Role::Launcher && is_one_of(call, &["poll", "mmap", "prctl"]);
    name_fits && !of_the_runtime && (!is_one_of(call, &["mmap"]) || file)
}

/// Netbox's own failure, which says what it could not do; or the command's status, and a line at most.
fn failed_as_promised(verdict: &Verdict) -> Result<(), String> {
    let said = verdict.stderr.trim();
    match verdict.traced.status {
        125 if said.starts_with("netbox: ") && said.contains("cannot") => Ok(()),
        // It could not even tell the launcher, for whom it is dead then.
        125 if said.starts_with("netbox: the keeper of this box was killed") => Ok(()),
        125 => Err("the message does not name the step".to_owned()),
        COMMAND_STATUS if said.lines().count() <= 1 => Ok(()),
        COMMAND_STATUS => Err("more than a line on standard error".to_owned()),
        status => Err(format!("status {status}")),
    }
}

fn fail(start: Start, role: Role, step: usize) {
    fail_in(World::new(start), role, step);
}

fn fail_in(mut world: World, role: Role, step: usize) {
    fail_role(&mut world, role, step);
    world.end();
}

fn fail_role(world: &mut World, role: Role, step: usize) {
    fail_each(world, role, step, CleanBy::ItselfOrTheNextIfEnded, failed_as_promised);
}

fn fail_each(
    world: &mut World,
    role: Role,
    step: usize,
    clean_by: CleanBy,
    judge: fn(&Verdict) -> Result<(), String>,
) {
    let own: Vec<Call> = world.calls().into_iter().filter(|call| call.role == role).collect();
    // What the launcher did before it was netbox is the harness's.
    let started =
        own.iter().take_while(|_| role == Role::Launcher).filter(|call| is_one_of(call, &["execve"]));
    let started = started.map(|call| call.nth).max().unwrap_or(0);
    let calls: Vec<Call> = own.into_iter().filter(|call| call.nth > started && is_a_step(call)).collect();
    let step = if whole() { 1 } else { step };
    for (index, call) in calls.iter().enumerate().step_by(step) {
        let point = Point { role, nth: call.nth, side: Side::Entry };
        let which = index / step % ERRORS.len();
        let errors = if whole() { &ERRORS[..] } else { &ERRORS[which..=which] };
        for errno in errors {
            world.strike(point, Deed::Fail(*errno, call.number), clean_by, judge);
        }
    }
}

/// Set-up stops at the first error and undoes; take-down never stops at one.
fn every_step_of_the_keeper_fails() {
    fail(Start::NoGateway, Role::Keeper, 1);
}

fn every_step_of_the_keeper_fails_beside_another_box() {
    fail(Start::BesideAnother, Role::Keeper, 2);
}

fn every_step_of_the_keeper_fails_with_chosen_addresses() {
    let options = &["--ip", "10.77.130.20", "--pool", "10.77.128.0/18", "--snat", "198.51.100.1"];
    fail_in(World::with(Start::NoGateway, options), Role::Keeper, 3);
}

fn every_step_of_the_keeper_fails_with_a_network_that_has_a_name() {
    fail_in(World::with(Start::NoGateway, &[EXPORTED]), Role::Keeper, 5);
}

fn every_step_of_the_keepers_threads_fails() {
    fail(Start::NoGateway, Role::Thread, 1);
}

fn every_step_of_the_keeper_fails_in_a_network() {
    let options = &["--net", "db:ip=10.9.0.7,ip6=fd09::8:7,mac=02:00:5e:00:00:07"];
    fail_in(World::with(Start::BesideAnother, options), Role::Keeper, 3);
}

fn every_step_of_the_launcher_fails() {
    fail(Start::NoGateway, Role::Launcher, 1);
}

fn every_step_of_the_first_process_fails() {
    fail(Start::NoGateway, Role::First, 3);
}

fn every_step_of_the_init_fails() {
    fail_in(World::with(Start::NoGateway, &["--unshare-pid"]), Role::First, 1);
}

fn every_step_of_the_process_below_the_init_fails() {
    fail_in(World::with(Start::NoGateway, &["--unshare-pid"]), Role::Below, 3);
}

/// What `--cap-add` beyond the default makes of a box.
const OWN_USERS: &[&str] = &["--cap-add", "NET_ADMIN", "--unshare-pid"];

fn every_step_of_the_keeper_fails_with_a_user_namespace() {
    fail_in(World::with(Start::NoGateway, OWN_USERS), Role::Keeper, 5);
}

fn every_step_of_the_first_process_fails_in_a_user_namespace() {
    let mut world = World::with(Start::NoGateway, OWN_USERS);
    fail_role(&mut world, Role::First, 3);
    fail_role(&mut world, Role::Below, 3);
    world.end();
}

/// The id of a box that is known then, or netbox's own failure, and nothing: but where the failure was in what came after the
/// command's start.
fn failed_or_started(verdict: &Verdict) -> Result<(), String> {
    let (said, known) = (verdict.stderr.trim(), forget_detached()?);
    match (verdict.traced.status, &known[..]) {
        (0, [_]) if said.lines().count() <= 1 => Ok(()),
        (125, [] | [_]) if said.starts_with("netbox: ") => Ok(()),
        (status, _) => Err(format!("status {status}, known {known:?}")),
    }
}

fn every_step_of_a_detached_start_fails() {
    let mut world = World::with(Start::NoGateway, &["-d", "--name", "struck"]);
    // One off: what waits for the start, the launcher, the keeper, the first process.
    for (role, step) in [(Role::Launcher, 1), (Role::Keeper, 2), (Role::First, 9), (Role::Below, 13)] {
        fail_each(&mut world, role, step, CleanBy::TheNext, failed_or_started);
    }
    world.end();
}
