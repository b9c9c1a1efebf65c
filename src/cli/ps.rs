//! `netbox ps`

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Stop;
use crate::error::Result;
use crate::spec::Request;

pub(super) const NAME: &str = "ps";

#[derive(Debug, Args)]
struct PsArgs {
    /// Detached boxes that have ended too
    #[arg(short, long)]
    all: bool,

    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn command() -> Command {
    PsArgs::augment_args(Command::new(NAME)).about("List the boxes").override_usage("netbox ps [-a] [--json]")
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let PsArgs { all, json } = PsArgs::from_arg_matches_mut(matches)?;
    Ok(Request::Ps { all, json })
}
