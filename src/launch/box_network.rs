//! The box's side of its network, configured by its first process while that still may.

use ipnet::IpNet;

use crate::apply::wiring;
use crate::error::{Context, Result};
use crate::kernel::route::{Refused, Route, link};
use crate::kernel::sysctl;
use crate::plan;
use crate::plan::mounts::Mount;
use crate::plan::topology::eth_index;
use crate::plan::wiring::{BoxLink, Wire};

use super::mounts;

/// Brings up the loopback interface, and the links with their addresses and the way out where there are any. `cover`: what keeps
/// everybody from writing below /proc/sys.
///
/// # Errors
/// Naming the step.
pub fn configure(links: &[BoxLink], cover: Option<&Mount>) -> Result<()> {
    let mut route = Route::open().context(|| "cannot open netlink in the box")?;
    let wires = plan::wiring::in_box(links);
    let mut requests = wiring::requests_by(&wires, |dev| {
        links.iter().find(|link| link.interface == dev).map_or(wiring::LO, |link| eth_index(link.link))
    });
    // So that each also says that it is up, to programs that look before they send.
    requests.extend(links.iter().map(|link| link::settle(eth_index(link.link))));
    let is_ipv6 = |wire: &Wire| matches!(wire, Wire::Address { address: IpNet::V6(_), .. });
    let mut configured = route.pipeline(&requests);
    if let (Err(Refused { index, refusal, .. }), Some(six)) = (&configured, wires.iter().position(is_ipv6))
        && *index == six
        && refusal.errno == libc::EACCES
    {
        // The box inherited that IPv6 is switched off (net.core.devconf_inherit_init_net; ipv6.disable_ipv6 on the kernel's
        // command line). What follows was refused for the same reason, or can be repeated.
        let mut with_six = links.iter().filter(|link| link.ipv6.is_some());
        let switch = || {
            with_six
                .try_for_each(|link| sysctl::write(&["ipv6", "conf", &link.interface, "disable_ipv6"], "0"))
        };
        mounts::without(cover, switch)?.context(|| "cannot switch IPv6 on for the link of the box")?;
        configured = route.pipeline(&requests[six..]);
    }
    configured.map_err(|refused| refused.refusal.into_error(format!("cannot {} in the box", refused.what)))
}
