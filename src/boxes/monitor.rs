//! `netbox monitor`: what happens to boxes, as it happens.
//!
//! Nothing is asked of anybody, and nobody does anything for it: inotify(7) tells of changes to the state directory, and a pidfd
//! of the keeper of each box of a keeper that was killed. The state directory may not be there yet, go with the last box and
//! come again: its parents are watched too.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use serde::Serialize;

use super::shown;
use crate::apply::{registry, state};
use crate::error::{Context, Error, Result};
use crate::kernel::process;
use crate::plan::happening::{Happening, between};
use crate::plan::record::BoxRecord;
use crate::report;
use crate::spec::name::BoxId;

/// A line of what happened.
#[derive(Debug, Serialize)]
struct Event<'a> {
    time: String,
    #[serde(flatten)]
    what: Happening,
    id: &'a str,
    name: &'a str,
}

/// Tells what happens until nobody reads.
///
/// # Errors
/// Where nothing can be watched; a state directory that is not ours.
pub fn monitor(json: bool) -> Result<()> {
    // A descriptor for each box. Where the limit cannot be raised, ends by a kill of everything are told late.
    let _ = process::raise_descriptor_limit();
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .context(|| "cannot watch the state directory")
        .map_err(|error| error.hint("the limit is fs.inotify.max_user_instances"))?;
    let path = state::path_here()?;
    let mut monitor = Monitor { inotify, path, root: None, watched: HashMap::new(), boxes: HashMap::new() };
    // What is there already does not happen now.
    monitor.look_at_all()?;
    loop {
        let happened = monitor.wait()?;
        let Some(happened) = happened else { return Ok(()) };
        let mut text = String::new();
        for (record, what) in &happened {
            text.push_str(&line(record, what.clone(), json)?);
        }
        if !text.is_empty() && !report::stream(&text)? {
            return Ok(());
        }
    }
}

fn line(record: &BoxRecord, what: Happening, json: bool) -> Result<String> {
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let (id, name) = (record.id.as_str(), record.name.as_str());
    if json {
        return shown::on_a_line(&Event { time, what, id, name });
    }
    let (word, more) = what.words();
    Ok(format!("{}\n", format!("{time} {word:5} {id} {name} {more}").trim_end()))
}

type Happened = Vec<(BoxRecord, Happening)>;

/// What a watched directory is to this.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// One on the way to the boxes: what counts is the next, which has this name.
    Above(String),
    /// Where the boxes' directories are.
    Boxes,
    /// The directory of the box with this id.
    Box(String),
}

/// What is known of a box.
#[derive(Debug)]
enum State {
    /// It lives, as far as is known. With its keeper, where there is a descriptor to spare.
    Living(Box<BoxRecord>, Option<OwnedFd>),
    /// It has ended, and this was told.
    Over,
}

struct Monitor {
    inotify: Inotify,
    /// Of the state directory, which need not be there.
    path: String,
    /// The state directory, where it is there.
    root: Option<OwnedFd>,
    watched: HashMap<WatchDescriptor, Place>,
    boxes: HashMap<String, State>,
}

impl Monitor {
    /// Waits until something happened. `None`: nobody reads.
    fn wait(&mut self) -> Result<Option<Happened>> {
        let (told, ended, gone) = self.poll()?;
        if gone {
            return Ok(None);
        }
        let mut happened = Vec::new();
        for id in ended {
            happened.extend(self.end(&id));
        }
        if told {
            for event in self.events()? {
                happened.extend(self.attend(&event)?);
            }
        }
        Ok(Some(happened))
    }

    /// Whether the state directory has changed, the boxes whose keepers have ended, and whether nobody reads.
    fn poll(&self) -> Result<(bool, Vec<String>, bool)> {
        let stdout = std::io::stdout();
        // Nothing asked of it: that the other end of a pipe is closed is always told (poll(2), POLLERR).
        let mut wanted = vec![
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        let keepers = self.boxes.iter().filter_map(|(id, state)| match state {
            State::Living(_, keeper) => Some((id, keeper.as_ref()?)),
            State::Over => None,
        });
        let keepers: Vec<_> = keepers.collect();
        wanted.extend(keepers.iter().map(|(_, keeper)| PollFd::new(keeper.as_fd(), PollFlags::POLLIN)));
        match poll(&mut wanted, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "cannot wait for something to happen"),
        }
        let happened = |place: usize| wanted.get(place).and_then(PollFd::any).unwrap_or(false);
        let ended = keepers.iter().enumerate().filter(|(place, _)| happened(place + 2));
        let ended = ended.map(|(_, (id, _))| (*id).clone()).collect();
        Ok((happened(0), ended, happened(1)))
    }

    fn events(&self) -> Result<Vec<InotifyEvent>> {
        match self.inotify.read_events() {
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Vec::new()),
            other => other.context(|| "cannot read what happened to the state directory"),
        }
    }

    fn attend(&mut self, event: &InotifyEvent) -> Result<Happened> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return self.look_at_all();
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            // The directory is gone, and the watch with it.
            self.watched.remove(&event.wd);
            return Ok(Vec::new());
        }
        let name = event.name.as_deref().and_then(OsStr::to_str).unwrap_or_default();
        match self.watched.get(&event.wd).cloned() {
            Some(Place::Above(next)) if next == name => self.look_at_all(),
            Some(Place::Boxes) if BoxId::parse(name).is_ok() => self.look_at(name),
            Some(Place::Box(id)) => self.look_at(&id),
            _ => Ok(Vec::new()),
        }
    }

    /// Watches what is there, from the top, and looks at every box.
    fn look_at_all(&mut self) -> Result<Happened> {
        self.root = None;
        // What is made below a directory after it is watched is told; what was made before is found by the next step.
        let parts: Vec<_> = self.path.split('/').skip(1).chain(["boxes"]).map(str::to_owned).collect();
        let mut path = String::new();
        for (part, next) in parts.iter().zip(parts.iter().skip(1)) {
            path = format!("{path}/{part}");
            if !self.watch(&path, Place::Above(next.clone()))? {
                break;
            }
        }
        if self.watch(&format!("{}/boxes", self.path), Place::Boxes)? {
            self.root = state::root_here()?;
        }
        let there = self.root.as_ref().map(registry::all_ids).unwrap_or_default();
        let known = self.boxes.keys().cloned().collect::<Vec<_>>();
        let mut happened = Vec::new();
        for id in there.iter().chain(known.iter().filter(|id| !there.contains(id))) {
            happened.extend(self.look_at(id)?);
        }
        Ok(happened)
    }

    /// Watches a directory. `false`: it is not there.
    fn watch(&mut self, path: &str, place: Place) -> Result<bool> {
        let what = match place {
            // Files are written beside and renamed.
            Place::Box(_) => AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM,
            Place::Above(_) | Place::Boxes => {
                AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE
            }
        };
        let how = AddWatchFlags::IN_ONLYDIR | AddWatchFlags::IN_DONT_FOLLOW;
        match self.inotify.add_watch(path, what | how) {
            Ok(descriptor) => {
                self.watched.insert(descriptor, place);
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(Error::new(format!("cannot watch {path}"))
                .os(&errno.into())
                .hint("for want of room: the limit is fs.inotify.max_user_watches")),
        }
    }

    /// What has happened to the box with this id since the last look.
    fn look_at(&mut self, id: &str) -> Result<Happened> {
        // Before its files are read: what is written later is told.
        let path = format!("{}/boxes/{id}", self.path);
        if !self.boxes.contains_key(id) && !self.watch(&path, Place::Box(id.to_owned()))? {
            return Ok(Vec::new());
        }
        let found = self.root.as_ref().and_then(|root| registry::look_up(root, id));
        let is_there = found.is_some();
        let living = found.and_then(|(record, alive)| record.filter(|record| alive && record.id == id));
        let happened = match (self.boxes.get_mut(id), living) {
            (None, Some(record)) => {
                let happened = all(&record, between(None, Some(&record)));
                self.know(id, record);
                happened
            }
            (None, None) => self.missed(id),
            (Some(State::Living(before, _)), Some(now)) => {
                let happened = all(&now, between(Some(before), Some(&now)));
                **before = now;
                happened
            }
            (Some(State::Living(..)), None) => self.end(id),
            (Some(State::Over), _) => Vec::new(),
        };
        if !is_there {
            self.boxes.remove(id);
        }
        Ok(happened)
    }

    fn know(&mut self, id: &str, record: BoxRecord) {
        let number = u32::try_from(record.keeper_pid).unwrap_or(0);
        let keeper = process::open(number).ok();
        // It was the box's: the box lives still.
        let lives = |root| registry::look_up(root, id).is_some_and(|(_, alive)| alive);
        let keeper = keeper.filter(|_| self.root.as_ref().is_some_and(lives));
        self.boxes.insert(id.to_owned(), State::Living(Box::new(record), keeper));
    }

    /// A box that has ended before it was seen. Its record is there a moment longer.
    fn missed(&mut self, id: &str) -> Happened {
        let record = self.root.as_ref().and_then(|root| registry::left_behind(root, id));
        let Some(record) = record.filter(|record| record.id == id) else { return Vec::new() };
        self.boxes.insert(id.to_owned(), State::Over);
        let mut happened = between(None, Some(&record));
        happened.extend(between(Some(&record), None));
        all(&record, happened)
    }

    fn end(&mut self, id: &str) -> Happened {
        match self.boxes.insert(id.to_owned(), State::Over) {
            Some(State::Living(record, _)) => all(&record, between(Some(&record), None)),
            _ => Vec::new(),
        }
    }
}

fn all(record: &BoxRecord, happened: Vec<Happening>) -> Happened {
    happened.into_iter().map(|one| (record.clone(), one)).collect()
}
