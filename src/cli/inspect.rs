//! `netbox inspect`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, some_boxes, text};
use crate::error::Result;
use crate::spec::{JsonPointer, Request};

pub(super) const NAME: &str = "inspect";

const USAGE: &str = "netbox inspect [--format POINTER] BOX...";

#[derive(Debug, Args)]
struct InspectArgs {
    /// Print one part, by its JSON pointer: /0/addresses/ipv4
    #[arg(long, value_name = "POINTER", allow_hyphen_values = true)]
    format: Option<OsString>,

    /// Names or ids of boxes
    #[arg(value_name = "BOX", hide = true)]
    boxes: Vec<OsString>,
}

pub(super) fn command() -> Command {
    InspectArgs::augment_args(Command::new(NAME))
        .about("Show everything about boxes, as JSON")
        .override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let InspectArgs { format, boxes } = InspectArgs::from_arg_matches_mut(matches)?;
    let pointer = format.map(|word| JsonPointer::parse(text("--format", &word)?)).transpose()?;
    Ok(Request::Inspect { boxes: some_boxes(&boxes, NAME, USAGE)?, pointer })
}
