//! Which slot an address stands for, and whether a pool or a prefix that was asked for can be had.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::facts::Facts;
use super::pool;
use super::topology::{RESERVED, slots_of};
use crate::error::{Error, Result};

/// What a gateway is to have, if one is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The pool; `None` for one that netbox chooses.
    pub pool: Option<Ipv4Net>,
    /// The IPv6 pool, a /64; `None` for a random one.
    pub pool6: Option<Ipv6Net>,
}

/// The slot whose IPv4 address this is.
///
/// # Errors
/// When no box has such an address, naming the pool.
pub fn slot(pool: Ipv4Net, address: Ipv4Addr) -> Result<u32> {
    if !pool.contains(&address) {
        return Err(cannot(address)
            .because(format!("it is not in the pool of the boxes, {pool}"))
            .hint(format!("{}; the first box may choose another pool: --pool CIDR", range4(pool))));
    }
    let offset = u32::from(address) - u32::from(pool.network());
    offset
        .checked_sub(RESERVED)
        .filter(|slot| *slot < slots_of(pool))
        .ok_or_else(|| cannot(address).because(reserved(&pool)).hint(range4(pool)))
}

/// The slot whose IPv6 address this is, where the pool has as many slots.
///
/// # Errors
/// When no box has such an address, naming the pool.
pub fn slot6(pool6: Ipv6Net, slots: u32, address: Ipv6Addr) -> Result<u32> {
    let first = u128::from(pool6.network());
    let nth = |offset: u32| Ipv6Addr::from(first + u128::from(offset));
    let range = format!("boxes have {} to {}", nth(RESERVED), nth(RESERVED + slots - 1));
    if !pool6.contains(&address) {
        return Err(cannot(address)
            .because(format!("it is not in the IPv6 pool of the boxes, {pool6}"))
            .hint(format!("{range}; the first box chooses the pool by its --ip6")));
    }
    u32::try_from(u128::from(address) - first)
        .ok()
        .and_then(|offset| offset.checked_sub(RESERVED))
        .filter(|slot| *slot < slots)
        .ok_or_else(|| cannot(address).because(reserved(&pool6)).hint(range))
}

/// Refuses two addresses, each with the slot that it stands for, that no box has both of.
///
/// # Errors
/// Naming the address that would match.
pub fn same(pool6: Ipv6Net, four: (u32, Ipv4Addr), six: (u32, Ipv6Addr)) -> Result<()> {
    if four.0 == six.0 {
        return Ok(());
    }
    let match_of_four = Ipv6Addr::from(u128::from(pool6.network()) + u128::from(RESERVED + four.0));
    Err(Error::new(format!("cannot give the box both {} and {}", four.1, six.1))
        .because("both addresses of a box are at the same place of their pools")
        .hint(format!("the box with {} has {match_of_four}", four.1)))
}

fn cannot(address: impl Into<IpAddr>) -> Error {
    Error::new(format!("cannot give the box the address {}", address.into()))
}

fn reserved(pool: &impl std::fmt::Display) -> String {
    format!("no box has that address of the pool {pool}: its first {RESERVED} and its end are reserved")
}

fn range4(pool: Ipv4Net) -> String {
    let nth = |offset: u32| Ipv4Addr::from(u32::from(pool.network()) + offset);
    format!("boxes have {} to {}", nth(RESERVED), nth(RESERVED + slots_of(pool) - 1))
}

/// Refuses a range that the host uses itself.
///
/// # Errors
/// Naming the address or the route that overlaps it.
pub fn check_free(net: IpNet, facts: &Facts) -> Result<()> {
    match pool::overlap(net, facts) {
        None => Ok(()),
        Some(cause) => Err(Error::new(format!("cannot give boxes addresses of {net}")).because(cause).hint(
            "boxes could not reach what is there; choose a range that `ip route show table all` has not",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::HostAddress;
    use crate::plan::topology::{Ipv6, Topology};

    #[test]
    fn a_slot_and_its_addresses_belong_to_each_other() {
        for pool in ["10.77.128.0/18", "10.99.7.0/24", "10.99.7.32/27"] {
            let pool: Ipv4Net = pool.parse().unwrap();
            let pool6: Ipv6Net = "fd12::/64".parse().unwrap();
            let topology = Topology { pool, ipv6: Ipv6::Pool(pool6), number: 0, mtu: 1500 };
            for number in [0, 1, slots_of(pool) - 1] {
                assert_eq!(slot(pool, topology.box_address(number)), Ok(number));
                let six = topology.box_address6(number).unwrap();
                assert_eq!(slot6(pool6, slots_of(pool), six), Ok(number));
                assert_eq!(same(pool6, (number, topology.box_address(number)), (number, six)), Ok(()));
            }
            assert!(slot(pool, topology.gateway_address()).unwrap_err().to_string().contains("reserved"));
            assert!(slot(pool, pool.broadcast()).unwrap_err().to_string().contains("reserved"));
            assert!(slot6(pool6, slots_of(pool), "fd12::1:0:0:0".parse().unwrap()).is_err());
        }
    }

    #[test]
    fn an_address_of_no_pool_is_told_the_pool() {
        let pool: Ipv4Net = "10.99.7.0/24".parse().unwrap();
        let error = slot(pool, Ipv4Addr::new(10, 99, 8, 20)).unwrap_err();
        assert_eq!(error.exit_status(), 125);
        assert!(error.to_string().contains("10.99.7.0/24"), "{error}");
        let error = slot6("fd12::/64".parse().unwrap(), 100, "fd13::20".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("fd12::/64"), "{error}");
    }

    #[test]
    fn addresses_of_two_slots_are_refused_with_the_one_that_would_do() {
        let six = "fd12::12".parse().unwrap();
        let pool6 = "fd12::/64".parse().unwrap();
        let error = same(pool6, (1, Ipv4Addr::new(10, 0, 0, 17)), (2, six)).unwrap_err();
        assert!(error.remedy().is_some_and(|hint| hint.contains("fd12::11")), "{error}");
    }

    #[test]
    fn a_range_that_the_host_uses_is_refused_with_what_uses_it() {
        let facts = Facts {
            addresses: vec![HostAddress {
                link: "lan0".to_owned(),
                index: 2,
                address: "10.99.0.7/24".parse().unwrap(),
            }],
            routes: vec!["10.50.0.0/16".parse().unwrap(), "0.0.0.0/0".parse().unwrap()],
            ..Facts::default()
        };
        let told = |net: &str| check_free(net.parse().unwrap(), &facts).unwrap_err().to_string();
        assert!(told("10.99.0.0/18").contains("10.99.0.7/24 on lan0"));
        assert!(told("10.50.64.0/18").contains("10.50.0.0/16"));
        assert_eq!(check_free("10.98.0.0/18".parse().unwrap(), &facts), Ok(()));
    }
}
