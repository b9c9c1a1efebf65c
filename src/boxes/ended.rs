//! Detached boxes that have ended, and which box a user means among these and those that live.

use crate::apply::kept::{self, Kept, KeptBox};
use crate::apply::registry;
use crate::apply::state::{self, State};
use crate::error::{Context, Error, Result};
use crate::plan::record::{EndRecord, KeptRecord};
use crate::spec::name::BoxId;
use crate::spec::reference::BoxRef;

use super::find::{self, Found};

/// A detached box that has ended.
#[derive(Debug)]
pub struct Ended {
    /// What is kept of it.
    pub kept: KeptBox,
    /// What it was; `None` where the file was damaged.
    pub record: Option<KeptRecord>,
}

/// A box.
#[derive(Debug)]
pub enum Known {
    /// It lives.
    Living(Found),
    /// It does not.
    Ended(Ended),
}

impl Ended {
    /// How it ended. `None`: it was killed together with all of its netbox, or there was a reboot.
    #[must_use]
    pub fn end(&self) -> Option<EndRecord> {
        self.kept.end()
    }
}

/// The box with this name, else with this id, else the only one whose id begins so. Of two with the name, the one that lives.
///
/// # Errors
/// When there is none, or several; when it is only just starting; a directory that is not ours.
pub fn known(wanted: &BoxRef) -> Result<Known> {
    let (state, kept) = (State::open_existing()?, Kept::open_existing()?);
    let living = state.as_ref().and_then(|state| registry::with_name(state, wanted.as_str()));
    let host = state::host_here()?;
    let named = living.or_else(|| kept.as_ref()?.with_name(&host, wanted.as_str()));
    let id = match named {
        Some(id) => id,
        None => {
            let mut ids: Vec<_> = kept.as_ref().map(Kept::ids).unwrap_or_default();
            let living = state.as_ref().map(|state| registry::all_ids(state.root())).unwrap_or_default();
            ids.extend(living.iter().filter_map(|id| BoxId::parse(id).ok()));
            ids.sort_unstable();
            ids.dedup();
            *wanted.among(&ids)?
        }
    };
    if let Some(state) = state
        && let Some(found) = find::in_state(state, &id, wanted)?
    {
        return Ok(Known::Living(found));
    }
    let Some(kept) = kept.map(|kept| kept.open_box(&id)).transpose()?.flatten() else {
        return Err(wanted.unknown());
    };
    if kept.is_held() {
        return Err(Error::new(format!("cannot reach box {wanted}"))
            .because("it lives, and was started in another network namespace"));
    }
    let record = kept.record();
    Ok(Known::Ended(Ended { kept, record }))
}

/// The ended one among those.
///
/// # Errors
/// As [`known`]; and when the box lives.
pub fn find(wanted: &BoxRef) -> Result<Ended> {
    match known(wanted)? {
        Known::Ended(ended) => Ok(ended),
        Known::Living(_) => Err(Error::new(format!("box {wanted} has not ended"))),
    }
}

/// Every detached box of this host that has ended, and of any host those from before the last reboot, in the order in which
/// they started.
///
/// # Errors
/// A directory that is not ours.
pub fn all() -> Result<Vec<Ended>> {
    let Some(kept) = Kept::open_existing()? else { return Ok(Vec::new()) };
    let (host, boot) = (state::host_here()?, kept::boot().context(|| "cannot identify this boot")?);
    let mut all = Vec::new();
    for id in kept.ids() {
        // `None`: somebody has just removed it.
        let Some(kept) = kept.open_box(&id)? else { continue };
        let record = kept.record();
        let is_ours = record.as_ref().is_none_or(|record| record.host == host || record.boot != boot);
        if is_ours && !kept.is_held() {
            all.push(Ended { kept, record });
        }
    }
    all.sort_by_cached_key(|ended| {
        let started = ended.record.as_ref().map(|record| record.known.started.clone());
        (started, *ended.kept.id())
    });
    Ok(all)
}
