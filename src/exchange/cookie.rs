//! The cookie by which a requester comes back to the same responder.

use std::sync::Arc;

/// A cookie between the requester and the owner of the two connections.
pub(crate) struct Cookie {
    /// Its name: the responder does not get it.
    pub name: Arc<str>,
    /// The line that the response gets, with CR LF, if the cookie is new or another.
    pub set: Option<String>,
}

impl Cookie {
    /// Adds the line to a head that ends in its blank line.
    pub(super) fn write(&self, head: &mut Vec<u8>) {
        if let Some(line) = &self.set
            && head.ends_with(b"\r\n\r\n")
        {
            head.truncate(head.len() - 2);
            head.extend_from_slice(line.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
}
