//! `netbox monitor`

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Stop;
use crate::error::Result;
use crate::spec::Request;

pub(super) const NAME: &str = "monitor";

#[derive(Debug, Args)]
struct MonitorArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn command() -> Command {
    MonitorArgs::augment_args(Command::new(NAME))
        .about("Tell when boxes start and end, and when their ports change")
        .override_usage("netbox monitor [--json]")
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let MonitorArgs { json } = MonitorArgs::from_arg_matches_mut(matches)?;
    Ok(Request::Monitor { json })
}
