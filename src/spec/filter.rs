//! Which boxes are to be listed: `--filter KEY=VALUE`.

use super::net::Net;
use crate::error::{Error, Result};

/// Conditions as docker-ps(1) takes them: all keys must fit, and of one key that is given several times one value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    names: Vec<String>,
    ids: Vec<String>,
    nets: Vec<Net>,
}

impl Filters {
    /// Adds `KEY=VALUE`.
    ///
    /// # Errors
    /// When it is none, for a key that is not known, and for a network that is none.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let wrong = || Error::usage(format!("invalid filter {text:?}"));
        let Some((key, value)) = text.split_once('=') else {
            return Err(wrong().because("it is not KEY=VALUE"));
        };
        match key {
            "name" => self.names.push(value.to_owned()),
            "id" => self.ids.push(value.to_owned()),
            "net" => self.nets.push(value.parse().map_err(|cause| wrong().because(cause))?),
            _ => return Err(wrong().because("the keys are name, id and net")),
        }
        Ok(())
    }

    /// Whether a box is to be listed: a part of its name, the beginning of its id, and its network as a whole.
    #[must_use]
    pub fn fit(&self, name: &str, id: &str, net: &str) -> bool {
        fits(&self.names, |part| name.contains(part.as_str()))
            && fits(&self.ids, |start| id.starts_with(start.as_str()))
            && fits(&self.nets, |wanted| wanted.as_str() == net)
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
    fn what_is_no_filter_is_told() {
        for (text, cause) in [
            ("web", "not KEY=VALUE"),
            ("", "not KEY=VALUE"),
            ("label=x", "name, id and net"),
            ("Name=x", "name, id and net"),
            ("net=default", "\"default\""),
        ] {
            let error = Filters::default().add(text).unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            assert!(error.to_string().contains(cause), "{error}");
        }
    }
}
