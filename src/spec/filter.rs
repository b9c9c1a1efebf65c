//! Which boxes are to be listed: `--filter KEY=VALUE`.

use serde::Serialize;

use super::net::Net;
use crate::error::{Error, Result};

/// Whether a box lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Running,
    /// It does not any more.
    Exited,
}

/// Conditions as docker-ps(1) takes them: all keys must fit, and of one key that is given several times one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    names: Vec<String>,
    ids: Vec<String>,
    nets: Vec<Net>,
    statuses: Vec<Status>,
    /// Exit statuses.
    exited: Vec<u8>,
}

impl Filters {
    /// Adds `KEY=VALUE`.
    ///
    /// # Errors
    /// When it is none, for a key that is not known, for a network or a status that is none.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let wrong = || Error::usage(format!("invalid filter {text:?}"));
        let Some((key, value)) = text.split_once('=') else {
            return Err(wrong().because("it is not KEY=VALUE"));
        };
        match key {
            "name" => self.names.push(value.to_owned()),
            "id" => self.ids.push(value.to_owned()),
            "net" | "network" => self.nets.push(value.parse().map_err(|cause| wrong().because(cause))?),
            "status" => self.statuses.push(match value {
                "running" => Status::Running,
                "exited" => Status::Exited,
                _ => return Err(wrong().because("a box is running or exited")),
            }),
            "exited" => {
                let status = value.parse().ok().filter(|_| !value.starts_with('+'));
                self.exited.push(status.ok_or_else(|| wrong().because("an exit status is 0 to 255"))?);
            }
            _ => return Err(wrong().because("the keys are name, id, net, status and exited")),
        }
        Ok(())
    }

    /// Whether a box is to be listed: a part of its name, the beginning of its id, and one of its networks as a whole.
    #[must_use]
    pub fn fit(&self, name: &str, id: &str, net: &str) -> bool {
        fits(&self.names, |part| name.contains(part.as_str()))
            && fits(&self.ids, |start| id.starts_with(start.as_str()))
            && fits(&self.nets, |wanted| {
                wanted.as_str() == net || net.split(',').any(|one| one == wanted.as_str())
            })
    }

    /// Whether one that fits may have ended: such are asked for by the filters themselves.
    #[must_use]
    pub fn ask_for_ended(&self) -> bool {
        self.statuses.contains(&Status::Exited) || !self.exited.is_empty()
    }

    /// Whether a box is to be listed that lives or not, and in the latter case ended with this status, if anybody knows.
    #[must_use]
    pub fn fit_end(&self, status: Status, exit_status: Option<u8>) -> bool {
        fits(&self.statuses, |wanted| *wanted == status)
            && fits(&self.exited, |wanted| status == Status::Exited && Some(*wanted) == exit_status)
    }
}

fn fits<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(texts: &[&str]) -> Filters {
        let mut filters = Filters::default();
        texts.iter().for_each(|text| filters.add(text).unwrap());
        filters
    }

    #[test]
    fn values_of_one_key_are_alternatives_and_keys_are_not() {
        let web = |texts: &[&str]| filters(texts).fit("web-1", "abcdefgh", "nat");
        for texts in [
            &[][..],
            &["name=web"],
            &["name=-1", "name=nothing"],
            &["name="],
            &["id=abc"],
            &["net=nat"],
            &["network=nat"],
            &["net=none", "net=nat", "id=a", "name=e"],
        ] {
            assert!(web(texts), "{texts:?}");
        }
        for texts in [
            &["name=Web"][..],
            &["id=bcd"],
            &["net=host"],
            &["name=web", "net=none"],
            &["name=web", "id=b"],
            &["name=a", "name=c"],
        ] {
            assert!(!web(texts), "{texts:?}");
        }
    }

    #[test]
    fn those_that_ended_are_asked_for_by_their_status() {
        let (running, ended, lost) =
            ((Status::Running, None), (Status::Exited, Some(3)), (Status::Exited, None));
        for (texts, ask, fit) in [
            (&[][..], false, &[running, ended, lost][..]),
            (&["status=running"], false, &[running]),
            (&["status=exited"], true, &[ended, lost]),
            (&["status=exited", "status=running"], true, &[running, ended, lost]),
            (&["exited=3"], true, &[ended]),
            (&["exited=0", "exited=3", "status=exited"], true, &[ended]),
            (&["exited=0"], true, &[]),
            (&["exited=3", "status=running"], true, &[]),
        ] {
            let filters = filters(texts);
            assert_eq!(filters.ask_for_ended(), ask, "{texts:?}");
            let fitting =
                [running, ended, lost].into_iter().filter(|(status, exit)| filters.fit_end(*status, *exit));
            assert_eq!(fitting.collect::<Vec<_>>(), fit, "{texts:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_told() {
        for (text, cause) in [
            ("web", "not KEY=VALUE"),
            ("", "not KEY=VALUE"),
            ("label=x", "name, id, net, status and exited"),
            ("Name=x", "name, id, net, status and exited"),
            ("status=paused", "running or exited"),
            ("status=", "running or exited"),
            ("exited=256", "0 to 255"),
            ("exited=+1", "0 to 255"),
            ("exited=", "0 to 255"),
            ("net=default", "\"default\""),
        ] {
            let error = Filters::default().add(text).unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            assert!(error.to_string().contains(cause), "{error}");
        }
    }
}
