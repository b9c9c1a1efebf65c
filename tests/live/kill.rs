//! SIGKILL at every system call of every process of a run. `NETBOX_KILL=all` tries every point, else a choice.

use std::time::Duration;

use crate::lab::live_tests;
use crate::tracer::trial::{
    COMMAND_STATUS, CleanBy, EXPORTED, Leaves, Start, Verdict, World, forget_detached, make_again, points,
};
use crate::tracer::{Deed, Point, Role, Side};

live_tests![
    within Duration::from_secs(3600);
    the_keeper_killed_at_every_call,
    the_keeper_killed_beside_another_box,
    the_keeper_killed_at_every_call_of_its_threads,
    the_launcher_killed_at_every_call,
    the_launcher_killed_beside_another_box,
    the_first_process_killed_at_every_call,
    the_first_process_killed_beside_another_box,
    the_keeper_killed_above_an_init,
    the_init_killed_at_every_call,
    the_process_below_the_init_killed_at_every_call,
    everybody_killed_around_a_user_namespace,
    everybody_killed_with_chosen_addresses,
    everybody_killed_with_a_port_of_the_hosts,
    everybody_killed_with_a_network_that_has_a_name,
    everybody_killed_at_a_detached_start,
    everybody_killed_in_a_network,
    the_keeper_killed_that_makes_a_bridge,
    everybody_killed_in_two_networks,
    a_further_command_killed_at_every_call,
    a_further_command_killed_below_a_warden,
    a_warden_killed_at_every_call,
    the_keeper_killed_that_makes_a_network_of_several_machines,
    everybody_killed_that_makes_one_beside_another_box,
    two_or_three_killed_at_once,
    two_or_three_killed_at_once_beside_another_box,
];

/// L2: a run one of whose processes was killed ends as it would have, as one whose box was killed, or as netbox's own failure.
fn ended_as_promised(verdict: &Verdict, victims: &[Role]) -> Result<(), String> {
    let status = verdict.traced.status;
    let killed = victims.contains(&Role::Launcher);
    match status {
        137 if killed => Ok(()),
        137 if victims.contains(&Role::First) || victims.contains(&Role::Below) => Ok(()),
        // Nothing was left to be killed at: it had ended.
        COMMAND_STATUS => Ok(()),
        125 if verdict.stderr.starts_with("netbox: ") => Ok(()),
        _ => Err(format!("status {status}")),
    }
}

fn kill(world: &mut World, points: &[Point], victims: &[Role]) {
    let clean_by = if victims.len() > 1 { CleanBy::TheNext } else { CleanBy::ItselfButForTheDead };
    for point in points {
        world.strike(*point, Deed::Kill(victims), clean_by, |verdict| ended_as_promised(verdict, victims));
    }
}

fn one(start: Start, role: Role, entries: usize, exits: usize) {
    in_world(World::new(start), role, entries, exits);
}

/// What `--unshare-pid` adds, and what changes with it.
fn below_an_init(role: Role, entries: usize, exits: usize) {
    in_world(World::with(Start::NoGateway, &["--unshare-pid"]), role, entries, exits);
}

fn in_world(mut world: World, role: Role, entries: usize, exits: usize) {
    kill_role(&mut world, role, entries, exits);
    world.end();
}

fn kill_role(world: &mut World, role: Role, entries: usize, exits: usize) {
    let calls = world.calls();
    kill(world, &points(&calls, role, Side::Entry, 0, entries), &[role]);
    kill(world, &points(&calls, role, Side::Exit, 1, exits), &[role]);
}

/// L2.
fn the_keeper_killed_at_every_call() {
    one(Start::NoGateway, Role::Keeper, 1, 11);
}

/// L2.
fn the_keeper_killed_beside_another_box() {
    one(Start::BesideAnother, Role::Keeper, 3, 17);
}

/// L2.
fn the_keeper_killed_at_every_call_of_its_threads() {
    one(Start::NoGateway, Role::Thread, 1, 3);
}

/// L2.
fn the_launcher_killed_at_every_call() {
    one(Start::NoGateway, Role::Launcher, 1, 3);
}

/// L2.
fn the_launcher_killed_beside_another_box() {
    one(Start::BesideAnother, Role::Launcher, 3, 7);
}

/// L2.
fn the_first_process_killed_at_every_call() {
    one(Start::NoGateway, Role::First, 3, 11);
}

/// L2.
fn the_first_process_killed_beside_another_box() {
    one(Start::BesideAnother, Role::First, 5, 17);
}

/// L2.
fn the_keeper_killed_above_an_init() {
    below_an_init(Role::Keeper, 5, 13);
}

/// L2.
fn the_init_killed_at_every_call() {
    below_an_init(Role::First, 1, 3);
}

/// L2.
fn the_process_below_the_init_killed_at_every_call() {
    below_an_init(Role::Below, 3, 7);
}

/// L2.
fn everybody_killed_around_a_user_namespace() {
    let mut world = World::with(Start::NoGateway, &["--cap-add", "NET_ADMIN", "--unshare-pid"]);
    for (role, step) in [(Role::Launcher, 11), (Role::Keeper, 11), (Role::First, 7), (Role::Below, 7)] {
        kill_role(&mut world, role, step, 13);
    }
    world.end();
}

/// L2: the address that was asked for is free for the next run, whatever was killed, and no source address stays.
fn everybody_killed_with_chosen_addresses() {
    let options = &["--ip", "10.77.130.20", "--snat", "198.51.100.1"];
    let mut world = World::with(Start::BesideAnother, options);
    kill_role(&mut world, Role::Keeper, 7, 13);
    let calls = world.calls();
    let points = points(&calls, Role::Keeper, Side::Entry, 3, 11);
    kill(&mut world, &points, &[Role::Keeper, Role::Launcher, Role::First]);
    world.end();
}

/// L2: nor does a way to the host stay.
fn everybody_killed_with_a_port_of_the_hosts() {
    let options = &["--host-port", "9", "--host-port", "9:10/udp"];
    let mut world = World::with(Start::BesideAnother, options);
    kill_role(&mut world, Role::Keeper, 7, 13);
    let calls = world.calls();
    let points = points(&calls, Role::Keeper, Side::Entry, 3, 11);
    kill(&mut world, &points, &[Role::Keeper, Role::Launcher, Role::First]);
    world.end();
}

/// L2: nor does a name stay, or a file without a network.
fn everybody_killed_with_a_network_that_has_a_name() {
    let mut world = World::with(Start::NoGateway, &[EXPORTED]);
    kill_role(&mut world, Role::Keeper, 23, 29);
    let calls = world.calls();
    let points = points(&calls, Role::Keeper, Side::Entry, 1, 11);
    kill(&mut world, &points, &[Role::Keeper, Role::Launcher, Role::First]);
    world.end();
}

const IN_A_NETWORK: &[&str] = &["--net", "db:ip=10.9.0.7,ip6=fd09::8:7,mac=02:00:5e:00:00:07"];

/// L2: as above, of its addresses in a network and of its place at the bridge.
fn everybody_killed_in_a_network() {
    let options = IN_A_NETWORK;
    let mut world = World::with(Start::BesideAnother, options);
    kill_role(&mut world, Role::Keeper, 5, 11);
    let calls = world.calls();
    let points = points(&calls, Role::Keeper, Side::Entry, 3, 9);
    kill(&mut world, &points, &[Role::Keeper, Role::Launcher, Role::First]);
    world.end();
}

const IN_TWO_NETWORKS: &[&str] =
    &["--net", "db:ip=10.9.0.7,alias=store", "--net", "web:ip=10.9.1.7,mac=02:00:5e:00:00:07,alias=site"];

/// L2: in the second, too.
fn everybody_killed_in_two_networks() {
    let mut world = World::with(Start::BesideAnother, IN_TWO_NETWORKS);
    kill_role(&mut world, Role::Keeper, 7, 13);
    let calls = world.calls();
    let points = points(&calls, Role::Keeper, Side::Entry, 3, 13);
    kill(&mut world, &points, &[Role::Keeper, Role::Launcher, Role::First]);
    world.end();
}

/// L2: the box is known to have ended, or never was; where its id was told, it is known.
fn everybody_killed_at_a_detached_start() {
    // One off: what waits for the start, the launcher, the keeper, the first process.
    let [caller, launcher, keeper, first] = [Role::Launcher, Role::Keeper, Role::First, Role::Below];
    let mut world = World::with(Start::NoGateway, &["-d", "--name", "struck"]);
    let calls = world.calls();
    for (at, victims, step) in [
        (caller, &[caller][..], 5),
        (launcher, &[launcher], 7),
        (keeper, &[keeper], 17),
        (first, &[first], 23),
        (keeper, &[keeper, launcher], 19),
        (launcher, &[launcher, caller], 17),
        (keeper, &[keeper, launcher, caller, first], 23),
    ] {
        for point in points(&calls, at, Side::Entry, 0, step) {
            world.strike(point, Deed::Kill(victims), CleanBy::TheNext, |verdict| {
                let (status, ended) = (verdict.traced.status, forget_detached()?);
                let as_promised = match (status, &ended[..]) {
                    (0, [_]) => true,
                    // Between the command's start and the news of it: the command did run.
                    (125, [] | [_]) => verdict.stderr.starts_with("netbox: "),
                    (137, [] | [_]) => victims.contains(&caller),
                    _ => false,
                };
                let as_promised = as_promised && ended.iter().all(|one| !one["ended"].is_null());
                if as_promised { Ok(()) } else { Err(format!("status {status}, ended as {ended:?}")) }
            });
        }
    }
    world.end();
}

/// L2.
fn the_keeper_killed_that_makes_a_bridge() {
    in_world(World::with(Start::NoGateway, IN_TWO_NETWORKS), Role::Keeper, 5, 17);
}

const IN_ONE_OF_SEVERAL_MACHINES: &[&str] = &["--net", "routed:ip=10.9.0.7"];

/// L2: nothing of it stays on the host.
fn the_keeper_killed_that_makes_a_network_of_several_machines() {
    in_world(World::with(Start::NoGateway, IN_ONE_OF_SEVERAL_MACHINES), Role::Keeper, 11, 29);
}

/// L2: where the gateway goes on living, all or nothing is left of what the host has because of the network, and whoever comes next
/// can use it.
fn everybody_killed_that_makes_one_beside_another_box() {
    let mut world = World::with(Start::BesideAnother, IN_ONE_OF_SEVERAL_MACHINES);
    let calls = world.calls();
    let everybody = [Role::Keeper, Role::Launcher, Role::First];
    for (victims, first, step) in [(&everybody[..1], 1, 9), (&everybody, 3, 19)] {
        for point in points(&calls, Role::Keeper, Side::Entry, first, step) {
            world.strike(point, Deed::Kill(victims), CleanBy::TheNext, |verdict| {
                make_again().and_then(|()| ended_as_promised(verdict, victims))
            });
        }
    }
    world.end();
}

/// L2: the box goes on, and at once nothing of the command is in it, nor of what that left. Here the keeper's role is the
/// supervisor's, and the first process's that of who joins the box.
fn a_further_command(of_box: &[&str], leaves: Leaves, deeds: &[(Role, &[Role], usize)]) {
    let mut world = World::entering(of_box, leaves);
    let calls = world.calls();
    for (at, victims, step) in deeds {
        for side in [Side::Entry, Side::Exit] {
            for point in points(&calls, *at, side, usize::from(side == Side::Exit), *step) {
                world.strike(point, Deed::Kill(victims), CleanBy::ItselfButForTheDead, |verdict| {
                    ended_as_promised(verdict, victims)
                });
            }
        }
    }
    world.end();
}

fn a_further_command_killed_at_every_call() {
    let [launcher, supervisor, joining] = [Role::Launcher, Role::Keeper, Role::First];
    let deeds: [(_, &[_], _); 6] = [
        (launcher, &[launcher], 9),
        (supervisor, &[supervisor], 7),
        (joining, &[joining], 7),
        (supervisor, &[supervisor, launcher], 7),
        (joining, &[supervisor, launcher], 9),
        (joining, &[supervisor, joining], 11),
    ];
    a_further_command(&[], Leaves::ADaemon, &deeds);
}

/// What stands above the command in the box's pid namespace takes what the command leaves there with it, unless it is killed
/// itself (docs/limits.md).
fn a_further_command_killed_below_a_warden() {
    let [launcher, supervisor, command] = [Role::Launcher, Role::Keeper, Role::Below];
    let deeds: [(_, &[_], _); 4] = [
        (launcher, &[launcher], 11),
        (supervisor, &[supervisor], 9),
        (command, &[command], 7),
        (supervisor, &[supervisor, launcher], 9),
    ];
    a_further_command(&["--unshare-pid"], Leaves::ADaemon, &deeds);
}

fn a_warden_killed_at_every_call() {
    let [supervisor, warden] = [Role::Keeper, Role::First];
    let deeds: [(_, &[_], _); 2] = [(warden, &[warden], 7), (warden, &[supervisor, warden], 11)];
    a_further_command(&["--unshare-pid"], Leaves::Nothing, &deeds);
}

/// L2: clean after the next command.
fn several(start: Start) {
    let mut world = World::new(start);
    let calls = world.calls();
    let (launcher, keeper, first) = (Role::Launcher, Role::Keeper, Role::First);
    for (index, (at, victims)) in [
        (keeper, &[keeper, launcher][..]),
        (launcher, &[launcher, keeper]),
        (keeper, &[keeper, first]),
        (first, &[first, keeper]),
        (first, &[first, launcher]),
        (keeper, &[keeper, launcher, first]),
    ]
    .into_iter()
    .enumerate()
    {
        let step = if at == launcher { 7 } else { 23 };
        kill(&mut world, &points(&calls, at, Side::Entry, index, step), victims);
    }
    world.end();
}

fn two_or_three_killed_at_once() {
    several(Start::NoGateway);
}

fn two_or_three_killed_at_once_beside_another_box() {
    several(Start::BesideAnother);
}
