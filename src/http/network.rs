//! Networks, in CIDR notation (RFC 4632, section 3.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest part of a word that a message quotes, in characters, so that the message fits a line of
/// a terminal.
const QUOTED: usize = 60;

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    /// How many leading bits of an address are the network's.
    bits: u32,
}

impl Network {
    /// # Errors
    /// One sentence.
    pub(crate) fn parse(word: &str) -> Result<Network, String> {
        let no_network =
            || format!("{} is no network; write one such as 10.0.0.0/8 or 10.1.2.3", quoted(word));
        let (address, bits) = match word.split_once('/') {
            None => (word, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| no_network())?;
        if address.to_canonical() != address {
            // No peer has such an address here.
            return Err(format!("{}: write an IPv4 address as IPv4", quoted(word)));
        }
        let most = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|digit| digit.is_ascii_digit()) => {
                bits.parse().map_err(|_| no_network())?
            }
            Some(_) => return Err(no_network()),
        };
        if bits > most {
            return Err(format!("{}: an address has only {most} bits", quoted(word)));
        }
        let network = Network { address: masked(address, bits), bits };
        if network.address != address {
            return Err(format!("{} is an address within {network}; write that", quoted(word)));
        }
        Ok(network)
    }

    /// How many leading bits of an address are the network's.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// Whether the address, which is no IPv4 address written as IPv6, is in the network.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        masked(address, self.bits) == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match self.address {
            IpAddr::V4(_) if self.bits == Ipv4Addr::BITS => Ok(()),
            IpAddr::V6(_) if self.bits == Ipv6Addr::BITS => Ok(()),
            _ => write!(f, "/{}", self.bits),
        }
    }
}

/// The address with only its first `bits` bits, or all that it has.
fn masked(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            let rest = u32::MAX.checked_shr(bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(four.to_bits() & !rest))
        }
        IpAddr::V6(six) => {
            let rest = u128::MAX.checked_shr(bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !rest))
        }
    }
}

/// The word in quotation marks, escaped and truncated.
pub(crate) fn quoted(word: &str) -> String {
    let start: String = word.chars().take(QUOTED).collect();
    if start.len() < word.len() { format!("{start:?}...") } else { format!("{start:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_with_its_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "127.0.0.1"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.has(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.has(outside.parse().unwrap()), "{network} {outside}");
        }
        assert_eq!(Network::parse("127.0.0.1/32").unwrap().to_string(), "127.0.0.1");
    }

    #[test]
    fn malformed_networks_are_explained() {
        for (word, what) in [
            ("10.0.0.1/8", "\"10.0.0.1/8\" is an address within 10.0.0.0/8; write that"),
            ("2001:db8::1/64", "\"2001:db8::1/64\" is an address within 2001:db8::/64; write that"),
            ("10.0.0.0/33", "\"10.0.0.0/33\": an address has only 32 bits"),
            ("::ffff:10.0.0.1", "\"::ffff:10.0.0.1\": write an IPv4 address as IPv4"),
        ] {
            assert_eq!(Network::parse(word), Err(what.to_owned()));
        }
        for word in ["", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "10/8", "*", "localhost", "/8"]
        {
            let what = format!("{word:?} is no network; write one such as 10.0.0.0/8 or 10.1.2.3");
            assert_eq!(Network::parse(word), Err(what));
        }
    }
}
