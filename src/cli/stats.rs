//! `netbox stats`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, a_box};
use crate::error::Result;
use crate::spec::Request;

pub(super) const NAME: &str = "stats";

#[derive(Debug, Args)]
struct StatsArgs {
    /// Once, and not again every second
    #[arg(long)]
    no_stream: bool,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Names or ids of boxes
    #[arg(value_name = "BOX", hide = true)]
    boxes: Vec<OsString>,
}

pub(super) fn command() -> Command {
    StatsArgs::augment_args(Command::new(NAME))
        .about("Show the traffic of boxes, every second")
        .override_usage("netbox stats [--no-stream] [--json] [BOX...]")
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let StatsArgs { no_stream, json, boxes } = StatsArgs::from_arg_matches_mut(matches)?;
    let boxes = boxes.iter().map(|word| a_box(word)).collect::<Result<_>>()?;
    Ok(Request::Stats { boxes, stream: !no_stream, json })
}
