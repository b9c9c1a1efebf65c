//! resolv.conf(5) and hosts(5): whatever the host's say, the box's own say what they are to say.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use netbox::plan::resolver::{ResolvConf, hosts_for_box};
use netbox::spec::{ExtraHost, Nameserver, search_list};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 16);

fuzz_target!(|bytes: &[u8]| {
    let host = ResolvConf::parse(bytes);
    assert!(!host.upstream(&[]).servers.is_empty());
    let own = ResolvConf::parse(host.for_box(RESOLVER, None, false).as_bytes());
    assert_eq!(own.nameservers, [Nameserver { address: RESOLVER.into(), scope: None }]);
    assert_eq!((own.search, own.options), (host.search, host.options));

    let extra = ExtraHost { name: "db".to_owned(), address: RESOLVER.into() };
    let hosts = hosts_for_box(bytes, &[extra.clone()]);
    assert!(hosts.starts_with(b"169.254.64.16\tdb\n"));

    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(host) = text.parse::<ExtraHost>() {
        let line = hosts_for_box(b"", std::slice::from_ref(&host));
        assert_eq!(line, format!("{}\t{}\n", host.address, host.name).as_bytes(), "{text:?}");
    }
    if let Ok(server) = text.parse::<Nameserver>() {
        assert_eq!(server.to_string().parse(), Ok(server), "{text:?}");
    }
    if let Ok(domains) = search_list(&text.split('\0').collect::<Vec<_>>()) {
        let own = ResolvConf::default().for_box(RESOLVER, Some(&domains), false);
        assert_eq!(ResolvConf::parse(own.as_bytes()).search.len(), domains.len(), "{text:?}");
    }
});
