//! `netbox pids`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, a_box};
use crate::error::{Error, Result};
use crate::spec::Request;

pub(super) const NAME: &str = "pids";

const USAGE: &str = "netbox pids [--json] BOX";

#[derive(Debug, Args)]
struct PidsArgs {
    /// As JSON
    #[arg(long)]
    json: bool,

    /// The name or the id of a box
    #[arg(value_name = "BOX", hide = true)]
    of: Option<OsString>,
}

pub(super) fn command() -> Command {
    PidsArgs::augment_args(Command::new(NAME)).about("List the processes of a box").override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let PidsArgs { json, of } = PidsArgs::from_arg_matches_mut(matches)?;
    let of = of.ok_or_else(|| Error::usage("pids needs the name or the id of a box").hint(USAGE))?;
    Ok(Request::Pids { of: a_box(&of)?, json })
}
