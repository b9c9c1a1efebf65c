//! `-P`: what listens in the box, as its keeper learns of it.
//!
//! Nothing is polled. A filter on the box's processes tells when one of them calls bind(2) or listen(2), and the kernel's socket
//! diagnostics when a socket that listened is closed. Both only make the keeper look; what it sees decides.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::error::{Context, Result};
use crate::kernel::call_watch::{CallWatch, Calls};
use crate::kernel::listeners::Listeners;
use crate::kernel::{namespace, sysctl};
use crate::plan::publish_all::{self, BoxPort, Changes};
use crate::plan::record::PortMap;
use crate::spec::port::{HostPort, PortRequest};

use super::helper::Helper;
use super::living::Living;

/// When to look after a call: it is let go on before it is carried out, and its process may not be given a processor at once.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// Between two looks, at least: a box that keeps opening and closing sockets gets its keeper no further than this.
const PAUSE: Duration = Duration::from_millis(20);

/// The range where it cannot be read: the kernel's default.
const CLIENTS: RangeInclusive<u16> = 32768..=60999;

/// Watches over what listens in one box.
#[derive(Debug)]
pub struct Publisher {
    /// Over the calls of the box's own command, and of each that joined it.
    calls: Vec<CallWatch>,
    listeners: Listeners,
    addresses: Vec<IpAddr>,
    clients: RangeInclusive<u16>,
    /// Those that are published because somebody listens, and the first of what each is published as.
    automatic: BTreeMap<BoxPort, PortMap>,
    /// Those that are not to be, until nobody listens there any more: somebody has given them up (`netbox port rm`), or they could
    /// not be published.
    left_alone: BTreeSet<BoxPort>,
    plan: Looks,
    /// What was said already.
    said: Said,
}

impl Publisher {
    /// `network`: the box's network namespace; `host`: this process's own; `addresses`: the box's.
    ///
    /// # Errors
    /// EMFILE, ENOMEM; a kernel without socket diagnostics.
    pub fn new(network: BorrowedFd<'_>, host: BorrowedFd<'_>, addresses: Vec<IpAddr>) -> Result<Self> {
        let (listeners, clients) = namespace::inside(network, host, || (Listeners::open(), clients()))
            .context(|| "cannot enter the box's network namespace")?;
        let listeners = listeners.context(|| "cannot watch the sockets of the box (-P/--publish-all)")?;
        Ok(Self {
            calls: Vec::new(),
            listeners,
            addresses,
            clients,
            automatic: BTreeMap::new(),
            left_alone: BTreeSet::new(),
            plan: Looks::default(),
            said: Said::default(),
        })
    }

    /// Takes over what tells of the calls of a command, for as long as a process lives that descends from it.
    pub fn watch_calls(&mut self, calls: CallWatch) {
        self.calls.push(calls);
    }

    /// What to wait for: calls, and the end of sockets.
    pub(super) fn wanted(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.calls.iter().map(AsFd::as_fd).chain([self.listeners.as_fd()])
    }

    /// How long to wait at most.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.plan.next().map(|when| when.saturating_duration_since(now))
    }

    /// Lets calls go on, looks if it is time to, and publishes what listens. Returns what could not be done. `relay`: the box's.
    pub(super) fn attend(
        &mut self,
        ports: &mut Living<'_>,
        mut relay: Option<&mut Helper<'_>>,
        now: Instant,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let changes = match self.look(&ports.record.ports, now) {
            Ok(changes) => changes,
            Err(error) => {
                let first = !std::mem::replace(&mut self.said.blind, true);
                problems.extend(first.then(|| format!("cannot look what listens in the box: {error}")));
                return problems;
            }
        };
        let gone: Vec<_> =
            changes.remove.iter().filter_map(|port| self.automatic.get(port)).copied().collect();
        if !gone.is_empty() {
            match ports.give_up(&gone, relay.as_deref_mut()) {
                Ok(_) => self.automatic.retain(|_, map| !gone.contains(map)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems.extend(self.no_room_for(&changes.left_out));
        if changes.add.is_empty() {
            return problems;
        }
        let requests: Vec<_> = changes
            .add
            .iter()
            .map(|(protocol, box_port)| PortRequest {
                address: None,
                protocol: *protocol,
                host: HostPort::Ephemeral,
                box_port: *box_port,
            })
            .collect();
        match ports.add(&requests, relay.as_deref_mut()) {
            Ok(maps) => self.note(&maps),
            // One by one: what cannot be published keeps no other from it.
            Err(_) => {
                for request in requests {
                    match ports.add(&[request], relay.as_deref_mut()) {
                        Ok(maps) => self.note(&maps),
                        Err(error) => {
                            self.left_alone.insert((request.protocol, request.box_port));
                            problems.push(error.to_string());
                        }
                    }
                }
            }
        }
        problems
    }

    fn look(&mut self, published: &[PortMap], now: Instant) -> io::Result<Changes> {
        self.let_calls_go_on(now)?;
        if self.listeners.some_were_closed()? {
            self.plan.at_once(now);
        }
        if !self.plan.is_due(now) {
            return Ok(Changes::default());
        }
        let serving = publish_all::serving(&self.listeners.all()?, &self.addresses, &self.clients);
        let given_up = self.automatic.extract_if(.., |_, map| !published.contains(map));
        self.left_alone.extend(given_up.map(|(port, _)| port));
        self.left_alone.retain(|port| serving.contains(port));
        let published = published.iter().map(|map| (map.protocol, map.box_port)).collect();
        let automatic = self.automatic.keys().copied().collect();
        Ok(publish_all::changes(&(&serving - &self.left_alone), &published, &automatic))
    }

    fn let_calls_go_on(&mut self, now: Instant) -> io::Result<()> {
        let mut result = Ok(());
        self.calls.retain(|calls| match calls.let_go_on() {
            Ok(Calls::Over) => false,
            Ok(Calls::Made(count)) => {
                if count > 0 {
                    self.plan.after_call(now);
                }
                true
            }
            Err(error) => {
                result = Err(error);
                true
            }
        });
        result
    }

    fn note(&mut self, maps: &[PortMap]) {
        for map in maps {
            // One on every address is two.
            self.automatic.entry((map.protocol, map.box_port)).or_insert(*map);
        }
    }

    fn no_room_for(&mut self, left_out: &[BoxPort]) -> Option<String> {
        let (protocol, port) = left_out.first()?;
        (!std::mem::replace(&mut self.said.full, true)).then(|| {
            format!(
                "the box listens on more than {} ports: {port}/{protocol} and further ones are not published",
                publish_all::MOST
            )
        })
    }
}

/// What is said once.
#[derive(Debug, Default)]
struct Said {
    full: bool,
    blind: bool,
}

fn clients() -> RangeInclusive<u16> {
    let text = sysctl::read(&["ipv4", "ip_local_port_range"]).unwrap_or_default();
    let mut words = text.split_ascii_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => CLIENTS,
    }
}

/// When to look.
#[derive(Debug, Default)]
struct Looks {
    /// The call that looks are counted from, and how many were taken since.
    call: Option<(Instant, usize)>,
    /// A look that is asked for besides.
    besides: Option<Instant>,
    last: Option<Instant>,
}

impl Looks {
    const fn after_call(&mut self, now: Instant) {
        self.call = Some((now, 0));
    }

    fn at_once(&mut self, now: Instant) {
        self.besides = self.besides.or(Some(now));
    }

    fn next(&self) -> Option<Instant> {
        let after_call = self.call.and_then(|(call, taken)| Some(call + *LOOKS.get(taken)?));
        let next = after_call.into_iter().chain(self.besides).min()?;
        Some(self.last.map_or(next, |last| next.max(last + PAUSE)))
    }

    /// Whether it is time; if so, the look counts as taken.
    fn is_due(&mut self, now: Instant) -> bool {
        if self.next().is_none_or(|next| next > now) {
            return false;
        }
        self.besides = None;
        self.last = Some(now);
        if let Some((call, taken)) = &mut self.call {
            // One look stands for all whose time has come.
            while LOOKS.get(*taken).is_some_and(|delay| *call + *delay <= now) {
                *taken += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times in milliseconds at which a look is taken, when the clock goes by milliseconds.
    fn looks(calls: &[u64], ends: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let mut looks = Looks::default();
        let mut taken = Vec::new();
        for time in 0..3000 {
            let now = start + Duration::from_millis(time);
            if calls.contains(&time) {
                looks.after_call(now);
            }
            if ends.contains(&time) {
                looks.at_once(now);
            }
            if looks.is_due(now) {
                taken.push(time);
            }
        }
        assert_eq!(looks.next(), None);
        taken
    }

    #[test]
    fn a_call_is_looked_after_until_it_must_have_been_carried_out() {
        assert_eq!(looks(&[0], &[]), [1, 21, 100, 1000]);
        assert_eq!(looks(&[0, 500], &[]), [1, 21, 100, 501, 521, 600, 1500]);
    }

    #[test]
    fn the_end_of_a_socket_is_looked_at_once() {
        assert_eq!(looks(&[], &[0]), [0]);
        assert_eq!(looks(&[0], &[50]), [1, 21, 50, 100, 1000]);
    }

    #[test]
    fn a_box_that_keeps_the_keeper_busy_is_looked_at_fifty_times_in_a_second() {
        let always: Vec<_> = (0..1000).collect();
        let taken = looks(&always, &always);
        assert!(taken.iter().filter(|time| **time < 1000).count() <= 50, "{taken:?}");
    }
}
