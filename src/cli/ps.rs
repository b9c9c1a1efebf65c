//! `netbox ps`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, text};
use crate::error::{Error, Result};
use crate::spec::{Filters, Request};

pub(super) const NAME: &str = "ps";

#[derive(Debug, Args)]
struct PsArgs {
    /// Detached boxes that have ended too
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,

    /// Only boxes with name=PART, id=START, net=NETWORK, status=running|exited or exited=STATUS
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    filter: Vec<OsString>,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn command() -> Command {
    PsArgs::augment_args(Command::new(NAME)).about("List the boxes").override_usage("netbox ps [OPTIONS]")
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let PsArgs { all, quiet, filter, json } = PsArgs::from_arg_matches_mut(matches)?;
    if quiet && json {
        return Err(Error::usage("-q/--quiet and --json contradict each other")
            .because("one asks for ids alone, the other for everything")
            .into());
    }
    let mut filters = Filters::default();
    filter.iter().try_for_each(|word| filters.add(text("--filter", word)?))?;
    Ok(Request::Ps { all, json, quiet, filters })
}
