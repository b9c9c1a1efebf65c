//! Whether the host has the address that a box is to send with.

use std::net::IpAddr;

use crate::error::{Context, Error, Result};
use crate::kernel::route::Route;

/// Looks for the address that was asked for, if one was.
///
/// # Errors
/// Naming it where the host has not got it: answers to it would never come back.
pub fn check(asked: Option<IpAddr>) -> Result<()> {
    let Some(address) = asked else { return Ok(()) };
    let all = Route::open()
        .and_then(|mut route| route.addresses())
        .context(|| "cannot list the addresses of the host")?;
    if all.iter().any(|(_, own)| own.addr() == address) {
        return Ok(());
    }
    Err(Error::new(format!("cannot send with the address {address}"))
        .because("it is not an address of this host")
        .hint("`ip addr` lists them"))
}
