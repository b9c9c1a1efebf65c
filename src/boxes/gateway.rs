//! `netbox gateway -- CMD`: an administrator's look inside. The command has all of the caller's rights.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::apply::census::census;
use crate::apply::gateway;
use crate::apply::host::Host;
use crate::apply::state::State;
use crate::error::{Context, Error, Kind, Result};
use crate::kernel::namespace;

/// Runs `command` in the gateway's network namespace, in place of this process.
///
/// While it runs it holds the namespace open, so that what happens there can be watched to the end.
///
/// # Errors
/// When there is no gateway, or the command cannot be run.
pub fn gateway(command: &[OsString]) -> Result<Infallible> {
    let (name, arguments) =
        command.split_first().ok_or_else(|| Error::usage("no command to run in the gateway"))?;
    let no_gateway =
        || Error::new("there is no gateway").hint("it lives as long as a box does: netbox run …");
    let mut state = State::open_existing()?.ok_or_else(no_gateway)?;
    let host = Host::open()?;
    let network = {
        let locked = state.lock()?;
        let record = gateway::record(&locked).ok_or_else(no_gateway)?;
        gateway::join(&record, &host, &census(locked.slots()))?.ok_or_else(no_gateway)?.network
    };
    namespace::enter_network(network.as_fd()).context(|| "cannot enter the gateway")?;
    let error = Command::new(name).args(arguments).exec();
    let shown = name.to_string_lossy();
    let kind =
        if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::NotExecutable };
    Err(Error::new(format!("cannot run {shown}")).os(&error).kind(kind))
}
