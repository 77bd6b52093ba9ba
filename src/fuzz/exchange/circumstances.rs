//! What an input decides besides the script and the bytes.

use std::net::{IpAddr, Ipv4Addr};

use crate::exchange::{BUDGET, CloseScope, DeliveryReports, ExchangeConfig};
use crate::fuzz::input::Input;
use crate::http::{Forwarded, ForwardedStyle, Limits};

/// The client's address.
pub(super) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The settings, and what kind of backend it is.
#[derive(Clone)]
pub(super) struct Circumstances {
    pub config: ExchangeConfig,
    /// The bridge is new, and must acknowledge.
    pub fresh: bool,
    pub reports: DeliveryReports,
    pub close_scope: CloseScope,
    pub probe: bool,
    pub small_buffers: bool,
}

impl Circumstances {
    pub fn read(input: &mut Input<'_>) -> Circumstances {
        let config = ExchangeConfig {
            limits: Limits { head: 16 * 1024, fields: 100, target: 8 * 1024, behind_proxy: false },
            replay_limit: input.pick(&[16 * 1024, 64]),
            splice_threshold: input.pick(&[32 * 1024, 1]),
            budget: BUDGET,
            forwarded: Forwarded::Off,
            forwarded_style: ForwardedStyle::X,
            host: None,
            response_buffer: 64 * 1024,
            // What is held back is passed on by a clock, and there is none here.
            hold_response: 0,
            half_closed_silence: None,
            timeouts: None,
        };
        let bits = input.byte().wrapping_sub(b'0');
        Circumstances {
            config,
            fresh: bits & 1 != 0,
            reports: match bits >> 1 & 3 {
                0 | 1 => DeliveryReports::Untrusted,
                2 => DeliveryReports::Trusted,
                _ => DeliveryReports::WithReceipts,
            },
            close_scope: match bits >> 3 & 1 {
                0 => CloseScope::Responder,
                _ => CloseScope::Requester,
            },
            probe: bits >> 4 & 1 != 0,
            small_buffers: bits >> 5 & 1 != 0,
        }
    }
}
