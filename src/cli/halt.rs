//! `netbox stop`

use std::ffi::OsString;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, some_boxes, text};
use crate::error::{Error, Result};
use crate::spec::{Request, Which, timeout};

pub(super) const NAME: &str = "stop";

const USAGE: &str = "netbox stop [-t DURATION] BOX... | --all";

/// As long as docker-stop(1) waits.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
struct StopArgs {
    /// Kill what has not ended after so long: seconds, or 500ms, 1m [default: 10]
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true)]
    time: Option<OsString>,

    /// Every box
    #[arg(long)]
    all: bool,

    /// Names or ids of boxes
    #[arg(value_name = "BOX", hide = true)]
    boxes: Vec<OsString>,
}

pub(super) fn command() -> Command {
    StopArgs::augment_args(Command::new(NAME))
        .about("End boxes: SIGTERM to the command, and after a while SIGKILL")
        .override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let StopArgs { time, all, boxes } = StopArgs::from_arg_matches_mut(matches)?;
    let time = time.map(|word| timeout::patience(text("-t/--time", &word)?)).transpose()?;
    let which = match (all, boxes.is_empty()) {
        (true, true) => Which::All,
        (true, false) => {
            return Err(Error::usage("--all and BOX contradict each other")
                .because("one means every box, the other some")
                .into());
        }
        (false, _) => Which::Named(some_boxes(&boxes, NAME, USAGE)?),
    };
    Ok(Request::Stop { which, time: time.unwrap_or(PATIENCE) })
}
