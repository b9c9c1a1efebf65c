//! What the processes of one run tell each other.

use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::kernel::channel::Channel;
use crate::kernel::process::Process;
use crate::plan::wiring::BoxLink;

/// From the keeper to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToLauncher {
    /// The box's first process exists. With its pidfd.
    Box {
        /// Its number, and its process group's.
        pid: i32,
    },
    /// A decision was taken, for `--verbose`.
    Log(String),
    /// A thing that the user should know, unless `--quiet`.
    Warning(String),
    /// The command runs. For `--json-status-fd` with the box's record, as a file: with a long command line or thousands of ports it
    /// is longer than a message can be.
    Started {
        /// The box's.
        id: String,
    },
    /// The command was stopped by this signal.
    Stopped(i32),
    /// The run failed before the command ran. Everything is undone but for the problems named.
    Failed(Error, Vec<String>),
    /// The command ended with this status. Everything is undone but for the problems named.
    Ended(u8, Vec<String>),
}

/// Tells the launcher something. One that is gone shows in the keeper's next wait.
pub fn tell(launcher: &Channel, message: &ToLauncher) {
    let _ = launcher.send(message, &[]);
}

/// Tells the launcher to whom it passes signals on. One that is gone shows before the command starts.
pub fn introduce(launcher: &Channel, command: &Process) {
    let _ = launcher.send(&ToLauncher::Box { pid: command.pid.as_raw() }, &[command.as_fd()]);
}

/// From the keeper to the box's first process.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToBox {
    /// The users of its own user namespace are the host's.
    UsersMapped,
    /// The link is in the box: configure it.
    Configure(BoxFacts),
    /// Everything is in place: drop every privilege and run the command.
    Run,
}

/// What a box knows about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BoxFacts {
    /// `NETBOX_ID`
    pub id: String,
    /// `NETBOX_NAME`
    pub name: String,
    /// Where its links lead, the first of them its way out; none without one.
    pub links: Vec<BoxLink>,
    /// Where files of its own are put, each with the mount that comes with it.
    pub files: Vec<String>,
    /// Files of the host that are put over those in /etc: the directory where they are, and their names.
    pub etc: Option<(String, Vec<String>)>,
}

/// From the box's first process to the keeper. After [`ToBox::Run`] the end of the stream means that the
/// command runs: exec closes the channel.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromBox {
    /// Its namespaces are made, or joined. Of a box that was started with `-P` that others join, with what tells that it may
    /// listen.
    Unshared,
    /// Its network is configured and its mounts are made. With `-P`, with what tells that it may listen
    /// ([`crate::kernel::call_watch`]).
    Configured,
    /// It goes on, and the user should know this.
    Warning(String),
    /// It cannot go on.
    Failed(Error),
}

/// From the init of a box with a pid namespace of its own to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The process that becomes the command exists. With its pidfd.
    Command,
    /// The command was stopped by this signal.
    Stopped(i32),
    /// It cannot be what it should.
    Failed(Error),
}
