//! The command's environment: the caller's, what `-e` says, the new user's, and `NETBOX_*`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::spec::env::EnvSetting;

use super::identity::Account;
use super::wiring::BoxLink;

/// What `--clear-env` leaves.
const KEPT: [&str; 4] = ["PATH", "HOME", "USER", "TERM"];

/// Everything that decides the environment.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The caller's environment, in its order. Most entries are NAME=VALUE, but none need be (environ(7)).
    pub caller: &'a [OsString],
    /// `--clear-env`.
    pub clear: bool,
    /// `-e`, in the order given.
    pub settings: &'a [EnvSetting],
    /// The user that the command runs as, where it is not the caller.
    pub account: Option<&'a Account>,
    /// `NETBOX_ID` and its like.
    pub own: &'a [(&'a str, String)],
}

/// The environment, in the caller's order and then in the order set. What `-e` says beats everything but `NETBOX_*`; what
/// nobody changes stays byte for byte.
#[must_use]
pub fn environment(sources: &Sources<'_>) -> Vec<OsString> {
    let mut result: Vec<OsString> = Vec::with_capacity(sources.caller.len() + 8);
    let is_kept = |entry: &OsStr| KEPT.iter().any(|kept| value_of(entry, OsStr::new(kept)).is_some());
    result.extend(sources.caller.iter().filter(|entry| !sources.clear || is_kept(entry)).cloned());
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
                if let Some(value) = value_in(sources.caller, name) {
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

/// What `name` is set to.
#[must_use]
pub fn value_in<'a>(environment: &'a [OsString], name: &OsStr) -> Option<&'a OsStr> {
    environment.iter().find_map(|entry| value_of(entry, name))
}

fn value_of<'a>(entry: &'a OsStr, name: &OsStr) -> Option<&'a OsStr> {
    entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(OsStr::from_bytes)
}

/// What a box is told about itself.
#[must_use]
pub fn own(id: &str, name: &str, link: Option<&BoxLink>) -> Vec<(&'static str, String)> {
    let mut own = vec![("NETBOX_ID", id.to_owned()), ("NETBOX_NAME", name.to_owned())];
    if let Some(link) = link {
        own.push(("NETBOX_IPV4", link.address.to_string()));
        own.push(("NETBOX_GATEWAY", link.gateway.to_string()));
        own.extend(link.ipv6.map(|six| ("NETBOX_IPV6", six.address.to_string())));
    }
    own
}

/// How one environment differs from another. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// What it has, and the other has not or otherwise.
    pub set: BTreeMap<String, String>,
    /// What only the other has.
    pub unset: Vec<String>,
}

impl Changes {
    /// From the environment `before` to `after`. What is no variable is passed over.
    #[must_use]
    pub fn between(before: &[OsString], after: &[OsString]) -> Self {
        let split = |entry: &OsString| -> Option<(String, String)> {
            let place = entry.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = entry.as_bytes().split_at(place);
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            Some((text(name), text(value.get(1..).unwrap_or_default())))
        };
        let new = after.iter().filter(|entry| !before.contains(entry)).filter_map(split);
        let left: BTreeSet<_> = after.iter().filter_map(split).map(|(name, _)| name).collect();
        let old = before.iter().filter_map(split).map(|(name, _)| name);
        Self { set: new.collect(), unset: old.filter(|name| !left.contains(name)).collect() }
    }
}

fn set(environment: &mut Vec<OsString>, name: &OsStr, value: &OsStr) {
    let entry = OsStr::from_bytes(&[name.as_bytes(), b"=", value.as_bytes()].concat()).to_owned();
    match environment.iter_mut().find(|old| value_of(old, name).is_some()) {
        Some(old) => *old = entry,
        None => environment.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Vec<OsString> {
        ["PATH=/bin", "HOME=/root", "SECRET=x", "TERM=vt100"].map(OsString::from).into()
    }

    fn text(environment: &[OsString]) -> String {
        environment.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn what_is_no_variable_is_passed_on_as_it_is() {
        let caller = ["no variable", "", "=C:=x", "A=1", "A=2", "HOME"].map(OsString::from);
        let settings = [EnvSetting::Set("HOME".into(), "/".into())];
        let sources = Sources { caller: &caller, clear: false, settings: &settings, account: None, own: &[] };
        assert_eq!(
            environment(&sources),
            ["no variable", "", "=C:=x", "A=1", "A=2", "HOME", "HOME=/"].map(OsString::from)
        );
        let cleared = Sources { clear: true, ..sources };
        assert_eq!(environment(&cleared), [OsString::from("HOME=/")]);
    }

    #[test]
    fn the_callers_environment_is_kept_and_netboxs_own_added() {
        let own = [("NETBOX_ID", "abc".to_owned())];
        let sources = Sources { caller: &caller(), clear: false, settings: &[], account: None, own: &own };
        assert_eq!(text(&environment(&sources)), "PATH=/bin HOME=/root SECRET=x TERM=vt100 NETBOX_ID=abc");
    }

    #[test]
    fn changes_are_what_is_new_or_otherwise_and_what_is_gone() {
        let mut after = caller();
        after.retain(|entry| entry != "SECRET=x");
        set(&mut after, OsStr::new("HOME"), OsStr::new("/home/ada"));
        set(&mut after, OsStr::new("A"), OsStr::new("1=2"));
        let changes = Changes::between(&caller(), &after);
        let expected = [("A", "1=2"), ("HOME", "/home/ada")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(changes, Changes { set: expected.into(), unset: vec!["SECRET".to_owned()] });
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
