//! The story of `netbox run`, top to bottom.
//!
//! With `-d`, the process that the user started forks the launcher, waits until the command runs, and ends; the rest is the
//! same.
//!
//! Three processes, and helpers. The **launcher** is the one that the user started: it changes nothing, passes signals on and ends as
//! the command did. Before anything is changed it forks the **keeper**, which does all the work: it makes the box,
//! watches over it, and takes it down when the command or the launcher ends. The keeper forks the **box's first
//! process**, which makes its namespaces, waits until they are connected, drops every privilege and becomes the command.
//! While the command runs, the keeper starts **helpers** without any privilege when they are first needed: the relay to
//! published ports, that to the host's, and the box's resolver.
//!
//! Whoever dies, one is left: the keeper takes down after a launcher; the launcher sweeps after a keeper; the
//! kernel kills the command with its keeper; and when all die at once, the next netbox sweeps.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::unistd::Pid;

use crate::apply::census::census;
use crate::apply::export;
use crate::apply::gateway::{self, Gateway};
use crate::apply::host::Host;
use crate::apply::host_ports::HostPort;
use crate::apply::kept::KeptBox;
use crate::apply::lease::{Lease, Shared};
use crate::apply::names::{self, BoxFile, Questions};
use crate::apply::state::State;
use crate::apply::sweep::sweep;
use crate::apply::{address, attach, bridge, heal, networks, reserve};
use crate::boxes::elsewhere::{self, Elsewhere};
use crate::error::{Context, Error, Result};
use crate::host::{caller, source};
use crate::kernel::call_watch::CallWatch;
use crate::kernel::channel::Channel;
use crate::kernel::inherited;
use crate::kernel::process::{self, Side};
use crate::kernel::signal::{self, OriginalMask, Signals};
use crate::launch::control::Control;
use crate::launch::detach::{self, Detached, Half};
use crate::launch::duties::{Duties, Files};
use crate::launch::errands::{self, Place};
use crate::launch::first_process::FirstProcess;
use crate::launch::inside::Inside;
use crate::launch::launcher::{Launcher, Outcome, after_keeper, takes_terminal_at_once};
use crate::launch::linger::linger;
use crate::launch::living::Living;
use crate::launch::message::{BoxFacts, FromBox, ToLauncher, introduce, tell};
use crate::launch::output::{self, CommandEnds};
use crate::launch::publish_all::Publisher;
use crate::launch::status_stream::StatusStream;
use crate::launch::supervise::{Care, End, kill_box, launcher_is_there, status_of, supervise, wake};
use crate::plan::identity::Identity;
use crate::plan::privileges::{Privileges, privileges};
use crate::plan::record::{Attachment, BoxRecord, MountIdentity};
use crate::plan::refusal;
use crate::plan::wiring::{BoxLink, LinkEnd};
use crate::report::Report;
use crate::serve::relay::Waiting;
use crate::serve::watch::Watch;
use crate::spec::request::RunRequest;

mod host_ports;
mod record;
mod take_down;

/// Runs a command in a box and returns the status to exit with (promise R2).
///
/// # Errors
/// A refusal, before anything was changed; or a failure, after everything was undone.
pub fn run(request: &RunRequest, report: &Report) -> Result<u8> {
    for number in &request.keep_fds {
        inherited::check(*number).map_err(|_| {
            Error::new(format!("cannot keep file descriptor {number}")).because("it is not open")
        })?;
    }
    let mut status = request.json_status_fd.map(StatusStream::open).transpose()?;
    let mut detached = match request.detach.then(detach::part).transpose()? {
        Some(Half::Caller(waiting)) => return waiting.wait(),
        Some(Half::Launcher(detached)) => Some(detached),
        None => None,
    };
    let ended = launch(request, report, status.as_mut(), detached.as_mut());
    if let (Some(detached), Err(error)) = (&mut detached, &ended) {
        // Else the caller of this function tells it.
        detached.note(&error.to_string());
    }
    if let Some(status) = status {
        status.exited(ended.as_ref().map_or_else(Error::exit_status, |status| *status), report);
    }
    ended
}

fn launch(
    request: &RunRequest,
    report: &Report,
    status: Option<&mut StatusStream>,
    mut detached: Option<&mut Detached>,
) -> Result<u8> {
    let caller = caller::caller()?;
    let identity = caller::who(request, &caller)?;
    refusal::before_start(request, &caller, caller::is_setuid())?;
    let privileges = privileges(request, &identity, caller.capabilities)?;
    refusal::of_network(request, &privileges)?;
    let elsewhere = elsewhere::open(&request.net, |warning| report.warning(warning))?;
    let mut start = Start {
        request,
        elsewhere,
        identity: &identity,
        privileges,
        launcher: nix::unistd::getpid(),
        take_terminal: takes_terminal_at_once(),
        mask: signal::block_all().context(|| "cannot block signals")?,
        reached_at_once: request.detach,
        output: detached.as_deref_mut().and_then(Detached::take_command_ends),
    };
    // The keeper's orphans come here if the keeper dies.
    process::become_subreaper().context(|| "cannot become a subreaper")?;
    let (keeper, launcher) = Channel::pair().context(|| "cannot make a channel")?;
    let keeper_pid = match process::fork().context(|| "cannot start the keeper")? {
        Side::Child => {
            drop(keeper);
            process::exit_now(keep(&start, &launcher))
        }
        Side::Parent(pid) => {
            drop((launcher, start.elsewhere.take(), start.output.take()));
            pid
        }
    };
    // What the command closes must be closed, not held open here.
    let own = [keeper.as_fd()].into_iter().chain(status.as_deref().map(AsFd::as_fd));
    let kept: Vec<_> = own.chain(detached.iter().flat_map(|detached| detached.descriptors())).collect();
    process::close_all_but(&kept).context(|| "cannot close the inherited descriptors")?;
    process::let_go_of_input_and_output().context(|| "cannot open /dev/null")?;
    if request.detach {
        process::let_go_of_directory().context(|| "cannot enter /")?;
    }
    let launcher = Launcher::new(&keeper, report, start.take_terminal, status, detached.as_deref_mut());
    let outcome = launcher.attend();
    if let Some(detached) = &mut detached {
        detached.output().finish();
        if matches!(outcome, Ok(Outcome::KeeperDied)) {
            detached.keeper_died();
        }
    }
    outcome?.conclude(|problems| detach::tell(problems, detached, report), || after_keeper(keeper_pid))
}

/// What the keeper knows from its birth.
struct Start<'a> {
    request: &'a RunRequest,
    /// The network that the box shares, where that is neither its own nor the host's.
    elsewhere: Option<Elsewhere>,
    identity: &'a Identity,
    privileges: Privileges,
    launcher: Pid,
    take_terminal: bool,
    mask: OriginalMask,
    /// Whether other netbox commands can reach the box from its start on, and not only once it has lived for a moment.
    reached_at_once: bool,
    /// What a detached command prints to.
    output: Option<CommandEnds>,
}

/// The keeper, from its birth to its end.
fn keep(start: &Start<'_>, launcher: &Channel) -> u8 {
    match start_first_process(start, launcher) {
        Err(error) => tell(launcher, &ToLauncher::Failed(error, Vec::new())),
        Ok((first, signals)) => {
            let mut keeper = Keeper::new(start, launcher, &first);
            let ended = keeper.build().and_then(|()| keeper.watch(signals));
            let mut problems = Vec::new();
            let mut control = std::mem::take(&mut keeper.control);
            control.dismiss_execs();
            let killed = kill_box(&first.process).and(control.await_execs(keeper.mounts()));
            if let Err(error) = killed {
                problems.push(format!("cannot end the processes of the box: {error}"));
            }
            let status = status_of(&ended);
            // Before the lease ends: a detached box lives, or it is known how it ended.
            if let Some(Err(error)) = keeper.kept.take().map(|kept| kept.note_end(Some(status))) {
                problems.push(error.to_string());
            }
            let remains = keeper.take_down(&mut problems);
            match ended {
                Ok(End::Command(status)) => tell(launcher, &ToLauncher::Ended(status, problems)),
                // Nobody is left to be told, but who waits for the box.
                Ok(End::LauncherGone) => {}
                Err(error) => tell(launcher, &ToLauncher::Failed(error, problems)),
            }
            control.tell_end(status);
            if first.was_stopped() {
                wake(start.launcher);
            }
            if let Some(remains) = remains {
                linger(remains);
            }
        }
    }
    0
}

/// Starts the box's first process, while this one still has everything that the command inherits.
fn start_first_process(start: &Start<'_>, launcher: &Channel) -> Result<(FirstProcess, Signals)> {
    let Start { request, identity, privileges, mask, take_terminal, .. } = *start;
    if let Some(ends) = &start.output {
        output::hand_over(ends).context(|| "cannot pass on a pipe")?;
    }
    let keeper = nix::unistd::getpid();
    let network = start.elsewhere.as_ref().map(|elsewhere| elsewhere.network.as_fd());
    let inside = Inside { request, identity, privileges, network, mask, take_terminal, keeper, init: None };
    let started = FirstProcess::start(inside, launcher)?;
    if request.detach {
        process::let_go_of_directory().context(|| "cannot enter /")?;
    }
    Ok(started)
}

/// What the keeper holds of its box. What is `None` was not made yet, or is undone.
struct Keeper<'a> {
    start: &'a Start<'a>,
    launcher: &'a Channel,
    first: &'a FirstProcess,
    host: Option<Host>,
    state: Option<State>,
    lease: Option<Lease>,
    gateway: Option<Gateway>,
    attachment: Option<Attachment>,
    waiting: Waiting,
    files: Vec<BoxFile>,
    questions: Option<Questions>,
    host_ports: Vec<HostPort>,
    watch: Option<Watch>,
    publisher: Option<Publisher>,
    control: Control,
    /// As it is written down.
    record: Option<BoxRecord>,
    kept: Option<KeptBox>,
}

impl<'a> Keeper<'a> {
    fn new(start: &'a Start<'a>, launcher: &'a Channel, first: &'a FirstProcess) -> Self {
        Self {
            start,
            launcher,
            first,
            host: None,
            state: None,
            lease: None,
            gateway: None,
            attachment: None,
            waiting: Waiting::default(),
            files: Vec::new(),
            questions: None,
            host_ports: Vec::new(),
            watch: None,
            publisher: None,
            control: Control::default(),
            record: None,
            kept: None,
        }
    }

    /// Makes the box, in an order in which every moment is closed, and starts the command.
    fn build(&mut self) -> Result<()> {
        if self.start.privileges.own_users {
            self.first.map_users()?;
        }
        self.reserve_ports()?;
        source::check(self.start.request.snat)?;
        export::check(self.start.request.export_netns.as_ref())?;
        self.join_the_others()?;
        self.provide_names()?;
        self.listen_for_host()?;
        self.add_link()?;
        self.first.configure(self.facts(), &self.files)?;
        self.write_record()?;
        export::export(self.record.as_ref(), self.first.process.pid)?;
        let calls = self.first.wait_until_configured(self.start.request.publish_all)?;
        if let (Some(publisher), Some(calls)) = (&mut self.publisher, calls) {
            publisher.watch_calls(CallWatch::new(calls));
        }
        if let (Some(gateway), Some(attachment)) = (&mut self.gateway, &self.attachment) {
            attach::settle(gateway, attachment)?;
        }
        self.open_host_ports()?;
        self.map_ports()?;
        launcher_is_there(self.launcher)?;
        let told = self.start.request.json_status_fd.and(self.lease.as_ref());
        let told = told.map(Lease::open_record).transpose()?;
        self.first.become_command(|line| tell(self.launcher, &ToLauncher::Warning(line)))?;
        if let Some(lease) = self.lease.as_ref().filter(|_| self.start.reached_at_once) {
            self.control.open(lease)?;
        }
        self.kept.as_ref().map_or(Ok(()), KeptBox::begin)?;
        if let Some(lease) = self.lease.as_ref().filter(|_| told.is_some() || self.start.request.detach) {
            let id = lease.id.as_str().to_owned();
            let record: Vec<_> = told.iter().map(AsFd::as_fd).collect();
            // One that is gone shows in the next wait.
            let _ = self.launcher.send(&ToLauncher::Started { id }, &record);
        }
        Ok(())
    }

    /// Holds every port that is to be published: one that is taken is an error before anything is changed.
    fn reserve_ports(&mut self) -> Result<()> {
        if self.start.request.publish.is_empty() {
            return Ok(());
        }
        let held = reserve::reserve(&self.start.request.publish)?;
        self.waiting = Waiting::new(held).context(|| "cannot watch the published ports")?;
        Ok(())
    }

    /// Under the run lock: sweeps what the dead left, takes a lease, and joins the gateway or makes it.
    fn join_the_others(&mut self) -> Result<()> {
        let request = self.start.request;
        address::wait_until_left(&mut self.state, request, self.launcher.as_fd())?;
        let host = self.host.insert(Host::open()?);
        // Before the run lock, as who removes a network takes them.
        let networks = networks::keep_for(request)?;
        let mut locked = State::open_locked(&mut self.state)?;
        let (swept, found) = sweep(&locked, host, census(locked.slots()), false);
        if !swept.is_empty() {
            tell(self.launcher, &ToLauncher::Log(format!("swept what dead runs left: {swept:?}")));
        }
        for problem in swept.problems {
            tell(self.launcher, &ToLauncher::Warning(problem));
        }
        let place = address::settle(&locked, request, &found)?;
        let lease = self.lease.insert(Lease::take(&mut locked, request.name.as_ref(), place.as_ref())?);
        if let Some(place) = place {
            let gateway = self.gateway.insert(gateway::join_or_make(&locked, host, &found, place)?);
            let attachment =
                self.attachment.insert(Attachment::new(gateway.record.topology, lease.slot, request));
            bridge::join(&locked, host, gateway, lease, attachment, &networks, request)?;
            if let Some(reason) = gateway.record.without_ipv6.as_ref().filter(|_| request.verbose > 0) {
                let who = match attachment.own_address6() {
                    None => "boxes have no IPv6",
                    Some(_) => "the box has IPv6 in its network alone",
                };
                tell(self.launcher, &ToLauncher::Log(format!("{who}: {reason}")));
            }
            attach::let_in(&locked, gateway, lease.id.as_str(), attachment)?;
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
        let (shared, etc) = self.start.elsewhere.as_ref().map(Elsewhere::facts).unwrap_or_default();
        let links = match &self.attachment {
            Some(attachment) => BoxLink::all(attachment, self.end(attachment).mtu),
            None => shared.into_iter().collect(),
        };
        let files = self.files.iter().map(|file| file.path.to_owned()).collect();
        BoxFacts { name: name.unwrap_or_else(|| id.clone()), id, links, files, etc }
    }

    /// The box's end of its link.
    fn end(&self, attachment: &Attachment) -> LinkEnd {
        LinkEnd::new(attachment, self.start.request)
    }

    /// Makes what the box has in place of the host's resolv.conf and hosts, and opens what its questions come to, while its first
    /// process makes its namespaces. Who answers is started with the first question.
    fn provide_names(&mut self) -> Result<()> {
        let (request, Some(lease)) = (self.start.request, &self.lease) else { return Ok(()) };
        let log = |line| tell(self.launcher, &ToLauncher::Log(line));
        let warning = |line| tell(self.launcher, &ToLauncher::Warning(line));
        let of_other = self.start.elsewhere.as_ref().and_then(|other| other.resolv_conf.as_deref());
        self.files = names::own_files(request, lease, of_other, log, warning)?;
        if let (Some(gateway), Some(host), Some(attachment)) = (&self.gateway, &self.host, &self.attachment) {
            self.questions = Some(names::listen_for(gateway, host, attachment, self.state.as_ref())?);
        }
        Ok(())
    }

    /// Waits for the box's namespaces, then puts its links between the gateway and them.
    fn add_link(&mut self) -> Result<()> {
        self.first.wait_until(FromBox::Unshared)?;
        if let Some(command) = self.first.meet_command()? {
            introduce(self.launcher, command);
        }
        let Some(attachment) = &self.attachment else { return Ok(()) };
        let end = self.end(attachment);
        let (Some(gateway), Some(lease)) = (&mut self.gateway, &self.lease) else { return Ok(()) };
        let network = self.first.network().map_err(|error| self.first.explain(error))?;
        if let Some(host) = self.host.as_ref().filter(|_| self.start.request.publish_all) {
            let (network, host) = (network.as_fd(), host.network());
            self.publisher = Some(Publisher::new(network, host.as_fd(), attachment.addresses())?);
        }
        attach::add_links(gateway, lease.id.as_str(), attachment, end, &network)
    }

    /// The box's mount namespace, where it has one of its own.
    fn mounts(&self) -> Option<MountIdentity> {
        self.record.as_ref().and_then(|record| record.mounts)
    }

    fn map_ports(&mut self) -> Result<()> {
        let (Some(gateway), Some(attachment), Some(lease), Some(host), Some(state)) =
            (&mut self.gateway, &self.attachment, &self.lease, &mut self.host, &mut self.state)
        else {
            return Ok(());
        };
        let ports = self.waiting.ports();
        if ports.is_empty() && attachment.snat.is_none() {
            return Ok(());
        }
        let locked = state.lock()?;
        attach::open_ports(&locked, gateway, attachment, &ports)?;
        let nft = host.nft(&locked, &census(locked.slots()))?;
        lease.announce(&locked, Shared::HostNft, nft.as_fd());
        heal::map_ports(&locked, nft, attachment, &ports)
    }

    /// Waits for the end, and serves the box meanwhile. A keeper that cannot wait cannot keep: the box ends then, as if the
    /// launcher had gone.
    fn watch(&mut self, mut signals: Signals) -> Result<End> {
        let Self { start, first, waiting, files, .. } = self;
        let (lease, mounts) = (self.lease.as_ref(), self.record.as_ref().and_then(|record| record.mounts));
        let place = self.gateway.as_ref().zip(self.attachment.as_ref()).map(|(gateway, attachment)| Place {
            network: Arc::clone(&gateway.network),
            attachment: attachment.clone(),
        });
        self.watch = place.as_ref().map(|place| Watch::new(place.attachment.slot));
        let (questions, dns) = (self.questions.as_ref(), &start.request.dns);
        let helpers = errands::helpers(place, waiting, questions, &self.host_ports, dns)?;
        let files = Some(&files[..]).filter(|files| !files.is_empty());
        let files = files.map(|files| Files::new(files, first.process.pid));
        let gateway = self.gateway.as_mut();
        let living = (|| {
            let (gateway, attachment, lease) = (gateway?, self.attachment.as_mut()?, lease?);
            let (state, host, record) = (self.state.as_mut()?, self.host.as_mut()?, self.record.as_mut()?);
            let (first, members) = (*first, &self.questions.as_ref()?.members);
            let no_ipv6 = start.request.no_ipv6;
            Some(Living { state, host, gateway, lease, first, attachment, record, waiting, no_ipv6, members })
        })();
        let duties = Duties::new(helpers, files, living, self.publisher.as_mut());
        let care = Care { duties, watch: self.watch.as_mut(), control: &mut self.control, lease, mounts };
        supervise(first, self.launcher, &mut signals, start.request.timeout, care)
    }
}
