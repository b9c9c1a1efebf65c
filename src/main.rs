//! The `netbox` binary.

fn main() {}
