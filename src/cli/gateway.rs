//! `netbox gateway`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Stop;
use crate::error::{Error, Result};
use crate::spec::Request;

pub(super) const NAME: &str = "gateway";

const USAGE: &str = "netbox gateway [--] COMMAND [ARG...]";

#[derive(Debug, Args)]
struct GatewayArgs {
    /// The command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, hide = true)]
    command: Vec<OsString>,
}

pub(super) fn command() -> Command {
    GatewayArgs::augment_args(Command::new(NAME))
        .about("Start a command in the gateway's network, to look at it")
        .override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let GatewayArgs { command } = GatewayArgs::from_arg_matches_mut(matches)?;
    if command.is_empty() {
        return Err(Error::usage("gateway needs a command to start").hint(USAGE).into());
    }
    Ok(Request::Gateway { command })
}
