//! The box's first process, top to bottom: from the host's namespaces to the command.
//!
//! Everything here runs in the child that the keeper forked. It begins with all of the caller's
//! privileges, in the host's namespaces, and ends in exec with none, in the box's.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::apply::state::crowd;
use crate::apply::wiring;
use crate::error::{Context, Error, Result};
use crate::kernel::channel::{Channel, Incoming};
use crate::kernel::namespace::Kinds;
use crate::kernel::net_cookie::netns_cookie;
use crate::kernel::signal::OriginalMask;
use crate::kernel::{entry, mount, namespace};
use crate::plan::environment::{Sources, environment, own};
use crate::plan::identity::Identity;
use crate::plan::privileges::Privileges;
use crate::plan::{self, settings};
use crate::spec::request::RunRequest;

use super::drop::drop_privileges;
use super::init::Post;
use super::message::{BoxFacts, FromBox, ToBox};
use super::{box_network, command, idle, init, mounts};

/// From so many boxes on a /proc of one's own is cheaper than the one that all use.
const CROWD: u32 = 100;

/// What the box's first process has to know before it starts.
#[derive(Debug)]
pub struct Inside<'a> {
    /// What was asked for.
    pub request: &'a RunRequest,
    /// Who the command runs as.
    pub identity: &'a Identity,
    /// What the command may do.
    pub privileges: Privileges,
    /// The network that it shares, where that is neither its own nor the host's.
    pub network: Option<BorrowedFd<'a>>,
    /// What netbox blocked and the command gets back.
    pub mask: OriginalMask,
    /// Whether the command takes the terminal's foreground from the launcher at once.
    pub take_terminal: bool,
    /// The keeper, without which there must be no command.
    pub keeper: Pid,
    /// To the keeper, where this process is to stay as the init of a pid namespace.
    pub init: Option<Channel>,
}

/// Runs the box's first process. Returns only when it failed, with the status to end with.
pub fn first_process(mut inside: Inside<'_>, keeper: &Channel) -> u8 {
    match become_command(&mut inside, keeper) {
        Ok(never) => match never {},
        Err(error) => {
            let status = error.exit_status();
            // The keeper may be gone: then nobody is left to tell, and the box dies as it should.
            let _ = keeper.send(&FromBox::Failed(error), &[]);
            status
        }
    }
}

fn become_command(inside: &mut Inside<'_>, keeper: &Channel) -> Result<Infallible> {
    if inside.privileges.own_users {
        wait_for_users(keeper)?;
    }
    if let Some(network) = inside.network {
        // Before its own /sys is mounted, which is that of the network.
        namespace::enter_network(network).context(|| format!("cannot enter {}", inside.request.net))?;
    }
    make_namespaces(inside.request)?;
    let below_init = inside.init.is_some();
    if let Some(init) = inside.init.take() {
        // From here on in the child: the process above is in all of the box's namespaces, and does nothing but wait.
        init::stay_behind(Post::Init, inside.identity, &init)?;
    }
    command::take_foreground(inside.take_terminal)?;
    keeper.send(&FromBox::Unshared, &[]).context(|| "cannot reach the keeper")?;
    let request = inside.request;
    let can_be_root = inside.privileges.can_be_root(inside.identity);
    // While the keeper makes the link.
    plan::mounts::before_settings(request, can_be_root).iter().try_for_each(mounts::make)?;
    let proc = if request.has_own_network() { set(inside, keeper)? } else { None };
    let cover = plan::mounts::after_settings(request, can_be_root);
    cover.iter().try_for_each(mounts::make)?;
    if let Some(name) = &request.hostname {
        nix::unistd::sethostname(name.as_str()).context(|| format!("cannot set the host name {name}"))?;
    }
    let (facts, files) = wait_for_link(keeper)?;
    if request.has_own_network() {
        box_network::configure(&facts.links, cover.as_ref())?;
    }
    let watch = request.publish_all.then(command::watch_for_listeners).transpose()?;
    // Who closes that /proc waits for RCU: not the command, which is about to begin.
    let for_keeper: Vec<_> = watch.iter().chain(&proc).map(AsFd::as_fd).collect();
    keeper.send(&FromBox::Configured, &for_keeper).context(|| "cannot reach the keeper")?;
    // While the keeper goes on with the link.
    if let Some((directory, names)) = &facts.etc {
        names.iter().try_for_each(|name| mounts::put_file_of(directory, name))?;
    }
    for (path, file) in facts.files.iter().zip(&files) {
        mounts::put(file.as_fd(), path)?;
    }
    let environment = own_environment(inside, &facts);
    wait_for_start(keeper)?;
    drop_privileges(inside.identity, &inside.privileges)?;
    // As the new user: a directory that the user may not enter is refused as it would be to them.
    enter_workdir(inside)?;
    if !below_init {
        // Below an init the kernel kills everybody with it, and it dies with the keeper.
        command::die_with(inside.keeper)?;
    }
    if request.command.is_empty() {
        return idle::wait_to_the_end();
    }
    // Those that a detached command has were never the caller's.
    let closed = entry::closed_standard_descriptors().filter(|_| !request.detach);
    command::hand_over(&inside.mask, &request.keep_fds, closed)?;
    Err(command::execute(&request.command, &environment))
}

/// Writes the settings of the box's network.
///
/// The kernel keeps the name of a setting once for each network namespace that has looked at it, all in one place, and goes
/// through them at the first look of another (`proc_sys_compare`): 14 µs for the first box, 0.98 ms beside a thousand. In a /proc
/// of one's own there are none. To make it takes 45 µs, so it is made in a crowd only; it is returned, to be closed by
/// somebody who has time.
fn set(inside: &Inside<'_>, keeper: &Channel) -> Result<Option<OwnedFd>> {
    let settings =
        settings::of_box_with(inside.request.net.count_links(), &inside.privileges, inside.identity.gid);
    // The channel is of the host's network namespace, where the keeper made it. A new pid namespace has got a new /proc.
    let in_crowd =
        || !inside.request.unshare.pid && netns_cookie(keeper.as_fd()).is_ok_and(|host| crowd(host) >= CROWD);
    // EPERM in a container; before Linux 5.2 there is no such call.
    let proc = in_crowd().then(mount::own_proc).and_then(std::result::Result::ok);
    match &proc {
        Some(proc) => wiring::set_in(proc.as_fd(), &settings, "in the box"),
        None => wiring::set(&settings, "in the box"),
    }?;
    Ok(proc)
}

fn make_namespaces(request: &RunRequest) -> Result<()> {
    namespace::make(Kinds {
        network: request.has_own_network(),
        mounts: request.has_own_mounts(),
        uts: request.has_own_hostname(),
        ipc: request.unshare.ipc,
    })
    .map_err(|errno| {
        let error = Error::new("cannot make the box's namespaces").os(&errno.into());
        match errno {
            Errno::ENOSPC => error.hint(
                "the limits are user.max_net_namespaces and its like (sysctl user); `lsns` shows who has them",
            ),
            _ => error,
        }
    })
}

/// Until then every user of the host is `nobody` here.
fn wait_for_users(keeper: &Channel) -> Result<()> {
    match keeper.receive::<ToBox>().context(|| "cannot hear the keeper")? {
        Some(Incoming { message: ToBox::UsersMapped, .. }) => Ok(()),
        Some(_) => Err(Error::new("the keeper skipped a step")),
        None => Err(gone()),
    }
}

fn wait_for_link(keeper: &Channel) -> Result<(BoxFacts, Vec<OwnedFd>)> {
    match keeper.receive::<ToBox>().context(|| "cannot hear the keeper")? {
        Some(incoming) => match incoming.message {
            ToBox::Configure(facts) => Ok((facts, incoming.descriptors)),
            ToBox::UsersMapped | ToBox::Run => Err(Error::new("the keeper skipped a step")),
        },
        None => Err(gone()),
    }
}

fn wait_for_start(keeper: &Channel) -> Result<()> {
    match keeper.receive::<ToBox>().context(|| "cannot hear the keeper")? {
        Some(_) => Ok(()),
        None => Err(gone()),
    }
}

fn gone() -> Error {
    Error::new("the keeper of this box is gone")
}

fn own_environment(inside: &Inside<'_>, facts: &BoxFacts) -> Vec<OsString> {
    let caller = entry::environment();
    let own = own(&facts.id, &facts.name, facts.links.first());
    environment(&Sources {
        caller: &caller,
        clear: inside.request.clear_env,
        settings: &inside.request.env,
        account: inside.identity.account.as_ref(),
        own: &own,
    })
}

fn enter_workdir(inside: &Inside<'_>) -> Result<()> {
    match &inside.request.workdir {
        Some(path) => nix::unistd::chdir(path).context(|| format!("cannot enter {}", path.display())),
        None => Ok(()),
    }
}
