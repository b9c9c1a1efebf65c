//! What wakes the relay of a UDP port.

use socket2::SockFilter;

use super::Target;

/// A socket filter that lets in what the relay carries ([`Port::is_relayed`](super::Port::is_relayed)) of either family. Anything else that comes to the socket of
/// a published port is a broadcast or a multicast, or the host's rules are gone: it must not cost the keeper anything.
pub(super) fn relayed_datagrams(target: Target) -> Vec<SockFilter> {
    // From linux/filter.h and linux/bpf_common.h. Offsets from SKF_AD_OFF on are about the packet, those from SKF_NET_OFF on
    // begin at the IP header.
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const AD_PROTOCOL: u32 = 0xffff_f000;
    const NETWORK: u32 = 0xfff0_0000;
    const ETH_P_IP: u32 = 0x0800;
    let load = |size, offset| SockFilter::new(size, 0, 0, offset);
    let equal = |value, then, otherwise| SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value);
    let end = |length| SockFilter::new(RETURN, 0, 0, length);
    if target.ipv6.is_none() {
        // 127.0.0.0/8: the destination is at 16 (RFC 791). ff00::/8: it is at 24 (RFC 8200).
        return vec![
            load(LOAD_WORD, AD_PROTOCOL),
            equal(ETH_P_IP, 0, 2),
            load(LOAD_BYTE, NETWORK + 16),
            equal(127, 2, 3),
            load(LOAD_BYTE, NETWORK + 24),
            equal(0xff, 1, 0),
            end(u32::MAX),
            end(0),
        ];
    }
    vec![
        load(LOAD_WORD, AD_PROTOCOL),
        equal(ETH_P_IP, 0, 2),
        load(LOAD_BYTE, NETWORK + 16),
        equal(127, 11, 12),
        // fe80::/10, or ::1.
        load(LOAD_HALF, NETWORK + 24),
        SockFilter::new(AND, 0, 0, 0xffc0),
        equal(0xfe80, 8, 0),
        load(LOAD_WORD, NETWORK + 24),
        equal(0, 0, 7),
        load(LOAD_WORD, NETWORK + 28),
        equal(0, 0, 5),
        load(LOAD_WORD, NETWORK + 32),
        equal(0, 0, 3),
        load(LOAD_WORD, NETWORK + 36),
        equal(1, 0, 1),
        end(u32::MAX),
        end(0),
    ]
}
