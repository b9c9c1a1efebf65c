//! The box's first process, top to bottom: from the host's namespaces to the command.
//!
//! Everything here runs in the child that the keeper forked. It begins with all of the caller's
//! privileges, in the host's namespaces, and ends in exec with none, in the box's.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};

use crate::apply::wiring;
use crate::error::{Context, Error, Kind, Result};
use crate::kernel::channel::{Channel, Incoming};
use crate::kernel::namespace::Kinds;
use crate::kernel::signal::OriginalMask;
use crate::kernel::terminal::Terminal;
use crate::kernel::{call_watch, entry, inherited, namespace, process, signal};
use crate::plan::environment::{Sources, environment, own, value_in};
use crate::plan::identity::Identity;
use crate::plan::privileges::Privileges;
use crate::plan::{self, settings};
use crate::spec::request::RunRequest;

use super::drop::drop_privileges;
use super::message::{BoxFacts, FromBox, ToBox};
use super::{box_network, init, mounts};

/// What the box's first process has to know before it starts.
#[derive(Debug)]
pub struct Inside<'a> {
    /// What was asked for.
    pub request: &'a RunRequest,
    /// Who the command runs as.
    pub identity: &'a Identity,
    /// What the command may do.
    pub privileges: Privileges,
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
    make_namespaces(inside.request)?;
    let below_init = inside.init.is_some();
    if let Some(init) = inside.init.take() {
        // From here on in the child: the process above is in all of the box's namespaces, and does nothing but wait.
        init::stay_behind(inside.identity, &init)?;
    }
    take_foreground(inside)?;
    keeper.send(&FromBox::Unshared, &[]).context(|| "cannot reach the keeper")?;
    let request = inside.request;
    let can_be_root = inside.privileges.can_be_root(inside.identity);
    // While the keeper makes the link.
    plan::mounts::before_settings(request, can_be_root).iter().try_for_each(mounts::make)?;
    if request.has_own_network() {
        wiring::set(&settings::of_box(&inside.privileges, inside.identity.gid), "in the box")?;
    }
    let cover = plan::mounts::after_settings(request, can_be_root);
    cover.iter().try_for_each(mounts::make)?;
    if let Some(name) = &request.hostname {
        nix::unistd::sethostname(name.as_str()).context(|| format!("cannot set the host name {name}"))?;
    }
    let (facts, files) = wait_for_link(keeper)?;
    if request.has_own_network() {
        box_network::configure(facts.link.as_ref(), cover.as_ref())?;
    }
    let watch = watch_for_listeners(request)?;
    let watch: Vec<_> = watch.iter().map(AsFd::as_fd).collect();
    keeper.send(&FromBox::Configured, &watch).context(|| "cannot reach the keeper")?;
    // While the keeper goes on with the link.
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
        die_with_keeper(inside.keeper)?;
    }
    process::close_on_exec_from(3).context(|| "cannot close the inherited descriptors")?;
    for number in &request.keep_fds {
        inherited::pass_on(*number).context(|| format!("cannot pass on file descriptor {number}"))?;
    }
    for fd in entry::closed_standard_descriptors() {
        process::close_standard(fd);
    }
    signal::restore(&inside.mask).context(|| "cannot restore the signal mask")?;
    Err(execute(&request.command, &environment))
}

/// A process group of its own, so that a signal to netbox's group reaches the command once, by the launcher.
fn take_foreground(inside: &Inside<'_>) -> Result<()> {
    let own = Pid::from_raw(0);
    setpgid(own, own).context(|| "cannot make a process group")?;
    if inside.take_terminal
        && let Some(terminal) = Terminal::controlling()
    {
        // The terminal may have hung up meanwhile: the command will see that by itself.
        let _ = terminal.give_to(nix::unistd::getpid());
    }
    Ok(())
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

/// With `-P`, what tells the keeper that a process of the box may be about to listen. While there are privileges: without
/// `no_new_privs`, which `--allow-new-privs` leaves out, it takes CAP_SYS_ADMIN.
fn watch_for_listeners(request: &RunRequest) -> Result<Option<OwnedFd>> {
    let install = || call_watch::install(&[libc::SYS_bind, libc::SYS_listen]);
    let watch = request.publish_all.then(install).transpose();
    watch.context(|| "cannot watch for what listens in the box (-P/--publish-all)").map_err(|error| {
        match error.errno() {
            Some(libc::EBUSY) => error.hint("netbox itself runs below such a watch: publish the ports by -p"),
            _ => error,
        }
    })
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
    let own = own(&facts.id, &facts.name, facts.link.as_ref());
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

/// After the last change of credentials, which would clear it (PR_SET_PDEATHSIG(2const)).
fn die_with_keeper(keeper: Pid) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context(|| "cannot set the parent-death signal")?;
    // It may have died before the line above.
    if getppid() == keeper { Ok(()) } else { Err(gone()) }
}

/// Replaces this process by the command: execvp(3) with the PATH of the new environment. Returns why not.
fn execute(command: &[OsString], environment: &[OsString]) -> Error {
    let Some(name) = command.first() else { return Error::usage("no command to run") };
    let shown = if name.is_empty() { "\"\"".to_owned() } else { name.to_string_lossy().into_owned() };
    let c_string = |bytes: Vec<u8>| CString::new(bytes).ok();
    let arguments: Option<Vec<_>> = command.iter().map(|word| c_string(word.as_bytes().to_vec())).collect();
    let variables: Option<Vec<_>> =
        environment.iter().map(|entry| c_string(entry.as_bytes().to_vec())).collect();
    let (Some(arguments), Some(variables)) = (arguments, variables) else {
        return Error::new(format!("cannot run {shown}")).because("an argument holds a NUL byte");
    };
    let path = value_in(environment, OsStr::new("PATH")).map(OsStr::as_bytes);
    let mut worst = Errno::ENOENT;
    for candidate in candidates(name.as_bytes(), path) {
        let Some(candidate) = c_string(candidate) else { continue };
        let Err(errno) = nix::unistd::execve(&candidate, &arguments, &variables);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            // execvp(3): remembered while the rest of PATH is tried. A directory that this user may not search says nothing of
            // what is in it, unless it was named.
            Errno::EACCES if is_there(&candidate) || name.as_bytes().contains(&b'/') => worst = errno,
            Errno::EACCES => {}
            _ => {
                worst = errno;
                break;
            }
        }
    }
    not_executed(&shown, worst)
}

fn is_there(path: &CString) -> bool {
    nix::sys::stat::stat(path.as_c_str()).is_ok()
}

fn candidates(name: &[u8], path: Option<&[u8]>) -> Vec<Vec<u8>> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    // confstr(_CS_PATH) is what execvp(3) takes where PATH is unset.
    let path = path.unwrap_or(b"/bin:/usr/bin");
    path.split(|byte| *byte == b':')
        .map(|directory| match directory {
            b"" => name.to_vec(),
            _ => [directory, b"/", name].concat(),
        })
        .collect()
}

fn not_executed(name: &str, errno: Errno) -> Error {
    let error = Error::new(format!("cannot run {name}"));
    match errno {
        Errno::ENOENT => error.because("command not found").kind(Kind::NotFound),
        Errno::ENOEXEC => error
            .os(&errno.into())
            .hint("a script needs a first line such as #!/bin/sh")
            .kind(Kind::NotExecutable),
        _ => error.os(&errno.into()).kind(Kind::NotExecutable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_every_directory_of_path_in_order_and_an_empty_one_is_the_current() {
        assert_eq!(
            candidates(b"ls", Some(b"/a::/b")),
            [b"/a/ls".to_vec(), b"ls".to_vec(), b"/b/ls".to_vec()]
        );
        assert_eq!(candidates(b"./ls", Some(b"/a")), [b"./ls".to_vec()]);
        assert!(candidates(b"", Some(b"/a")).is_empty());
    }
}
