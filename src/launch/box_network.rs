//! The box's side of its network, configured by its first process while that still may.

use crate::apply::wiring;
use crate::error::{Context, Result};
use crate::kernel::route::{Route, link};
use crate::plan;
use crate::plan::topology::ETH_INDEX;
use crate::plan::wiring::BoxLink;

/// Brings up the loopback interface, and the link with its address and its way out where there is one.
///
/// # Errors
/// Naming the step.
pub fn configure(box_link: Option<&BoxLink>) -> Result<()> {
    let mut route = Route::open().context(|| "cannot open netlink in the box")?;
    let mut requests = wiring::requests(&plan::wiring::in_box(box_link), ETH_INDEX);
    if box_link.is_some() {
        // So that it also says that it is up, to programs that look before they send.
        requests.push(link::settle(ETH_INDEX));
    }
    wiring::pipeline(&mut route, &requests, "the box")
}
