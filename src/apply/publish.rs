//! What the host's maps have of a box: its published ports, and the address that it sends with. From then on the kernel
//! translates.

use crate::error::{Error, Result};
use crate::kernel::nft::{Batch, Nft, NftError};
use crate::plan::record::{Attachment, PortMap};
use crate::plan::ruleset::{Element, Family};
use crate::plan::topology::TABLE;

use super::attach::host_elements;
use super::connections;
use super::state::Locked;

/// Maps the ports, if any, and the address that the box sends with: from here on the outside reaches the box, by connections that are older than the map too.
///
/// # Errors
/// ENOENT when somebody removed netbox's rules; those of ctnetlink.
pub fn map(_locked: &Locked<'_>, nft: &mut Nft, attachment: &Attachment, ports: &[PortMap]) -> Result<()> {
    let mut batch = Batch::new();
    for element in host_elements(attachment, ports) {
        // Not as one that must be new: whoever put the rules back meanwhile has mapped what the record names.
        batch.put_element(Family::Inet, TABLE, &element);
    }
    nft.commit(batch).map_err(Error::from)?;
    connections::renew(nft, ports)
}

/// Replaces elements of a namespace's sets and maps by others: at no moment is there less than what stays.
///
/// # Errors
/// ENOENT when somebody removed netbox's rules.
pub fn change(
    _locked: &Locked<'_>,
    nft: &mut Nft,
    gone: &[Element],
    come: &[Element],
) -> Result<(), NftError> {
    let mut batch = Batch::new();
    // First what goes: a range may take the place of another.
    for element in gone {
        batch.delete_element(Family::Inet, TABLE, element);
    }
    for element in come {
        batch.put_element(Family::Inet, TABLE, element);
    }
    nft.commit(batch)
}

/// Takes the maps away.
///
/// # Errors
/// Those of nf_tables; maps that are gone are no error.
pub fn unmap(
    _locked: &Locked<'_>,
    nft: &mut Nft,
    attachment: &Attachment,
    ports: &[PortMap],
) -> Result<(), NftError> {
    let mut batch = Batch::new();
    for element in host_elements(attachment, ports) {
        batch.delete_element(Family::Inet, TABLE, &element);
    }
    nft.commit(batch)
}
