//! `netbox wait`

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Stop;
use crate::error::{Error, Result};
use crate::spec::{BoxRef, Request};

pub(super) const NAME: &str = "wait";

const USAGE: &str = "netbox wait BOX...";

#[derive(Debug, Args)]
struct WaitArgs {
    /// A box: its name, its id or the beginning of its id
    #[arg(value_name = "BOX")]
    boxes: Vec<String>,
}

pub(super) fn command() -> Command {
    WaitArgs::augment_args(Command::new(NAME))
        .about("Wait for the end of boxes, and exit as the last one did")
        .override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let WaitArgs { boxes } = WaitArgs::from_arg_matches_mut(matches)?;
    if boxes.is_empty() {
        return Err(Error::usage("wait needs a box to wait for").hint(USAGE).into());
    }
    let boxes = boxes.iter().map(|name| BoxRef::parse(name)).collect::<Result<_>>()?;
    Ok(Request::Wait { boxes })
}
