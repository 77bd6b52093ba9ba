//! What a line of the log says of a request.

use std::fmt;

use crate::http::{Limits, request};
use crate::net::conn::Conn;

use super::phase::Exchange;

/// Bytes of a host or path that are shown.
const SHOWN: usize = 256;

/// The method, host and path of a request, if it is still held. Without the query, which may
/// contain credentials.
pub(crate) struct Named<'a> {
    request: Option<&'a [u8]>,
    limits: &'a Limits,
}

impl Exchange {
    /// The request, whose requester this is, for the log.
    pub fn named<'a>(&self, requester: &'a Conn, limits: &'a Limits) -> Named<'a> {
        Named { request: self.holds_request().then(|| requester.input.bytes()), limits }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut storage = request::storage();
        let Some(bytes) = self.request else { return Ok(()) };
        match request::parse(bytes, &mut storage, self.limits) {
            Ok(Some(request)) => {
                let [host, path] = [request.host, request.path].map(|text| {
                    // Both are ASCII.
                    text.get(..SHOWN).unwrap_or(text)
                });
                write!(f, ", {} {host}{path}", request.method)
            }
            _ => Ok(()),
        }
    }
}
