//! What the exchanges of the agent obey.

use crate::config;
use crate::exchange::{BUDGET, ExchangeConfig};
use crate::http::{self, Forwarded, ForwardedStyle, Limits};

/// The largest request, in bytes, that is kept until the application answers, so that it can be
/// sent again on a new connection: the proxy's default for the same purpose.
const REPLAY_LIMIT: usize = 16 * 1024;

/// A body is spliced when at least this many bytes are still to come: the proxy's default.
const SPLICE_THRESHOLD: u64 = 32 * 1024;

/// What the proxy may add to a head of the greatest length that its settings allow.
const ADDED_BY_PROXY: usize = 4 * 1024;

/// The widest limits: the proxy has applied its own, which may be wider than the defaults. Its
/// fields about the client are passed on unchanged. Each application has this with a Host of its own.
pub(super) const CONFIG: ExchangeConfig = ExchangeConfig {
    limits: Limits {
        head: config::MAX_HEAD + ADDED_BY_PROXY,
        fields: http::MAX_FIELDS,
        target: config::MAX_HEAD,
        behind_proxy: true,
    },
    replay_limit: REPLAY_LIMIT,
    // The proxy does that.
    response_buffer: 0,
    hold_response: 0,
    splice_threshold: SPLICE_THRESHOLD,
    budget: BUDGET,
    forwarded: Forwarded::Off,
    forwarded_style: ForwardedStyle::X,
    host: None,
    half_closed_silence: None,
    timeouts: None,
};
