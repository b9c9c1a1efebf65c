//! A command line that starts nothing.

use crate::error::Error;

/// What netbox says and how it ends when a command line asks for no work, or for none that it understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The text, complete with its last line's end.
    pub text: String,
    /// Whether it was asked for (help, version), and so is for stdout; for stderr otherwise.
    pub to_stdout: bool,
    /// The exit status.
    pub status: u8,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let mut text = format!("netbox: {error}\n");
        if let Some(hint) = error.remedy() {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
        Self { text, to_stdout: false, status: error.exit_status() }
    }
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        if error.use_stderr() {
            let text = format!("netbox: {}", text.strip_prefix("error: ").unwrap_or(&text));
            Self { text, to_stdout: false, status: 2 }
        } else {
            Self { text, to_stdout: true, status: 0 }
        }
    }
}
