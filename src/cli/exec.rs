//! `netbox exec`

use std::ffi::{OsStr, OsString};

use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::run::{parsed, workdir};
use super::{Stop, text};
use crate::error::{Error, Result};
use crate::spec::{BoxRef, EnvSetting, ExecRequest, Request, UserSpec};

pub(super) const NAME: &str = "exec";

const USAGE: &str = "netbox exec [OPTIONS] BOX [--] COMMAND [ARG...]\n       \
                     netbox exec [OPTIONS] --all [--] COMMAND [ARG...]";

#[derive(Debug, Args)]
struct ExecArgs {
    /// In every box that lives, one after the other
    #[arg(long)]
    all: bool,

    /// Run the command as this user, and group, by name or number [default: the box's]
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    user: Option<OsString>,

    /// Start the command in this directory
    #[arg(short, long, value_name = "DIR", allow_hyphen_values = true)]
    workdir: Option<OsString>,

    /// Set a variable of the environment, or copy the caller's
    #[arg(short, long, value_name = "NAME[=VALUE]", allow_hyphen_values = true)]
    env: Vec<OsString>,

    /// Start with PATH, HOME, USER and TERM only
    #[arg(long)]
    clear_env: bool,

    /// A command always has the caller's stdin.
    #[arg(short, long, hide = true, action = ArgAction::Count)]
    interactive: u8,

    /// A command always has the caller's terminal.
    #[arg(short, long, hide = true, action = ArgAction::Count)]
    tty: u8,

    /// The box, the command and its arguments
    #[arg(value_name = "BOX", trailing_var_arg = true, hide = true)]
    words: Vec<OsString>,
}

pub(super) fn command() -> Command {
    ExecArgs::augment_args(Command::new(NAME))
        .about("Start a further command in a box")
        .override_usage(USAGE)
        .after_help(
            "BOX is a box's name, its id, or the beginning of its id. What follows is the command's own. Docker's \
             -i and -t are accepted and change nothing: a command always has the caller's stdin and terminal.",
        )
}

pub(super) fn request(matches: &mut ArgMatches) -> Result<Request, Stop> {
    let args = ExecArgs::from_arg_matches_mut(matches)?;
    Ok(Request::Exec(Box::new(ExecRequest::try_from(args)?)))
}

impl TryFrom<ExecArgs> for ExecRequest {
    type Error = Error;

    fn try_from(args: ExecArgs) -> Result<Self> {
        let mut words = args.words.into_iter().peekable();
        let target = match args.all {
            true => None,
            false => {
                let name = words.next();
                let name = name.ok_or_else(|| Error::usage("exec needs the name of a box").hint(USAGE))?;
                // Only the first `--` is the parser's, and it may have come before the name.
                words.next_if(|word| word == OsStr::new("--"));
                Some(BoxRef::parse(text("BOX", &name)?)?)
            }
        };
        let command: Vec<_> = words.collect();
        if command.is_empty() {
            return Err(Error::usage("exec needs a command to start").hint(USAGE));
        }
        Ok(Self {
            target,
            user: parsed("-u/--user", args.user, str::parse::<UserSpec>)?,
            workdir: args.workdir.map(workdir).transpose()?,
            env: args.env.iter().map(|setting| EnvSetting::parse(setting)).collect::<Result<_>>()?,
            clear_env: args.clear_env,
            command,
        })
    }
}
