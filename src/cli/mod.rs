//! The command line: from what was typed to a [`Request`], or to what to say instead.
//!
//! One file per command, each with its options and what they mean as values. Nothing here reads or
//! changes the machine.

#![forbid(unsafe_code)]

mod gateway;
mod gc;
mod network;
mod port;
mod ps;
mod run;
mod stop;
mod wait;

use std::ffi::{OsStr, OsString};

use clap::{ArgMatches, Command};

use crate::error::{Error, Result};
use crate::spec::Request;

pub use stop::Stop;

/// A command of netbox: how it is called, what can follow, and what that asks for.
struct Subcommand {
    name: &'static str,
    command: fn() -> Command,
    request: fn(&mut ArgMatches) -> Result<Request, Stop>,
}

const SUBCOMMANDS: [Subcommand; 7] = [
    Subcommand { name: run::NAME, command: run::command, request: run::request },
    Subcommand { name: ps::NAME, command: ps::command, request: ps::request },
    Subcommand { name: port::NAME, command: port::command, request: port::request },
    Subcommand { name: wait::NAME, command: wait::command, request: wait::request },
    Subcommand { name: network::NAME, command: network::command, request: network::request },
    Subcommand { name: gc::NAME, command: gc::command, request: gc::request },
    Subcommand { name: gateway::NAME, command: gateway::command, request: gateway::request },
];

/// Reads a command line, the program's name included.
///
/// # Errors
/// With help or version, where that was asked for, and with what is wrong (exit 2) otherwise.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, Stop> {
    let mut matches = command().try_get_matches_from(args)?;
    let (name, mut matches) = matches.remove_subcommand().unwrap_or_default();
    match SUBCOMMANDS.iter().find(|subcommand| name == subcommand.name) {
        Some(subcommand) => (subcommand.request)(&mut matches),
        // clap has refused it already.
        None => Err(Error::usage(format!("there is no command {name:?}")).into()),
    }
}

/// The whole command line, for help, manual pages and completions.
#[must_use]
pub fn command() -> Command {
    Command::new("netbox")
        .bin_name("netbox")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Starts a command behind its own NAT router and takes everything away when the command ends")
        .subcommand_required(true)
        .subcommands(SUBCOMMANDS.iter().map(|subcommand| (subcommand.command)()))
}

/// The text of an option's value, for values that cannot be arbitrary bytes.
fn text<'a>(option: &str, value: &'a OsStr) -> Result<&'a str> {
    value.to_str().ok_or_else(|| {
        Error::usage(format!("invalid value {value:?} for {option}")).because("it is not UTF-8")
    })
}
