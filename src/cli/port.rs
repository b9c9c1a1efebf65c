//! `netbox port`

use std::ffi::OsString;
use std::str::FromStr;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, a_box, text};
use crate::error::{Error, Result};
use crate::spec::{BoxRef, PortCommand, Request};

pub(super) const NAME: &str = "port";

/// One of the commands below `port`.
struct Verb {
    name: &'static str,
    command: fn() -> Command,
    request: fn(&mut ArgMatches) -> Result<PortCommand, Stop>,
}

const VERBS: [Verb; 3] = [
    Verb { name: LS, command: ls_command, request: ls },
    Verb { name: ADD, command: add_command, request: add },
    Verb { name: RM, command: rm_command, request: rm },
];

pub(super) fn command() -> Command {
    Command::new(NAME)
        .about("List and change the published ports of boxes")
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
const ADD: &str = "add";
const ADD_USAGE: &str = "netbox port add NAME SPEC...";
const RM: &str = "rm";
const RM_USAGE: &str = "netbox port rm NAME SPEC...";

#[derive(Debug, Args)]
struct LsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,

    /// The name or the id of a box
    #[arg(value_name = "BOX", hide = true)]
    of: Option<OsString>,

    /// A port of the box
    #[arg(value_name = "PORT", hide = true)]
    port: Option<OsString>,
}

fn ls_command() -> Command {
    LsArgs::augment_args(Command::new(LS))
        .about("List the published ports of a box, or of all boxes")
        .override_usage("netbox port ls [--json] [BOX [PORT[/PROTOCOL]]]")
}

fn ls(matches: &mut ArgMatches) -> Result<PortCommand, Stop> {
    let LsArgs { json, of, port } = LsArgs::from_arg_matches_mut(matches)?;
    let port = port.map(|word| text("PORT", &word)?.parse()).transpose()?;
    Ok(PortCommand::List { of: of.map(|word| a_box(&word)).transpose()?, port, json })
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// The name or the id of a box
    #[arg(value_name = "NAME", hide = true)]
    of: Option<String>,

    /// The ports
    #[arg(value_name = "SPEC", hide = true)]
    ports: Vec<String>,
}

fn add_command() -> Command {
    ChangeArgs::augment_args(Command::new(ADD))
        .about("Publish ports of a box that runs, as run -p does")
        .override_usage(ADD_USAGE)
}

fn rm_command() -> Command {
    ChangeArgs::augment_args(Command::new(RM))
        .about("Give up published ports of a box that runs: [IP:]HOSTPORT[-END][:BOXPORT[-END]][/PROTOCOL]")
        .override_usage(RM_USAGE)
}

fn add(matches: &mut ArgMatches) -> Result<PortCommand, Stop> {
    let (of, ports) = change(matches, "port add", ADD_USAGE)?;
    Ok(PortCommand::Add { of, ports })
}

fn rm(matches: &mut ArgMatches) -> Result<PortCommand, Stop> {
    let (of, ports) = change(matches, "port rm", RM_USAGE)?;
    Ok(PortCommand::Remove { of, ports })
}

fn change<T: FromStr<Err = Error>>(
    matches: &mut ArgMatches,
    command: &str,
    usage: &str,
) -> Result<(BoxRef, Vec<T>), Stop> {
    let ChangeArgs { of, ports } = ChangeArgs::from_arg_matches_mut(matches)?;
    let of =
        of.ok_or_else(|| Error::usage(format!("{command} needs the name or the id of a box")).hint(usage))?;
    if ports.is_empty() {
        return Err(Error::usage(format!("{command} needs a port")).hint(usage).into());
    }
    let ports = ports.iter().map(|port| port.parse()).collect::<Result<_>>()?;
    Ok((BoxRef::parse(&of)?, ports))
}
