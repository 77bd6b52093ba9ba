//! The peers that announce their clients.

pub use crate::http::Network;
use std::fmt;
use std::net::IpAddr;

/// Which peers of a listener begin each connection with a PROXY header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptProxy {
    /// All of them: it is a Unix socket.
    Unix,
    /// Those in these networks.
    From(Vec<Network>),
}

/// The name of the option.
pub(super) const ACCEPT_PROXY: &str = "accept-proxy";

impl AcceptProxy {
    /// The word for the peers of a Unix socket.
    pub(super) const UNIX: &str = "unix";

    /// Reads the value of the option at a listener.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn parse(value: &str, is_unix: bool) -> Result<AcceptProxy, String> {
        match (value, is_unix) {
            (Self::UNIX, true) => Ok(AcceptProxy::Unix),
            (_, true) => {
                Err(format!("the peers of a Unix socket have no address; write {}", Self::UNIX))
            }
            (_, false) => {
                let networks = value.split(',').map(|word| match word {
                    Self::UNIX => Err("unix is for the peers of Unix sockets".to_owned()),
                    word => Network::parse(word),
                });
                Ok(AcceptProxy::From(networks.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Whether the peer with this address is one of them.
    pub(crate) fn has(&self, peer: IpAddr) -> bool {
        match self {
            AcceptProxy::Unix => true,
            AcceptProxy::From(networks) => networks.iter().any(|network| network.has(peer)),
        }
    }
}

/// The value of the option, as it would be written.
impl fmt::Display for AcceptProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptProxy::Unix => f.write_str(Self::UNIX),
            AcceptProxy::From(networks) => {
                let all: Vec<String> = networks.iter().map(Network::to_string).collect();
                f.write_str(&all.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_of_a_unix_socket_have_a_word_of_their_own() {
        assert_eq!(AcceptProxy::parse("unix", true), Ok(AcceptProxy::Unix));
        assert!(AcceptProxy::parse("unix", false).is_err());
        assert!(AcceptProxy::parse("127.0.0.1", true).is_err());
        let both = AcceptProxy::parse("127.0.0.1,2001:db8::/32", false).unwrap();
        assert_eq!(both.to_string(), "127.0.0.1,2001:db8::/32");
        assert!(both.has("2001:db8::9".parse().unwrap()) && !both.has("::1".parse().unwrap()));
        assert!(AcceptProxy::parse("127.0.0.1,", false).is_err());
    }
}
