//! Whether a request may be sent again.
//!
//! Two things must hold. Its bytes must still be there: what has been sent stays in the requester's
//! input, the *replay buffer*, up to the replay limit and until the response begins. And sending it
//! twice must be harmless: its method is idempotent (RFC 9110 section 9.2.2), or the site allows it
//! for requests up to that limit.
//!
//! ```text
//!     kept       = no body, or no more than the replay limit so far
//!     harmless   = idempotent, or retry policy `Always` and size within the replay limit
//!     repeatable = kept and harmless
//! ```
//!
//! [`RequestMeta::is_surely_repeatable`] asks before anything is sent; [`Replay::progress`] asks
//! after a failure, when the size of a chunked request may be known.

use crate::http::Framing;
use crate::net::buffer::Pool;
use crate::net::conn::Conn;

use super::error::Progress;
use super::meta::{DeliveryReports, RequestMeta, RetryPolicy};

/// What is kept of a request, and what its responder may have seen of it.
pub(super) struct Replay {
    /// How many bytes at the front of the requester's input have been sent and are kept; `None`
    /// when they have been dropped, and input is consumed as it is sent.
    kept: Option<usize>,
    /// The largest request that is kept, in bytes.
    limit: usize,
    /// The responder's socket has taken a byte of the request.
    seen: bool,
    /// The responder has reported that its application gets the request.
    receipted: bool,
}

impl Replay {
    /// Keeps nothing.
    pub fn none() -> Replay {
        Replay { kept: None, limit: 0, seen: false, receipted: false }
    }

    /// For a request whose first `kept` bytes have just been sent.
    pub fn new(kept: usize, seen: bool, limit: usize) -> Replay {
        Replay { kept: Some(kept), limit, seen, receipted: false }
    }

    /// Whether everything sent so far is still there.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// How many bytes at the front of the input have been sent.
    pub fn offset(&self) -> usize {
        self.kept.unwrap_or(0)
    }

    /// The responder may have seen some of the request.
    pub fn note_seen(&mut self) {
        self.seen = true;
    }

    /// The responder's application gets the request now.
    pub fn note_receipt(&mut self) {
        self.receipted = true;
    }

    /// Another `count` bytes of the input have been sent.
    pub fn advance(&mut self, count: usize, from: &mut Conn, pool: &mut Pool) {
        match &mut self.kept {
            Some(kept) => *kept += count,
            None => from.input.consume(count, pool),
        }
    }

    pub fn release(&mut self, from: &mut Conn, pool: &mut Pool) {
        if let Some(kept) = self.kept.take() {
            from.input.consume(kept, pool);
        }
    }

    /// Drops what has been sent if the input has outgrown the limit.
    pub fn trim(&mut self, from: &mut Conn, pool: &mut Pool) {
        if from.input.len() > self.limit {
            self.release(from, pool);
        }
    }

    /// Right after the beginning of a request has been sent: drops it if it is larger than the
    /// limit and more follows. What the responder cannot have seen is kept in any case.
    pub fn trim_beginning(&mut self, from: &mut Conn, pool: &mut Pool) {
        if self.seen && self.offset() > self.limit {
            self.release(from, pool);
        }
    }

    /// How far a request without a final response has got. `sent`: all of it has been sent.
    pub fn progress(&self, meta: &RequestMeta, reports: DeliveryReports, sent: bool) -> Progress {
        let Some(kept) = self.kept else { return Progress::Sent };
        let awaits_receipt = reports == DeliveryReports::WithReceipts && !self.receipted;
        let size = meta.size().or(sent.then_some(kept as u64));
        if !self.seen {
            Progress::Nothing
        } else if awaits_receipt && !meta.idempotent {
            Progress::Unreceipted
        } else if meta.is_harmless_twice(size) {
            // Interim responses may have been passed on. They commit to nothing, and the next
            // responder may send them again.
            Progress::Repeatable
        } else {
            Progress::Sent
        }
    }
}

impl RequestMeta {
    /// Whether the request, not sent yet, is sure to be kept until its response begins, and may be
    /// sent twice. If not, its responder's connection must be checked before it is sent.
    #[must_use]
    pub(crate) fn is_surely_repeatable(&self) -> bool {
        let size = self.size();
        let kept = self.framing == Framing::None || self.fits(size);
        kept && self.is_harmless_twice(size)
    }

    fn is_harmless_twice(&self, size: Option<u64>) -> bool {
        self.idempotent || (self.retry_policy == RetryPolicy::Always && self.fits(size))
    }

    /// The size of head and body in bytes, if the head tells.
    pub(super) fn size(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(self.head as u64),
            Framing::Length(length) => Some(length.saturating_add(self.head as u64)),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    pub(super) fn fits(&self, size: Option<u64>) -> bool {
        size.is_some_and(|size| size <= self.replay_limit as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Stamps;
    use crate::http::Version;
    use crate::http::rewrite::{Forwarded, ForwardedStyle};
    use std::net::{IpAddr, Ipv4Addr};

    /// A POST with a head of 100 bytes and a replay limit of 1000.
    fn post(framing: Framing) -> RequestMeta {
        RequestMeta {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            https: false,
            version: Version::V11,
            to_head: false,
            idempotent: false,
            persistent: true,
            may_be_followed: true,
            head: 100,
            framing,
            expect_continue: false,
            upgrade: false,
            connection_auth: false,
            forwarded: Forwarded::Off,
            forwarded_style: ForwardedStyle::X,
            stamps: Stamps::PASS,
            replay_limit: 1000,
            retry_policy: RetryPolicy::IfIdempotent,
            sends_files: None,
        }
    }

    #[test]
    fn only_what_is_kept_whole_and_harmless_twice_is_surely_repeatable() {
        for (framing, idempotent, policy, repeatable) in [
            (Framing::None, true, RetryPolicy::IfIdempotent, true),
            (Framing::None, false, RetryPolicy::IfIdempotent, false),
            (Framing::None, false, RetryPolicy::Always, true),
            (Framing::Length(900), true, RetryPolicy::IfIdempotent, true),
            (Framing::Length(901), true, RetryPolicy::IfIdempotent, false),
            (Framing::Length(900), false, RetryPolicy::Always, true),
            (Framing::Length(901), false, RetryPolicy::Always, false),
            (Framing::Length(u64::MAX), true, RetryPolicy::Always, false),
            (Framing::Chunked, true, RetryPolicy::Always, false),
        ] {
            let meta = RequestMeta { idempotent, retry_policy: policy, ..post(framing) };
            assert_eq!(meta.is_surely_repeatable(), repeatable, "{framing:?} {idempotent}");
        }
        let large_head = RequestMeta { head: 2000, idempotent: true, ..post(Framing::None) };
        assert!(large_head.is_surely_repeatable());
    }

    #[test]
    fn a_chunked_post_is_repeatable_only_when_its_end_shows_that_it_is_small() {
        let meta = RequestMeta { retry_policy: RetryPolicy::Always, ..post(Framing::Chunked) };
        let progress = |kept, sent| {
            Replay::new(kept, true, 1000).progress(&meta, DeliveryReports::Untrusted, sent)
        };
        assert_eq!(progress(1000, false), Progress::Sent);
        assert_eq!(progress(1000, true), Progress::Repeatable);
        assert_eq!(progress(1001, true), Progress::Sent);
    }

    #[test]
    fn a_receipt_ends_what_its_absence_allows() {
        let meta = post(Framing::None);
        let mut replay = Replay::new(100, true, 1000);
        let with_receipts =
            |replay: &Replay| replay.progress(&meta, DeliveryReports::WithReceipts, true);
        assert_eq!(with_receipts(&replay), Progress::Unreceipted);
        assert_eq!(replay.progress(&meta, DeliveryReports::Trusted, true), Progress::Sent);
        replay.note_receipt();
        assert_eq!(with_receipts(&replay), Progress::Sent);
    }

    #[test]
    fn what_no_socket_has_taken_has_reached_nobody() {
        let meta = post(Framing::Chunked);
        let replay = Replay::new(5000, false, 1000);
        let progress = replay.progress(&meta, DeliveryReports::Untrusted, false);
        assert_eq!(progress, Progress::Nothing);
    }
}
