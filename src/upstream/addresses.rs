//! The addresses of a peer that is dialled, in the order in which they are tried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Destination;

/// Addresses of one peer, all with the same port. The one that answered last is first.
#[derive(Debug, Default)]
pub(crate) struct Addresses(Vec<SocketAddr>);

impl Addresses {
    /// Those known without a lookup: none for a Unix socket or a name.
    pub fn of(to: &Destination) -> Addresses {
        match to {
            Destination::Socket(address) => Addresses(vec![*address]),
            Destination::Local { port } => Addresses(vec![
                (Ipv4Addr::LOCALHOST, *port).into(),
                (Ipv6Addr::LOCALHOST, *port).into(),
            ]),
            Destination::Unix(_) | Destination::Name { .. } => Addresses::default(),
        }
    }

    /// The next address after `tried` others have failed.
    pub fn get(&self, tried: usize) -> Option<SocketAddr> {
        self.0.get(tried).copied()
    }

    /// All of them, in this order.
    pub fn list(&self) -> &[SocketAddr] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn contains(&self, address: &SocketAddr) -> bool {
        self.0.contains(address)
    }

    pub fn has_ip(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|address| address.ip() == ip)
    }

    /// Takes the result of a lookup. The address that answered last stays first if it is in it.
    pub fn update(&mut self, found: Vec<SocketAddr>) {
        let first = self.0.first().and_then(|old| found.iter().position(|new| new == old));
        self.0 = found;
        self.0.rotate_left(first.unwrap_or(0));
    }

    /// Notes which address has taken a connection.
    pub fn answered(&mut self, peer: IpAddr) {
        if let Some(at) = self.0.iter().position(|address| address.ip() == peer) {
            self.0.rotate_left(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_answered_last_is_first() {
        let [one, two, three]: [SocketAddr; 3] =
            ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(|text| text.parse().unwrap());
        let mut addresses = Addresses::default();
        addresses.update(vec![one, two]);
        addresses.answered(two.ip());
        assert_eq!(addresses.0, [two, one]);
        addresses.update(vec![one, two, three]);
        assert_eq!(addresses.0, [two, three, one]);
        addresses.answered(IpAddr::from([10, 0, 0, 9]));
        assert_eq!(addresses.0, [two, three, one]);
        addresses.update(vec![three]);
        assert_eq!((addresses.get(0), addresses.get(1)), (Some(three), None));
        addresses.update(Vec::new());
        assert_eq!(addresses.get(0), None);
    }
}
