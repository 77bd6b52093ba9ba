//! How many bytes an exchange has passed.

/// How many bytes of an exchange have passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Taken from the requester: head, body, and what it has sent through a tunnel.
    pub request: u64,
    /// Heads given to the requester.
    pub heads: u64,
    /// Of the response's body, as it came, or of the tunnel.
    pub body: u64,
}
