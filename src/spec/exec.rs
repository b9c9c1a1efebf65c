//! What `netbox exec` is to do.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{BoxRef, EnvSetting, UserSpec};

/// A further command in boxes that live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The box; `None` for one after the other.
    pub target: Option<BoxRef>,
    /// Who it runs as; `None` for whoever the box's own command was started as.
    pub user: Option<UserSpec>,
    /// Where it starts; `None` for the caller's directory.
    pub workdir: Option<PathBuf>,
    /// Changes to the environment, in order.
    pub env: Vec<EnvSetting>,
    /// Whether the caller's environment is left out.
    pub clear_env: bool,
    /// The command and its arguments, never empty.
    pub command: Vec<OsString>,
}
