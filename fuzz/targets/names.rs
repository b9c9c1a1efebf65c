//! Names, users, variables, sizes and account files: what is accepted can be used where it is going.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use libfuzzer_sys::fuzz_target;
use netbox::plan::identity::{Accounts, Caller, identity};
use netbox::spec::capability::Capabilities;
use netbox::spec::hostname::Hostname;
use netbox::spec::{BoxId, BoxName, EnvSetting, Net, UserSpec, descriptor, mtu, timeout};

fuzz_target!(|bytes: &[u8]| {
    let _ = EnvSetting::parse(OsStr::from_bytes(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = BoxName::parse(text) {
        assert!(is_a_file_name(name.as_str()), "{text:?}");
    }
    if let Ok(id) = BoxId::parse(text) {
        assert!(is_a_file_name(id.as_str()) && id.as_str().len() + 2 < 16, "{text:?}");
    }
    let _ = text.parse::<Net>();
    let _ = mtu::parse(text);
    let _ = timeout::parse(text);
    let _ = descriptor::parse(text);
    if let Ok(name) = Hostname::parse(text) {
        // sethostname(2).
        assert!(name.as_str().len() <= 64, "{text:?}");
    }
    let mut parts = text.splitn(3, '\0');
    let Some(Ok(user)) = parts.next().map(str::parse::<UserSpec>) else { return };
    let mut file = || parts.next().unwrap_or_default().as_bytes().to_vec();
    let accounts = Accounts { passwd: file(), group: file() };
    let root = Caller { uid: 0, gid: 0, groups: Vec::new(), sudo: None, capabilities: Capabilities::default() };
    if let Ok(identity) = identity(&root, &accounts, Some(&user)) {
        // setresuid(2) takes it for "leave as it is".
        assert!(identity.uid != u32::MAX && identity.gid != u32::MAX, "{text:?}");
    }
});

fn is_a_file_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() < 256 && !text.contains(['/', '\0'])
}
