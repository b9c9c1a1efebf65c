//! `netbox rm`

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{Stop, text};
use crate::error::{Error, Result};
use crate::spec::Request;
use crate::spec::reference::BoxRef;
use crate::spec::request::RmRequest;

pub(super) const NAME: &str = "rm";

const USAGE: &str = "netbox rm [-f] BOX...\n       netbox rm --all";

#[derive(Debug, Args)]
struct RmArgs {
    /// Kill the box first, if it lives
    #[arg(short, long)]
    force: bool,

    /// Forget all that have ended
    #[arg(short, long)]
    all: bool,

    /// Names or ids, or the beginnings of ids
    #[arg(value_name = "BOX", hide = true)]
    boxes: Vec<OsString>,
}

pub(super) fn command() -> Command {
    RmArgs::augment_args(Command::new(NAME))
        .about("Forget detached boxes that have ended, and their output")
        .override_usage(USAGE)
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let RmArgs { force, all, boxes } = RmArgs::from_arg_matches_mut(matches)?;
    let contradict = |one: &str, other: &str, cause: &str| {
        Err(Error::usage(format!("{one} and {other} contradict each other")).because(cause).into())
    };
    match (all, boxes.first()) {
        (false, None) => return Err(Error::usage("rm needs a box to forget").hint(USAGE).into()),
        (true, Some(first)) => {
            let first = text("BOX", first)?;
            return contradict("-a/--all", first, "one means every box that has ended, the other this one");
        }
        (true, None) if force => {
            return contradict("-a/--all", "-f/--force", "all that have ended need not be killed");
        }
        _ => {}
    }
    let boxes = boxes.iter().map(|name| BoxRef::parse(text("BOX", name)?)).collect::<Result<_>>()?;
    Ok(Request::Rm(RmRequest { force, all, boxes }))
}
