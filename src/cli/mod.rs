//! The command line: from what was typed to a [`Request`], or to what to say instead.
//!
//! One file per command, each with its options and what they mean as values. Nothing here reads or
//! changes the machine.

#![forbid(unsafe_code)]

mod exec;
mod gateway;
mod gc;
mod halt;
mod identify;
mod inspect;
mod kill;
mod logs;
mod monitor;
mod network;
mod pids;
mod port;
mod ps;
mod rm;
mod run;
mod stats;
mod stop;
mod wait;

use std::ffi::{OsStr, OsString};

use clap::{ArgMatches, Command};

use crate::error::{Error, Result};
use crate::spec::{BoxRef, Request};

pub use stop::Stop;

/// A command of netbox: how it is called, what can follow, and what that asks for.
struct Subcommand {
    name: &'static str,
    command: fn() -> Command,
    request: fn(&mut ArgMatches) -> Result<Request, Stop>,
}

const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand { name: run::NAME, command: run::command, request: run::request },
    Subcommand { name: exec::NAME, command: exec::command, request: exec::request },
    Subcommand { name: ps::NAME, command: ps::command, request: ps::request },
    Subcommand { name: port::NAME, command: port::command, request: port::request },
    Subcommand { name: logs::NAME, command: logs::command, request: logs::request },
    Subcommand { name: wait::NAME, command: wait::command, request: wait::request },
    Subcommand { name: rm::NAME, command: rm::command, request: rm::request },
    Subcommand { name: inspect::NAME, command: inspect::command, request: inspect::request },
    Subcommand { name: pids::NAME, command: pids::command, request: pids::request },
    Subcommand { name: identify::NAME, command: identify::command, request: identify::request },
    Subcommand { name: stats::NAME, command: stats::command, request: stats::request },
    Subcommand { name: monitor::NAME, command: monitor::command, request: monitor::request },
    Subcommand { name: halt::NAME, command: halt::command, request: halt::request },
    Subcommand { name: kill::NAME, command: kill::command, request: kill::request },
    Subcommand { name: network::NAME, command: network::command, request: network::request },
    Subcommand { name: gc::NAME, command: gc::command, request: gc::request },
    Subcommand { name: gateway::NAME, command: gateway::command, request: gateway::request },
];

/// Reads a command line, the program's name included.
///
/// # Errors
/// With help or version, where that was asked for, and with what is wrong (exit 2) otherwise.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, Stop> {
    let mut args = args.into_iter().peekable();
    let program = args.next();
    // To make all of them takes three times as long as to make the one that is meant.
    let meant = SUBCOMMANDS.iter().find(|subcommand| args.peek().is_some_and(|word| word == subcommand.name));
    let command = command_of(meant.map_or(SUBCOMMANDS, std::slice::from_ref));
    let mut matches = command.try_get_matches_from(program.into_iter().chain(args))?;
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
    command_of(SUBCOMMANDS)
}

fn command_of(subcommands: &[Subcommand]) -> Command {
    Command::new("netbox")
        .bin_name("netbox")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Starts a command behind its own NAT router and takes everything away when the command ends")
        .subcommand_required(true)
        .subcommands(subcommands.iter().map(|subcommand| (subcommand.command)()))
}

/// A box that a command is to find.
fn a_box(word: &OsStr) -> Result<BoxRef> {
    BoxRef::parse(text("BOX", word)?)
}

/// The boxes that a command is to find, at least one.
fn some_boxes(words: &[OsString], command: &str, usage: &str) -> Result<Vec<BoxRef>> {
    if words.is_empty() {
        return Err(Error::usage(format!("{command} needs the name or the id of a box")).hint(usage));
    }
    words.iter().map(|word| a_box(word)).collect()
}

/// The text of an option's value, for values that cannot be arbitrary bytes.
fn text<'a>(option: &str, value: &'a OsStr) -> Result<&'a str> {
    value.to_str().ok_or_else(|| {
        Error::usage(format!("invalid value {value:?} for {option}")).because("it is not UTF-8")
    })
}
