//! `netbox port`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, a_box};
use crate::error::{Error, Result};
use crate::spec::{PortCommand, Request};

pub(super) const NAME: &str = "port";

/// One of the commands below `port`.
struct Verb {
    name: &'static str,
    command: fn() -> Command,
    request: fn(&mut ArgMatches) -> Result<PortCommand, Stop>,
}

const VERBS: [Verb; 1] = [Verb { name: LS, command: ls_command, request: ls }];

pub(super) fn command() -> Command {
    Command::new(NAME)
        .about("Show the published ports of boxes")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(VERBS.iter().map(|verb| (verb.command)()))
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let (name, mut matches) = matches.remove_subcommand().unwrap_or_default();
    match VERBS.iter().find(|verb| name == verb.name) {
        Some(verb) => (verb.request)(&mut matches).map(Request::Port),
        // clap has refused it already.
        None => Err(Error::usage(format!("there is no command port {name:?}")).into()),
    }
}

const LS: &str = "ls";

#[derive(Debug, Args)]
struct LsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,

    /// The name or the id of a box
    #[arg(value_name = "BOX", hide = true)]
    of: Option<OsString>,
}

fn ls_command() -> Command {
    LsArgs::augment_args(Command::new(LS))
        .about("List the published ports of a box, or of all boxes")
        .override_usage("netbox port ls [--json] [BOX]")
}

fn ls(matches: &mut ArgMatches) -> Result<PortCommand, Stop> {
    let LsArgs { json, of } = LsArgs::from_arg_matches_mut(matches)?;
    Ok(PortCommand::List { of: of.map(|word| a_box(&word)).transpose()?, json })
}
