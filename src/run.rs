//! The story of `netbox run`, top to bottom.
//!
//! Three processes. The **launcher** is the one that the user started: it changes nothing, passes signals on and ends as
//! the command did. Before anything is changed it forks the **keeper**, which does all the work: it makes the box,
//! watches over it, and takes it down when the command or the launcher ends. The keeper forks the **box's first
//! process**, which makes its namespaces, waits until they are connected, drops every privilege and becomes the command.
//!
//! Whoever dies, one is left: the keeper takes down after a launcher; the launcher sweeps after a keeper; the
//! kernel kills the command with its keeper; and when all die at once, the next netbox sweeps.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::apply::attach;
use crate::apply::census::census;
use crate::apply::gateway::{self, Gateway, Host};
use crate::apply::lease::{self, Lease, Shared};
use crate::apply::publish;
use crate::apply::state::{Locked, State};
use crate::apply::sweep::{sweep, tolerate_no_table};
use crate::error::{Context, Error, Result};
use crate::host::caller;
use crate::kernel::channel::Channel;
use crate::kernel::namespace::{self, MountNamespace};
use crate::kernel::process::{self, Process, Side};
use crate::kernel::signal::{self, OriginalMask, Signals};
use crate::launch::inside::{self, Inside};
use crate::launch::launcher::{Launcher, Outcome, takes_terminal_at_once};
use crate::launch::linger::{Remains, linger};
use crate::launch::message::{BoxFacts, BoxLink, FromBox, ToBox, ToLauncher};
use crate::launch::supervise::{End, kill_box, supervise};
use crate::plan::identity::{Accounts, Identity, identity};
use crate::plan::record::{Attachment, BoxRecord, PortMap};
use crate::plan::refusal;
use crate::report::Report;
use crate::serve::relay::{Relay, Waiting};
use crate::spec::net::Net;
use crate::spec::request::RunRequest;

/// Runs a command in a box and returns the status to exit with (promise R2).
///
/// # Errors
/// A refusal, before anything was changed; or a failure, after everything was undone.
pub fn run(request: &RunRequest, report: &Report) -> Result<u8> {
    let identity = who(request)?;
    refusal::before_start(request, &caller::caller()?, caller::is_setuid())?;
    let start = Start {
        request,
        identity: &identity,
        launcher: nix::unistd::getpid(),
        take_terminal: takes_terminal_at_once(),
        mask: signal::block_all().context(|| "cannot block signals")?,
    };
    let earlier = process::children_so_far().context(|| "cannot list the children of this process")?;
    // The keeper's orphans come here if the keeper dies.
    process::become_subreaper().context(|| "cannot become a subreaper")?;
    let (keeper, launcher) = Channel::pair().context(|| "cannot make a channel")?;
    match process::fork().context(|| "cannot start the keeper")? {
        Side::Child => {
            drop(keeper);
            process::exit_now(keep(&start, &launcher))
        }
        Side::Parent(_) => drop(launcher),
    }
    // What the command closes must be closed, not held open here.
    process::close_all_but(&[keeper.as_fd()]).context(|| "cannot close the inherited descriptors")?;
    process::let_go_of_input_and_output().context(|| "cannot open /dev/null")?;
    match Launcher::new(&keeper, report, start.take_terminal).attend()? {
        Outcome::Ended(status, problems) => {
            problems.iter().for_each(|problem| report.problem(problem));
            Ok(status)
        }
        Outcome::Failed(error, problems) => {
            problems.iter().for_each(|problem| report.problem(problem));
            Err(error)
        }
        Outcome::KeeperDied => Err(after_keeper(&earlier)),
    }
}

/// Who the command runs as. The account files are read only where somebody else than the caller may be meant.
///
/// # Errors
/// A user or a group that does not exist.
pub fn who(request: &RunRequest) -> Result<Identity> {
    let caller = caller::caller()?;
    let somebody_else = request.user.is_some() || caller.sudo.is_some();
    let accounts = if somebody_else { caller::accounts() } else { Accounts::default() };
    identity(&caller, &accounts, request.user.as_ref())
}

/// What the keeper knows from its birth.
struct Start<'a> {
    request: &'a RunRequest,
    identity: &'a Identity,
    launcher: Pid,
    take_terminal: bool,
    mask: OriginalMask,
}

/// The keeper, from its birth to its end.
fn keep(start: &Start<'_>, launcher: &Channel) -> u8 {
    match start_first_process(start, launcher) {
        Err(error) => tell(launcher, &ToLauncher::Failed(error, Vec::new())),
        Ok((command, to_box, news)) => {
            let mut keeper = Keeper::new(start, launcher, &command, to_box);
            let ended = keeper.build().map(|()| keeper.watch(news));
            let mut problems = Vec::new();
            if let Err(error) = kill_box(&command) {
                problems.push(format!("cannot end the processes of the box: {error}"));
            }
            let remains = keeper.take_down(&mut problems);
            match ended {
                Ok(End::Command(status)) => tell(launcher, &ToLauncher::Ended(status, problems)),
                // Nobody is left to be told.
                Ok(End::LauncherGone) => {}
                Err(error) => tell(launcher, &ToLauncher::Failed(error, problems)),
            }
            if let Some(remains) = remains {
                linger(remains);
            }
        }
    }
    0
}

/// A launcher that is gone shows in the next wait.
fn tell(launcher: &Channel, message: &ToLauncher) {
    let _ = launcher.send(message, None);
}

/// Starts the box's first process, while this one still has everything that the command inherits, and then lets go of it.
fn start_first_process(start: &Start<'_>, launcher: &Channel) -> Result<(Process, Channel, Signals)> {
    let own = Pid::from_raw(0);
    // What is sent to the launcher's process group is not for the keeper.
    nix::unistd::setpgid(own, own).context(|| "cannot make a process group")?;
    process::become_subreaper().context(|| "cannot become a subreaper")?;
    let keeper = nix::unistd::getpid();
    let (to_box, to_keeper) = Channel::pair().context(|| "cannot make a channel")?;
    let pid = match process::fork().context(|| "cannot start the box's first process")? {
        Side::Parent(pid) => pid,
        Side::Child => {
            drop(to_box);
            let inside = Inside {
                net: start.request.net,
                identity: start.identity,
                command: &start.request.command,
                workdir: start.request.workdir.as_ref(),
                settings: &start.request.env,
                clear_env: start.request.clear_env,
                mask: start.mask,
                take_terminal: start.take_terminal,
                keeper,
            };
            process::exit_now(inside::first_process(&inside, &to_keeper))
        }
    };
    drop(to_keeper);
    process::close_all_but(&[launcher.as_fd(), to_box.as_fd()])
        .context(|| "cannot close the inherited descriptors")?;
    process::let_go_of_standard_descriptors().context(|| "cannot open /dev/null")?;
    let command = Process::of_child(pid).context(|| "cannot watch the box's first process")?;
    // A launcher that is gone shows before the command starts.
    let _ = launcher.send(&ToLauncher::Box { pid: pid.as_raw() }, Some(command.as_fd()));
    let news = Signals::of_children().context(|| "cannot watch for children")?;
    Ok((command, to_box, news))
}

/// What the keeper holds of its box. What is `None` was not made yet, or is undone.
struct Keeper<'a> {
    start: &'a Start<'a>,
    launcher: &'a Channel,
    command: &'a Process,
    to_box: Channel,
    host: Option<Host>,
    state: Option<State>,
    lease: Option<Lease>,
    gateway: Option<Gateway>,
    ports: Vec<PortMap>,
    waiting: Option<Waiting>,
    relay: Option<Relay>,
}

impl<'a> Keeper<'a> {
    const fn new(start: &'a Start<'a>, launcher: &'a Channel, command: &'a Process, to_box: Channel) -> Self {
        Self {
            start,
            launcher,
            command,
            to_box,
            host: None,
            state: None,
            lease: None,
            gateway: None,
            ports: Vec::new(),
            waiting: None,
            relay: None,
        }
    }

    /// Makes the box, in an order in which every moment is closed, and starts the command.
    fn build(&mut self) -> Result<()> {
        self.reserve_ports()?;
        self.join_the_others()?;
        let link = self.add_link()?;
        let facts = self.facts();
        self.to_box.send(&ToBox::Configure(facts), None).or_else(|error| self.unsent(&error))?;
        if let (Some(gateway), Some(lease), Some(index)) = (&mut self.gateway, &self.lease, link) {
            attach::connect(gateway, lease.id.as_str(), lease.slot, index)?;
        }
        self.write_record()?;
        self.hear_that_it_is(FromBox::Configured)?;
        if let (Some(gateway), Some(lease)) = (&mut self.gateway, &self.lease) {
            attach::settle(gateway, lease.id.as_str())?;
        }
        self.map_ports()?;
        self.launcher_still_wants_it()?;
        self.to_box.send(&ToBox::Run, None).or_else(|error| self.unsent(&error))?;
        self.ask_box_why()
    }

    /// Holds every port that is to be published: one that is taken is an error before anything is changed.
    fn reserve_ports(&mut self) -> Result<()> {
        if self.start.request.publish.is_empty() {
            return Ok(());
        }
        let reserved = publish::reserve(&self.start.request.publish)?;
        self.ports = reserved.iter().map(|port| port.map).collect();
        let sockets = reserved.into_iter().map(|port| (port.socket, port.map.box_port)).collect();
        self.waiting = Some(Waiting::new(sockets).context(|| "cannot watch the published ports")?);
        Ok(())
    }

    /// Under the run lock: sweeps what the dead left, takes a lease, and joins the gateway or makes it.
    fn join_the_others(&mut self) -> Result<()> {
        let host = self.host.insert(Host::open()?);
        let state = self.state.insert(State::open()?);
        let mut locked = state.lock()?;
        let (swept, found) = sweep(&locked, host, census(locked.slots()), false);
        if !swept.is_empty() {
            tell(self.launcher, &ToLauncher::Log(format!("swept what dead runs left: {swept:?}")));
        }
        for problem in swept.problems {
            tell(self.launcher, &ToLauncher::Warning(problem));
        }
        let request = self.start.request;
        let bits = if request.net == Net::Nat { lease::USES_GATEWAY } else { 0 };
        let lease = self.lease.insert(Lease::take(&mut locked, request.name.as_ref(), bits)?);
        if request.net == Net::Nat {
            let gateway = self.gateway.insert(gateway::join_or_make(&locked, host, &found)?);
            if !self.ports.is_empty() {
                // Before the first rule that names a port: whoever sweeps after this keeper has to know which.
                lease.write(&record(self.start, self.command, lease, Some(gateway), &self.ports, None))?;
            }
            attach::let_in(&locked, gateway, lease.id.as_str(), lease.slot, &self.ports)?;
            lease.announce(&locked, Shared::Network, gateway.network.as_fd());
            lease.announce(&locked, Shared::GatewayNft, gateway.nft.as_fd());
        }
        if let Some(nft) = host.open_nft() {
            lease.announce(&locked, Shared::HostNft, nft.as_fd());
        }
        Ok(())
    }

    /// What the box is told about itself.
    fn facts(&self) -> BoxFacts {
        let id = self.lease.as_ref().map(|lease| lease.id.as_str().to_owned()).unwrap_or_default();
        let name =
            self.lease.as_ref().and_then(|lease| lease.name.as_ref().map(|name| name.as_str().to_owned()));
        let link = self.gateway.as_ref().zip(self.lease.as_ref()).map(|(gateway, lease)| {
            let topology = gateway.record.topology;
            BoxLink { address: topology.box_address(lease.slot), gateway: topology.gateway_address() }
        });
        BoxFacts { name: name.unwrap_or_else(|| id.clone()), id, link }
    }

    /// Waits for the box's namespaces, then puts a link between the gateway and them.
    fn add_link(&mut self) -> Result<Option<u32>> {
        self.hear_that_it_is(FromBox::Unshared)?;
        let (Some(gateway), Some(lease)) = (&mut self.gateway, &self.lease) else { return Ok(None) };
        let pid = self.command.pid.as_raw();
        let network: OwnedFd =
            namespace::network_of(pid).context(|| "cannot open the box's network namespace")?;
        let mtu = self.start.request.mtu.unwrap_or(gateway.record.topology.mtu);
        attach::add_link(gateway, lease.id.as_str(), lease.slot, mtu, &network).map(Some)
    }

    /// Waits until the box's first process has come so far.
    fn hear_that_it_is(&self, step: FromBox) -> Result<()> {
        match self.to_box.receive::<FromBox>().context(|| "cannot hear the box's first process")? {
            Some(incoming) if incoming.message == step => Ok(()),
            Some(incoming) => match incoming.message {
                FromBox::Failed(error) => Err(error),
                _ => Err(Error::new("the box's first process skipped a step")),
            },
            None => Err(died_early()),
        }
    }

    fn write_record(&self) -> Result<()> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let request = self.start.request;
        let pid = self.command.pid.as_raw();
        let mounts = match request.net {
            Net::Host => None,
            _ => Some(MountNamespace::of(pid).context(|| "cannot identify the box's mount namespace")?),
        };
        lease.write(&record(self.start, self.command, lease, self.gateway.as_ref(), &self.ports, mounts))
    }

    fn map_ports(&mut self) -> Result<()> {
        let (Some(gateway), Some(lease), Some(host), Some(state)) =
            (&self.gateway, &self.lease, &mut self.host, &mut self.state)
        else {
            return Ok(());
        };
        if self.ports.is_empty() {
            return Ok(());
        }
        let locked = state.lock()?;
        let nft = host.nft(&locked, &census(locked.slots()))?;
        lease.announce(&locked, Shared::HostNft, nft.as_fd());
        publish::map(&locked, nft, gateway.record.topology, lease.slot, &self.ports)
    }

    fn launcher_still_wants_it(&self) -> Result<()> {
        let mut wanted = [PollFd::new(self.launcher.as_fd(), PollFlags::empty())];
        match poll(&mut wanted, PollTimeout::ZERO) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::new("the launcher of this box is gone")),
            Err(errno) => Err(errno).context(|| "cannot look whether the launcher is still there"),
        }
    }

    /// Why the box's first process could not be told: it is gone, and may have said why. If it is not, it still waits.
    fn unsent(&self, error: &std::io::Error) -> Result<()> {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.ask_box_why(),
            _ => Err(Error::new("cannot reach the box's first process").os(error)),
        }
    }

    /// Waits until the box's first process has become the command, or says why it has not.
    fn ask_box_why(&self) -> Result<()> {
        match self.to_box.receive::<FromBox>().context(|| "cannot hear the box's first process")? {
            Some(incoming) => match incoming.message {
                FromBox::Failed(error) => Err(error),
                FromBox::Unshared | FromBox::Configured => Err(died_early()),
            },
            // Exec closed its end; or it was killed, and then that is how the command ended.
            None => Ok(()),
        }
    }

    /// Waits for the end, and starts the relay with the first connection to the host's loopback.
    fn watch(&mut self, mut news: Signals) -> End {
        let (waiting, relay) = (&mut self.waiting, &mut self.relay);
        let activity = waiting.as_ref().and_then(|waiting| waiting.activity().try_clone_to_owned().ok());
        let place = self.gateway.as_ref().zip(self.lease.as_ref());
        let ended =
            supervise(self.command, self.launcher, &mut news, activity.as_ref().map(AsFd::as_fd), || {
                if let (Some(waiting), Some((gateway, lease))) = (waiting.as_mut(), place) {
                    let address = gateway.record.topology.box_address(lease.slot);
                    match waiting.start(&gateway.network, address) {
                        Ok(started) => *relay = Some(started),
                        Err(error) => {
                            let line = format!("connections to the host's loopback are not served: {error}");
                            tell(self.launcher, &ToLauncher::Warning(line));
                        }
                    }
                }
            });
        // A keeper that cannot wait cannot keep: the box ends, as if the launcher had gone.
        ended.unwrap_or(End::Command(125))
    }

    /// Undoes all that the end of a box must undo before netbox returns (promise L1): ports, rules, name, count; and the
    /// host's side of the gateway with its last box. Never stops at an error. What is left takes the kernel's time.
    fn take_down(mut self, problems: &mut Vec<String>) -> Option<Remains> {
        if let Some(relay) = self.relay.take() {
            relay.stop();
        }
        let (mut host, mut state, mut lease) = (self.host.take()?, self.state.take()?, self.lease.take()?);
        let (mut was_last, mut all_undone) = (false, false);
        match state.lock() {
            Ok(locked) => {
                if let Some(gateway) = &mut self.gateway {
                    close_ports(&locked, &mut host, gateway, &lease, &self.ports, problems);
                }
                // After the maps: the port must not be somebody else's while a rule still leads to the box.
                drop(self.waiting.take());
                let address = self.gateway.as_ref().map(|own| own.record.topology.box_address(lease.slot));
                all_undone = problems.is_empty();
                problems.extend(lease.end(&locked, address, all_undone));
                let found = census(locked.slots());
                let own = self.gateway.as_ref().map(|gateway| &gateway.record);
                if let Some(own) = own
                    && found.users == 0
                    && gateway::record(&locked).as_ref().is_none_or(|record| record == own)
                {
                    was_last = true;
                    problems.extend(gateway::take_down(&locked, &mut host, &found, own));
                }
                if let Some(nft) = host.open_nft() {
                    lease.announce(&locked, Shared::HostNft, nft.as_fd());
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
        Some(Remains { host, state, lease, gateway: self.gateway.take(), was_last, all_undone })
    }
}

/// Takes the box's ports and its address out of the rules, on the host and in the gateway.
fn close_ports(
    locked: &Locked<'_>,
    host: &mut Host,
    gateway: &mut Gateway,
    lease: &Lease,
    ports: &[PortMap],
    problems: &mut Vec<String>,
) {
    let topology = gateway.record.topology;
    if !ports.is_empty()
        && let Some(nft) = host.open_nft()
        && let Err(error) = tolerate_no_table(publish::unmap(locked, nft, topology, lease.slot, ports))
    {
        problems.push(format!("cannot remove the port maps: {error}"));
    }
    let shut_out = attach::shut_out(locked, gateway, lease.id.as_str(), lease.slot, ports);
    if let Err(error) = tolerate_no_table(shut_out) {
        problems.push(format!("cannot remove the box's rules in the gateway: {error}"));
    }
}

/// What is written down about a box.
fn record(
    start: &Start<'_>,
    command: &Process,
    lease: &Lease,
    gateway: Option<&Gateway>,
    ports: &[PortMap],
    mounts: Option<MountNamespace>,
) -> BoxRecord {
    let request = start.request;
    let id = lease.id.as_str().to_owned();
    BoxRecord {
        name: lease.name.as_ref().map_or_else(|| id.clone(), |name| name.as_str().to_owned()),
        id,
        pid: start.launcher.as_raw(),
        keeper_pid: nix::unistd::getpid().as_raw(),
        box_pid: command.pid.as_raw(),
        net: request.net.as_str().to_owned(),
        privilege: "root".to_owned(),
        command: request.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        started: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        attachment: gateway.map(|gateway| Attachment { topology: gateway.record.topology, slot: lease.slot }),
        ports: ports.to_vec(),
        mounts: mounts.map(|namespace| (namespace.inode, namespace.id)),
    }
}

fn died_early() -> Error {
    Error::new("the box's first process was killed before the command ran")
}

/// The keeper was killed. The kernel killed the command with it; the launcher sweeps the rest.
fn after_keeper(earlier: &[Pid]) -> Error {
    let error = Error::new("the keeper of this box was killed, and the box with it");
    if let Err(problem) = process::kill_children_but(earlier) {
        return error.hint(format!("processes of the box may be left: {problem}"));
    }
    match sweep_all() {
        Ok(problems) => match problems.first() {
            Some(problem) => {
                error.hint(format!("not all could be undone: {problem}; `netbox gc` tries again"))
            }
            None => error,
        },
        Err(problem) => error.hint(format!("{problem}; `netbox gc` tries again")),
    }
}

/// Sweeps what dead runs left, and returns what could not be undone.
fn sweep_all() -> Result<Vec<String>> {
    let mut host = Host::open()?;
    let mut state = State::open()?;
    let locked = state.lock()?;
    let (swept, _) = sweep(&locked, &mut host, census(locked.slots()), false);
    Ok(swept.problems)
}
