//! `netbox identify`

use std::ffi::{OsStr, OsString};

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, text};
use crate::error::{Error, Result};
use crate::spec::Request;

pub(super) const NAME: &str = "identify";

#[derive(Debug, Args)]
struct IdentifyArgs {
    /// The number of a process
    #[arg(value_name = "PID", hide = true, allow_hyphen_values = true)]
    pid: Option<OsString>,
}

pub(super) fn command() -> Command {
    IdentifyArgs::augment_args(Command::new(NAME))
        .about("Tell which box a process is in")
        .override_usage("netbox identify [PID]")
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let IdentifyArgs { pid } = IdentifyArgs::from_arg_matches_mut(matches)?;
    Ok(Request::Identify { pid: pid.map(|word| number(&word)).transpose()? })
}

fn number(word: &OsStr) -> Result<i32> {
    let word = text("PID", word)?;
    let number = word.parse().ok().filter(|number| *number > 0 && !word.starts_with('+'));
    number.ok_or_else(|| Error::usage(format!("invalid process number {word:?}")))
}
