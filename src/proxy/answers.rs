//! The proxy answers a client itself.

use crate::bridge::request::is_bridge;
use std::borrow::Cow;

use crate::http::request::{self, lower_host};
use crate::http::{Predicates, Reply, Request};

use super::error_pages::{Asked, Body, Told};
use super::facts;
use super::reason::Reason;
use super::request_ids::ShownId;
use super::worker::Worker;

impl Worker {
    /// Answers a client, whose input begins with its request as far as it has come, with an error
    /// of ours, and closes.
    pub(super) fn refuse(&mut self, key: usize, reason: Reason, reply: Reply<'_>) {
        let body = self.body_of(key, reason, &reply, true);
        self.reject_with(key, reason, reply, body.as_ref());
    }

    /// The body of an answer to a client, if it is not the plain line, which backends always get.
    /// Only if its input `holds_request` is it known what was asked.
    pub(super) fn body_of(
        &self,
        key: usize,
        reason: Reason,
        reply: &Reply<'_>,
        holds_request: bool,
    ) -> Option<Body> {
        let pages = &self.config.error_pages;
        let told = Told { status: reply.status, reason, detail: reply.text };
        let input = self.conns[key].conn.input.bytes();
        if holds_request && is_bridge(input) == Some(true) {
            return None;
        }
        let mut storage = request::storage();
        let parsed = match holds_request {
            true => request::parse(input, &mut storage, &self.exchange_config.limits),
            false => Ok(None),
        };
        let Ok(Some(request)) = parsed else {
            return pages.body(None, &Asked::default(), &told);
        };
        self.tell(key, &request, pages.has_sites(), |site, asked| pages.body(site, asked, &told))
    }

    /// Writes an answer with what is known of the request of `key`, and the name of its site if that
    /// is wanted.
    pub(super) fn tell<R>(
        &self,
        key: usize,
        request: &Request<'_, '_>,
        wants_site: bool,
        write: impl FnOnce(Option<&str>, &Asked<'_>) -> R,
    ) -> R {
        let mut asked = Asked::of(request);
        let settings = &self.config.settings;
        if !settings.trusted_proxies.is_empty() && !settings.trusts(&self.conns[key]) {
            // The backend would not have got it either.
            asked.request_id = Cow::default();
        }
        if let ShownId(Some(id)) = self.shown_id(key) {
            asked.request_id = id.to_string().into();
        }
        let mut name = String::new();
        let facts = facts::of(request, self.conns[key].peer, settings);
        let meets = |predicates: &Predicates| predicates.are_met_by(&facts);
        let site = wants_site.then(|| {
            let host = lower_host(request.host, &mut name);
            let sites = &self.config.sites;
            sites.resolve(host, request.path, Some(&meets), &self.scheduler).site
        });
        write(site.flatten().map(|site| site.name()), &asked)
    }
}
