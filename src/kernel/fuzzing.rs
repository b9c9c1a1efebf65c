//! For the fuzz targets only: every reader of what the kernel answers.

use super::{conntrack, nft, route, sock_diag, wire};

/// Reads the bytes as a datagram, and each message in it as every kind of answer.
pub fn replies(bytes: &[u8]) {
    for message in wire::messages(bytes) {
        if let Some(Err(refusal)) = message.outcome() {
            let _ = refusal.to_string();
        }
        route::read(message.payload);
        sock_diag::read(message.payload);
        conntrack::read(message.payload);
        nft::read(message.payload);
    }
}
