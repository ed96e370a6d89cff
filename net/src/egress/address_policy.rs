//! Which addresses an account may connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Checked when a base URL is set and again for each address when it connects: a name that was
/// public yesterday can lead into the company's network today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Any address: the base URL comes from the operator's own file.
    Any,
    /// Public addresses, and those that the operator allowed.
    Public {
        /// `[egress] allow`.
        allow: Vec<Cidr>,
        /// Whether this machine itself may be called.
        loopback: bool,
    },
}

/// A block of addresses: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

/// The text is not `ADDRESS/BITS`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a block of addresses such as 10.0.0.0/8")]
pub struct InvalidCidr(String);

impl AddressPolicy {
    /// Whether a connection to `address` may be opened.
    pub fn admits(&self, address: IpAddr) -> bool {
        match self {
            AddressPolicy::Any => true,
            AddressPolicy::Public { allow, loopback } => {
                // An IPv4 address in IPv6 clothes reaches the same machine.
                let address = address.to_canonical();
                is_public(address)
                    || (*loopback && address.is_loopback())
                    || allow.iter().any(|block| block.contains(address))
            }
        }
    }
}

impl Cidr {
    /// Whether the block holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift_v4 = 32 - u32::from(self.prefix_bits.min(32));
        let shift_v6 = 128 - u32::from(self.prefix_bits);
        match (self.network, address) {
            // Shifting by the full width is zero prefix bits: everything.
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits())
                    .checked_shr(shift_v4)
                    .unwrap_or(0)
                    == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits())
                    .checked_shr(shift_v6)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Cidr, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (network, bits) = text.split_once('/').ok_or_else(invalid)?;
        let network: IpAddr = network.parse().map_err(|_| invalid())?;
        let prefix_bits: u8 = bits.parse().map_err(|_| invalid())?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        if prefix_bits > width {
            return Err(invalid());
        }
        Ok(Cidr {
            network,
            prefix_bits,
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IANA IPv4 Special-Purpose Address Registry, read 2026-11.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || address.is_documentation()
        || (a == 198 && (b == 18 || b == 19))
        || a >= 224)
}

/// Global unicast is 2000::/3; within it, the ways back to IPv4 and the documentation blocks are not.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = segments {
        return is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    }
    let tunnel = matches!(segments, [0x2001, 0, ..] | [0x2002, ..]);
    let documentation = matches!(segments, [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..]);
    segments[0] & 0xe000 == 0x2000 && !tunnel && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn private_addresses_are_refused_unless_allowed() {
        let public = AddressPolicy::Public {
            allow: Vec::new(),
            loopback: false,
        };
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001::1",
        ] {
            assert!(!public.admits(address(text)), "{text}");
            assert!(AddressPolicy::Any.admits(address(text)));
        }
        for text in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(public.admits(address(text)), "{text}");
        }

        let loopback = AddressPolicy::Public {
            allow: Vec::new(),
            loopback: true,
        };
        assert!(loopback.admits(address("127.0.0.1")) && loopback.admits(address("::1")));
        assert!(!loopback.admits(address("10.0.0.1")));
        let allow = vec!["10.0.0.0/8".parse().unwrap()];
        let allowed = AddressPolicy::Public {
            allow,
            loopback: false,
        };
        assert!(allowed.admits(address("10.9.8.7")) && allowed.admits(address("::ffff:10.9.8.7")));
        assert!(
            !allowed.admits(address("11.0.0.1").to_canonical()) || is_public(address("11.0.0.1"))
        );
        assert!(!allowed.admits(address("192.168.0.1")));
    }

    #[test]
    fn a_block_holds_the_addresses_that_share_its_prefix() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::1", false),
            ("::/0", "fe00::1", true),
        ];
        for (block, text, holds) in rows {
            assert_eq!(
                block.parse::<Cidr>().unwrap().contains(address(text)),
                holds,
                "{block} {text}"
            );
        }
        for text in [
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "x/8",
            "10.0.0.0/-1",
            "10.0.0.0/",
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(InvalidCidr(text.to_owned())));
        }
    }
}
