//! One keeper looks after the host for all: rules wiped, routing changed, addresses and uplinks that come and go.
//!
//! The keepers of boxes that run longer than a moment stand in a line (`apply::turns`). The first listens to the kernel;
//! each of the others waits for the end of the one before it. Single-threaded: everything is one descriptor in the
//! keeper's own poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::apply::census::census;
use crate::apply::heal::{Healed, heal};
use crate::apply::host::Host;
use crate::apply::lease::{self, Shared};
use crate::apply::state::{Locked, State};
use crate::apply::{gateway, turns};
use crate::error::{Context, Error, Result};
use crate::kernel::notifications::Notifications;
use crate::kernel::process;
use crate::kernel::slots::SlotState;
use crate::plan::changes::{Concern, View};

/// Changes come in swarms: after one was seen to, the next wait so long.
const PAUSE: Duration = Duration::from_millis(20);
/// So many repairs in a row are a fight: it deserves a word, and each pause from then on is twice the one before.
const FIGHT: u32 = 16;
/// But not longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What failed no more often than this may work the next time: the host was changing meanwhile.
const TRANSIENT: u32 = 5;
/// After so long without a repair, the next is the first again.
const QUIET: Duration = Duration::from_secs(10);

/// What to tell the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// For `--verbose`.
    Detail(String),
    /// Unless `--quiet`.
    Warning(String),
}

/// A keeper's share in looking after the host.
#[derive(Debug)]
pub struct Watch {
    slot: u32,
    role: Role,
}

#[derive(Debug)]
enum Role {
    /// The box has only just started: most end before anything happens.
    Fresh,
    /// Waits for the end of the keeper in front.
    Waiting(OwnedFd),
    /// Looks after the host.
    First(Box<Lookout>),
    /// Cannot: there is no state directory, or no memory.
    Unable,
}

impl Watch {
    /// For the keeper of `slot`. Does nothing yet.
    #[must_use]
    pub fn new(slot: u32) -> Self {
        Self { slot, role: Role::Fresh }
    }

    /// To be called once the box has run for a moment: takes a place in the line.
    pub fn begin(&mut self) -> Vec<Word> {
        self.stand(turns::stand_in_line)
    }

    /// What wakes this keeper: readable when [`Watch::attend`] has something to do.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.role {
            Role::Fresh | Role::Unable => None,
            Role::Waiting(in_front) => Some(in_front.as_fd()),
            Role::First(lookout) => Some(lookout.epoll.0.as_fd()),
        }
    }

    /// Does what there is to do.
    pub fn attend(&mut self) -> Vec<Word> {
        match &mut self.role {
            Role::Fresh | Role::Unable => Vec::new(),
            Role::Waiting(_) => self.stand(|_, _| {}),
            Role::First(lookout) => lookout.attend(),
        }
    }

    /// Finds out who is in front, and becomes the first if nobody is.
    fn stand(&mut self, first: impl FnOnce(&Locked<'_>, u32)) -> Vec<Word> {
        let role = (|| -> Result<Role> {
            let Some(mut state) = State::open_existing()? else { return Ok(Role::Unable) };
            let locked = state.lock()?;
            first(&locked, self.slot);
            for (slot, pid) in turns::in_front_of(&locked, self.slot) {
                // ESRCH: it has just ended, or is in another pid namespace.
                if let Ok(in_front) = process::open(pid)
                    // Alive after it was opened: the number was still its own.
                    && locked.slots().state(slot) == SlotState::Alive(pid)
                {
                    return Ok(Role::Waiting(in_front));
                }
            }
            Ok(Role::First(Box::new(Lookout::new(&locked, self.slot)?)))
        })();
        match role {
            Ok(role) => {
                self.role = role;
                // What changed while nobody listened.
                if let Role::First(lookout) = &mut self.role {
                    lookout.look(Concern::EVERYTHING)
                } else {
                    Vec::new()
                }
            }
            Err(error) => {
                self.role = Role::Unable;
                vec![Word::Warning(format!("changes of the host's network will not be followed: {error}"))]
            }
        }
    }
}

/// The first in the line.
#[derive(Debug)]
struct Lookout {
    epoll: Epoll,
    network: Notifications,
    rules: Notifications,
    timer: TimerFd,
    /// Keeps the socket to the host's rules open: closing it would wait for what it deleted.
    host: Host,
    view: Option<View>,
    /// Seen, and not yet seen to.
    concern: Concern,
    pace: Pace,
    /// How often in a row it could not be done.
    failures: u32,
    warned: bool,
}

impl Lookout {
    /// Listens from now on.
    fn new(locked: &Locked<'_>, slot: u32) -> Result<Self> {
        if gateway::record(locked).is_none() {
            return Err(Error::new("the gateway's state is gone"));
        }
        let mut host = Host::open()?;
        let nft = host.nft(locked, &census(locked.slots()))?;
        lease::announce(locked, slot, Shared::HostNft, nft.as_fd());
        let rules =
            Notifications::of_rules(nft.number()?).context(|| "cannot listen for changes of rules")?;
        let network = Notifications::of_network().context(|| "cannot listen for changes of the network")?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
                .context(|| "cannot make a timer")?;
        let epoll = watch([rules.as_fd(), network.as_fd(), timer.as_fd()])
            .context(|| "cannot watch for changes of the host")?;
        Ok(Self {
            epoll,
            network,
            rules,
            timer,
            host,
            view: None,
            concern: Concern::default(),
            pace: Pace::default(),
            failures: 0,
            warned: false,
        })
    }

    /// Reads what has come, and sees to what of it concerns netbox, at once or after the pause.
    fn attend(&mut self) -> Vec<Word> {
        // EAGAIN: it was not the timer.
        let _ = rustix::io::read(&self.timer, &mut [0; 8]);
        for source in [&self.rules, &self.network] {
            let concern = match (source.read(), &self.view) {
                (Ok(news), Some(view)) if !news.lost => view.concerns(&news.changes),
                _ => Concern::EVERYTHING,
            };
            self.concern = self.concern.and(concern);
        }
        if self.concern.is_none() {
            return Vec::new();
        }
        match self.pace.wait(Instant::now()) {
            Some(wait) => {
                self.wake_after(wait);
                Vec::new()
            }
            None => {
                let concern = std::mem::take(&mut self.concern);
                self.look(concern)
            }
        }
    }

    fn wake_after(&mut self, wait: Duration) {
        let once = Expiration::OneShot(TimeSpec::from_duration(wait.max(Duration::from_millis(1))));
        // Cannot fail for a timer that is open and a time that is not negative.
        let _ = self.timer.set(once, TimerSetTimeFlags::empty());
    }

    fn look(&mut self, concern: Concern) -> Vec<Word> {
        let mut words = Vec::new();
        let (repaired, problem) = match self.heal(concern) {
            Ok(None) => (false, None),
            Ok(Some(Healed { view, followed, repaired, problems })) => {
                self.view = Some(view);
                let any = !repaired.is_empty();
                words.extend(followed.into_iter().chain(repaired).map(Word::Detail));
                (any, problems.into_iter().next())
            }
            Err(error) => (false, Some(error)),
        };
        let row = self.pace.looked(Instant::now(), repaired || problem.is_some());
        self.failures = if problem.is_some() { self.failures + 1 } else { 0 };
        if let Some(error) = problem {
            words.push(Word::Detail(format!("will be tried again: {error}")));
            // Once more later, however often; said once, and not if it was only that something changed meanwhile.
            self.concern = concern.and(Concern::EVERYTHING);
            self.wake_after(self.pace.pause());
            if self.failures > TRANSIENT && !std::mem::replace(&mut self.warned, true) {
                words.push(Word::Warning(format!(
                    "somebody changed the host's network, and boxes may be without theirs: {error}"
                )));
            }
        } else if row == FIGHT && !std::mem::replace(&mut self.warned, true) {
            words.push(Word::Warning(
                "something keeps changing what netbox set up on the host, and netbox keeps putting it back"
                    .to_owned(),
            ));
        }
        words
    }

    fn heal(&mut self, concern: Concern) -> Result<Option<Healed>> {
        let Some(mut state) = State::open_existing()? else { return Ok(None) };
        let locked = state.lock()?;
        let found = census(locked.slots());
        heal(&locked, &mut self.host, &found, self.view.as_ref(), concern)
    }
}

fn watch(sources: [BorrowedFd<'_>; 3]) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for source in sources {
        epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(epoll)
}

/// How soon after a look the next may be.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    /// When something was last put right.
    repaired: Option<Instant>,
    /// How often in a row.
    row: u32,
}

impl Pace {
    fn pause(&self) -> Duration {
        PAUSE.saturating_mul(1 << self.row.saturating_sub(FIGHT).min(8)).min(LONGEST_PAUSE)
    }

    /// How long the next look has to wait.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let next = self.last? + self.pause();
        next.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// Takes note of a look. Returns how often in a row something was put right.
    fn looked(&mut self, now: Instant, repaired: bool) -> u32 {
        self.last = Some(now);
        if self.repaired.is_some_and(|then| now.duration_since(then) > QUIET) {
            self.row = 0;
        }
        if repaired {
            self.repaired = Some(now);
            self.row = self.row.saturating_add(1);
        }
        self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_changes_are_seen_to_within_a_second() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(start), None);
        let mut now = start;
        for _ in 0..FIGHT {
            pace.looked(now, true);
            now += pace.wait(now).unwrap_or_default();
        }
        assert!(now - start < Duration::from_secs(1), "{:?}", now - start);
    }

    #[test]
    fn a_fight_is_given_way_to_and_forgotten() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut now = start;
        for round in 1..=FIGHT + 14 {
            assert_eq!(pace.looked(now, true), round);
            now += pace.wait(now).unwrap_or_default();
        }
        assert_eq!(pace.pause(), LONGEST_PAUSE);
        assert!(now - start > Duration::from_secs(30));
        assert_eq!(pace.looked(now + QUIET * 2, true), 1);
    }

    #[test]
    fn a_look_that_finds_nothing_slows_nothing_down() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..100 {
            pace.looked(now, false);
        }
        assert_eq!(pace.pause(), PAUSE);
    }
}
