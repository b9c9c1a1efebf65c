//! Networks as they are kept, reboots included: `/var/lib/netbox/<uid>/networks/NAME.json`.
//!
//! Opened as carefully as the state directory: without following links, and refused when a part belongs to somebody else or others
//! may write to it. Here a file that cannot be read is an error, not an absent one: nobody could make it again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::plan::network::Network;
use crate::plan::refusal;
use crate::spec::network::NetworkName;
use crate::spec::request::RunRequest;

use super::state::{self, check, make_directory, open_checked};

/// Where the directories of all users are.
const PARENT: &str = "/var/lib/netbox";

/// No file of ours is larger.
const LARGEST: u64 = 1 << 20;

const SUFFIX: &str = ".json";

/// The networks of this user.
#[derive(Debug)]
pub struct Networks {
    directory: OwnedFd,
    path: String,
}

/// One network, which nobody removes while this value lives.
#[derive(Debug)]
pub struct Kept {
    /// What it is.
    pub network: Network,
    /// Locked.
    _file: File,
}

impl Networks {
    /// Opens the directory, making what is missing.
    ///
    /// # Errors
    /// When a part of it is a link, belongs to another user or may be written by others, naming it.
    pub fn open() -> Result<Self> {
        let user = rustix::process::geteuid().as_raw().to_string();
        make_directory(CWD, PARENT, 0o755).context(|| format!("cannot make {PARENT}"))?;
        let parent = state::open_parent(PARENT)?;
        let own = format!("{PARENT}/{user}");
        make_directory(&parent, &user, 0o700).context(|| format!("cannot make {own}"))?;
        let own_directory = open_checked(&parent, &user, &own)?;
        let path = format!("{own}/networks");
        make_directory(&own_directory, "networks", 0o700).context(|| format!("cannot make {path}"))?;
        let directory = open_checked(&own_directory, "networks", &path)?;
        Ok(Self { directory, path })
    }

    /// Opens the directory if it is there. `None`: there is no network.
    ///
    /// # Errors
    /// As [`Networks::open`].
    pub fn open_existing() -> Result<Option<Self>> {
        let path = format!("{PARENT}/{}/networks", rustix::process::geteuid().as_raw());
        match state::open_directory(CWD, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => Self::open().map(Some),
        }
    }

    /// Waits until nobody else makes or removes a network, for as long as this value lives.
    ///
    /// # Errors
    /// Those of flock(2).
    pub fn lock(&self) -> Result<()> {
        lock(&self.directory, FlockOperation::LockExclusive).context(|| format!("cannot lock {}", self.path))
    }

    /// The names of all networks, in their order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<NetworkName>> {
        let listing = rustix::fs::Dir::read_from(&self.directory)
            .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
            .map_err(io::Error::from)
            .context(|| format!("cannot read {}", self.path))?;
        // What is half written has another ending, and what is no name is not ours.
        let name = |entry: &rustix::fs::DirEntry| {
            NetworkName::parse(entry.file_name().to_str().ok()?.strip_suffix(SUFFIX)?).ok()
        };
        let mut names: Vec<_> = listing.iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// All networks, in the order of their names.
    ///
    /// # Errors
    /// Naming the file that is not what netbox wrote.
    pub fn all(&self) -> Result<Vec<Network>> {
        let mut all = Vec::new();
        for name in self.names()? {
            // Removed meanwhile: not among them.
            all.extend(self.read(&name)?.map(|(network, _)| network));
        }
        Ok(all)
    }

    /// The network of that name, as it is now.
    ///
    /// # Errors
    /// When its file is not what netbox wrote.
    pub fn find(&self, name: &NetworkName) -> Result<Option<Network>> {
        Ok(self.read(name)?.map(|(network, _)| network))
    }

    /// The network of that name, kept from being removed.
    ///
    /// # Errors
    /// When there is none, or its file is not what netbox wrote.
    pub fn keep(&self, name: &NetworkName) -> Result<Kept> {
        self.hold(name, FlockOperation::LockShared)?.ok_or_else(|| unknown(name))
    }

    /// The network of that name, with nobody just about to join it.
    ///
    /// # Errors
    /// As [`Networks::keep`].
    pub fn hold_alone(&self, name: &NetworkName) -> Result<Kept> {
        self.hold(name, FlockOperation::LockExclusive)?.ok_or_else(|| unknown(name))
    }

    fn hold(&self, name: &NetworkName, operation: FlockOperation) -> Result<Option<Kept>> {
        let Some((network, file)) = self.read(name)? else { return Ok(None) };
        lock(&file, operation).context(|| format!("cannot lock {}", self.path_of(name)))?;
        // Removed while this waited.
        let seen = file.metadata().context(|| format!("cannot look at {}", self.path_of(name)))?;
        Ok((seen.nlink() != 0).then_some(Kept { network, _file: file }))
    }

    fn read(&self, name: &NetworkName) -> Result<Option<(Network, File)>> {
        let path = self.path_of(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.directory, file_name(name).as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => {
                let error = Error::new(format!("cannot use network {name}"));
                return Err(match errno {
                    rustix::io::Errno::LOOP => error.because(format!("{path} is a link")),
                    _ => error.because(format!("cannot open {path}: {}", io::Error::from(errno))),
                });
            }
        };
        check(&file, &path)?;
        let mut bytes = Vec::new();
        (&file).take(LARGEST).read_to_end(&mut bytes).context(|| format!("cannot read {path}"))?;
        let broken = |cause: String| {
            Error::new(format!("cannot use network {name}"))
                .because(format!("{path} is not what netbox wrote: {cause}"))
                .hint(format!("rm {path}, and create the network again"))
        };
        let network: Network = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
        if network.name != *name {
            return Err(broken(format!("it is about network {}", network.name)));
        }
        Ok(Some((network, file)))
    }

    /// Keeps a network from now on. The caller holds the lock.
    ///
    /// # Errors
    /// ENOSPC and its like: nothing is left behind then.
    pub fn write(&self, network: &Network) -> Result<()> {
        let (name, new) = (file_name(&network.name), format!("{}.new", network.name));
        let write = || -> io::Result<()> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let mut file = File::from(rustix::fs::openat(&self.directory, new.as_str(), flags, mode)?);
            file.write_all(&serde_json::to_vec_pretty(network)?)?;
            // It is to be whole after a power failure too.
            file.sync_all()?;
            rustix::fs::renameat(&self.directory, new.as_str(), &self.directory, name.as_str())?;
            Ok(rustix::fs::fsync(&self.directory)?)
        };
        write()
            .inspect_err(|_| drop(state::remove(&self.directory, &new)))
            .context(|| format!("cannot write {}", self.path_of(&network.name)))
    }

    /// Forgets a network. The caller holds it alone.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self, kept: Kept) -> Result<()> {
        let name = &kept.network.name;
        rustix::fs::unlinkat(&self.directory, file_name(name).as_str(), AtFlags::empty())
            .map_err(io::Error::from)
            .context(|| format!("cannot remove {}", self.path_of(name)))
    }

    fn path_of(&self, name: &NetworkName) -> String {
        format!("{}/{}", self.path, file_name(name))
    }
}

/// The networks that a box is to be in, kept from being removed.
///
/// # Errors
/// As [`keep`]; an option that it cannot have there.
pub fn keep_for(request: &RunRequest) -> Result<Vec<Kept>> {
    let kept = request.net.links().map(|(_, join)| keep(&join.name)).collect::<Result<Vec<_>>>()?;
    let way_out = kept.first().filter(|_| request.net.way_out().is_some());
    way_out.map_or(Ok(()), |kept| refusal::in_network(request, &kept.network))?;
    Ok(kept)
}

/// The network of that name, kept from being removed.
///
/// # Errors
/// When there is none, or its file is not what netbox wrote.
pub fn keep(name: &NetworkName) -> Result<Kept> {
    Networks::open_existing()?.ok_or_else(|| unknown(name))?.keep(name)
}

/// The network of that name, as it is now.
///
/// # Errors
/// As [`keep`].
pub fn find(name: &NetworkName) -> Result<Network> {
    Networks::open_existing()?.ok_or_else(|| unknown(name))?.find(name)?.ok_or_else(|| unknown(name))
}

/// There is no such network.
#[must_use]
pub fn unknown(name: &NetworkName) -> Error {
    Error::new(format!("there is no network {name}"))
        .hint(format!("`netbox network ls` lists them; netbox network create {name}"))
}

fn file_name(name: &NetworkName) -> String {
    format!("{name}{SUFFIX}")
}

fn lock(file: &impl AsFd, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
