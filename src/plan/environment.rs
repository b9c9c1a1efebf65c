//! The command's environment: the caller's, what `-e` says, the new user's, and `NETBOX_*`.

use std::ffi::{OsStr, OsString};

use crate::spec::env::EnvSetting;

use super::identity::Account;

/// What `--clear-env` leaves.
const KEPT: [&str; 4] = ["PATH", "HOME", "USER", "TERM"];

/// Everything that decides the environment.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The caller's environment, in its order.
    pub caller: &'a [(OsString, OsString)],
    /// `--clear-env`.
    pub clear: bool,
    /// `-e`, in the order given.
    pub settings: &'a [EnvSetting],
    /// The user that the command runs as, where it is not the caller.
    pub account: Option<&'a Account>,
    /// `NETBOX_ID` and its like.
    pub own: &'a [(&'a str, String)],
}

/// The environment, each name once, in the caller's order and then in the order set. What `-e` says
/// beats everything but `NETBOX_*`.
#[must_use]
pub fn environment(sources: &Sources<'_>) -> Vec<(OsString, OsString)> {
    let mut result: Vec<(OsString, OsString)> = Vec::with_capacity(sources.caller.len() + 8);
    for (name, value) in sources.caller {
        if !sources.clear || KEPT.iter().any(|kept| name == kept) {
            result.push((name.clone(), value.clone()));
        }
    }
    if let Some(account) = sources.account {
        set(&mut result, OsStr::new("HOME"), &account.home);
        set(&mut result, OsStr::new("USER"), &account.name);
        set(&mut result, OsStr::new("LOGNAME"), &account.name);
        let shell = if account.shell.is_empty() { OsStr::new("/bin/sh") } else { &account.shell };
        set(&mut result, OsStr::new("SHELL"), shell);
    }
    for setting in sources.settings {
        match setting {
            EnvSetting::Set(name, value) => set(&mut result, name, value),
            // As in Docker: a name that the caller does not have is not set, not empty.
            EnvSetting::Copy(name) => {
                if let Some((_, value)) = sources.caller.iter().find(|(n, _)| n == name) {
                    set(&mut result, name, value);
                }
            }
        }
    }
    for (name, value) in sources.own {
        set(&mut result, OsStr::new(name), OsStr::new(value));
    }
    result
}

fn set(environment: &mut Vec<(OsString, OsString)>, name: &OsStr, value: &OsStr) {
    match environment.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => old.clone_from(&value.to_os_string()),
        None => environment.push((name.to_os_string(), value.to_os_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Vec<(OsString, OsString)> {
        [("PATH", "/bin"), ("HOME", "/root"), ("SECRET", "x"), ("TERM", "vt100")]
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }

    fn text(environment: &[(OsString, OsString)]) -> String {
        let lines: Vec<_> = environment
            .iter()
            .map(|(n, v)| format!("{}={}", n.to_string_lossy(), v.to_string_lossy()))
            .collect();
        lines.join(" ")
    }

    #[test]
    fn the_callers_environment_is_kept_and_netboxs_own_added() {
        let own = [("NETBOX_ID", "abc".to_owned())];
        let sources = Sources { caller: &caller(), clear: false, settings: &[], account: None, own: &own };
        assert_eq!(text(&environment(&sources)), "PATH=/bin HOME=/root SECRET=x TERM=vt100 NETBOX_ID=abc");
    }

    #[test]
    fn a_cleared_environment_has_what_was_asked_for_and_no_more() {
        let settings = [
            EnvSetting::Copy("SECRET".into()),
            EnvSetting::Copy("ABSENT".into()),
            EnvSetting::Set("A".into(), "1".into()),
        ];
        let sources =
            Sources { caller: &caller(), clear: true, settings: &settings, account: None, own: &[] };
        assert_eq!(text(&environment(&sources)), "PATH=/bin HOME=/root TERM=vt100 SECRET=x A=1");
    }

    #[test]
    fn another_user_has_their_own_home_and_names() {
        let account =
            Account { name: "ada".into(), uid: 1, gid: 1, home: "/home/ada".into(), shell: "".into() };
        let sources =
            Sources { caller: &caller(), clear: true, settings: &[], account: Some(&account), own: &[] };
        assert_eq!(
            text(&environment(&sources)),
            "PATH=/bin HOME=/home/ada TERM=vt100 USER=ada LOGNAME=ada SHELL=/bin/sh"
        );
    }
}
