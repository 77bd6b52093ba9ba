//! A requester that has sent its FIN: it may have closed, or only shut down its sending side.
//!
//! TCP does not tell the two apart until we send something: the kernel of a closed socket answers
//! with a reset. So before the response begins, a requester is sent an interim response, and after
//! that the response itself shows it, unless the response is silent.

use crate::http::Version;
use crate::net::buffer::Pool;
use crate::net::conn::Conn;

use super::config::ExchangeConfig;
use super::error::Cause;
use super::meta::RequestMeta;

/// The interim response that tells nothing new. A client must accept a 1xx at any time (RFC 9110
/// section 15.2), except in HTTP/1.0.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What becomes of a requester that has sent its FIN while its response has not begun.
///
/// It is probed once. In HTTP/1.0 that is not possible: unless half-closed requesters are to be
/// served in any case, it counts as gone.
///
/// # Errors
/// When it is gone.
pub(crate) fn probe(
    requester: &mut Conn,
    meta: &RequestMeta,
    config: &ExchangeConfig,
    pool: &mut Pool,
) -> Result<(), Cause> {
    match (meta.version, config.half_closed_silence) {
        (Version::V11, _) => requester.probe_half_closed(PROBE, pool).map_err(Cause::Lost),
        (Version::V10, Some(_)) => Err(Cause::Closed),
        (Version::V10, None) => Ok(()),
    }
}
