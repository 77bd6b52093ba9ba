//! The page that a browser gets while its request waits for long (`waiting-page-after=`).

use crate::http::request::{self, Request};
use crate::http::{Reply, accept};

use super::error_pages::Told;
use super::reason::Reason;
use super::role::Role;
use super::worker::Worker;

/// When the browser comes again, in seconds. It then waits as long as before, so nothing is lost if the
/// backend is there sooner.
const AGAIN: u32 = 2;

/// The same for the browser itself, which does not obey `Retry-After` (HTML Standard, "Refresh").
const REFRESH: &str = "Refresh: 2\r\n";

/// What it is told without the page.
const STARTING: &str = "a backend is being started";

/// Whether a person looks at the answer.
pub(super) fn is_browser(request: &Request<'_, '_>) -> bool {
    let accept = request.fields.iter().filter(|f| f.name.eq_ignore_ascii_case("Accept"));
    request.method == "GET" && accept::names_html(accept.map(|field| field.value))
}

impl Worker {
    /// A browser's request has waited for `waiting-page-after`.
    pub(super) fn show_waiting_page(&mut self, key: usize) {
        let Some(Role::Queued { .. }) = self.conns.role(key) else { return };
        let (reason, retry_after) = (Reason::WaitingPage, Some(AGAIN));
        let reply = Reply { retry_after, extra: REFRESH, ..Reply::new(503, STARTING) };
        let told = Told { status: reply.status, reason, detail: reply.text };
        let mut storage = request::storage();
        let input = self.conns[key].conn.input.bytes();
        let parsed = request::parse(input, &mut storage, &self.exchange_config.limits);
        let body = match &parsed {
            Ok(Some(request)) => Some(self.tell(key, request, true, |site, asked| {
                self.config.error_pages.waiting(site, asked, &told)
            })),
            // It has been parsed before.
            _ => None,
        };
        self.reject_with(key, reason, reply, body.as_ref());
    }
}
