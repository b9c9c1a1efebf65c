//! `netbox kill`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, some_boxes, text};
use crate::error::Result;
use crate::spec::{Request, SignalNumber};

pub(super) const NAME: &str = "kill";

const USAGE: &str = "netbox kill [-s SIGNAL] BOX...";

#[derive(Debug, Args)]
struct KillArgs {
    /// Which signal: a name or a number [default: KILL]
    #[arg(short, long, value_name = "SIGNAL", allow_hyphen_values = true)]
    signal: Option<OsString>,

    /// Names or ids of boxes
    #[arg(value_name = "BOX", hide = true)]
    boxes: Vec<OsString>,
}

pub(super) fn command() -> Command {
    KillArgs::augment_args(Command::new(NAME))
        .about("Send a signal to the commands of boxes")
        .override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let KillArgs { signal, boxes } = KillArgs::from_arg_matches_mut(matches)?;
    let signal = match signal {
        Some(word) => SignalNumber::parse(text("-s/--signal", &word)?)?,
        None => SignalNumber::KILL,
    };
    Ok(Request::Kill { boxes: some_boxes(&boxes, NAME, USAGE)?, signal })
}
