//! `netbox gc`

use clap::{ArgMatches, Command};

use super::Stop;
use crate::error::Result;
use crate::spec::Request;

pub(super) const NAME: &str = "gc";

pub(super) fn command() -> Command {
    Command::new(NAME)
        .about("Remove what boxes left that were killed together with netbox")
        .override_usage("netbox gc")
}

#[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
pub(super) fn request(_: &mut ArgMatches) -> Result<Request, Stop> {
    Ok(Request::Gc)
}
