//! `netbox ps`

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Stop;
use crate::error::Result;
use crate::spec::Request;

pub(super) const NAME: &str = "ps";

#[derive(Debug, Args)]
struct PsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn command() -> Command {
    PsArgs::augment_args(Command::new(NAME)).about("List the boxes").override_usage("netbox ps [--json]")
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let PsArgs { json } = PsArgs::from_arg_matches_mut(matches)?;
    Ok(Request::Ps { json })
}
