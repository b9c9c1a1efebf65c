//! `netbox logs`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, text};
use crate::error::{Error, Result};
use crate::spec::Request;
use crate::spec::reference::BoxRef;
use crate::spec::request::LogsRequest;

pub(super) const NAME: &str = "logs";

const USAGE: &str = "netbox logs [OPTIONS] BOX";

#[derive(Debug, Args)]
struct LogsArgs {
    /// Go on until the box has ended
    #[arg(short, long)]
    follow: bool,

    /// Begin with the last N lines; `all` for all
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    tail: Option<OsString>,

    /// Put before each line when it was printed
    #[arg(short, long)]
    timestamps: bool,

    /// Its name or id, or the beginning of its id
    #[arg(value_name = "BOX", hide = true)]
    of: Option<OsString>,
}

pub(super) fn command() -> Command {
    LogsArgs::augment_args(Command::new(NAME)).about("Show what a detached box printed").override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let LogsArgs { follow, tail, timestamps, of } = LogsArgs::from_arg_matches_mut(matches)?;
    let of = of.ok_or_else(|| Error::usage("logs needs a box").hint(USAGE))?;
    let of = BoxRef::parse(text("BOX", &of)?)?;
    let tail = tail.map(|tail| lines(text("-n/--tail", &tail)?)).transpose()?.flatten();
    Ok(Request::Logs(LogsRequest { of, follow, tail, timestamps }))
}

/// `None`: all.
fn lines(number: &str) -> Result<Option<usize>> {
    if number == "all" {
        return Ok(None);
    }
    match number.parse() {
        Ok(lines) if !number.starts_with('+') => Ok(Some(lines)),
        _ => Err(Error::usage(format!("invalid number of lines {number:?} for -n/--tail"))
            .hint("a number, or all")),
    }
}
