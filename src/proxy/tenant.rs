//! The page of the setting `tenant-host`: with a host key, its holder sees what that key covers
//! (`doc/open.md`, "A tenant's page").
//!
//! The page itself is for everybody. The state behind it needs the key, as `Authorization: Bearer`;
//! no log, counter or answer has anything of it.

pub(super) mod guard;
mod view;

use std::net::IpAddr;
use std::sync::OnceLock;

use crate::bridge::hostkey::{HostKey, InvalidKey, KeyError, Showing};
use crate::bridge::{ptth, request as bridge_request};
use crate::http::Reply;
use crate::http::conditions::values;
use crate::http::request::Request;
use crate::net::event_loop::Connection;

use super::closing::End;
use super::facts;
use super::page::Page;
use super::reason::Reason;
use super::role::Role;
use super::state::Config;
use super::worker::Worker;
use guard::{LOOK, PIECE, WRONG_KEY};

const HTML: &str = include_str!("tenant/page.html");
const STYLE: &str = include_str!("tenant/page.css");
const SCRIPT: &str = include_str!("tenant/page.js");

/// Where the state is. The page fetches it from beside itself.
const STATE: &str = "/state.json";

/// How much the buffers of the worker may hold for a state to be made: readers may be slow.
const BUFFERS: usize = 64 << 20;

/// When somebody may come again for whom there is no room, in seconds.
const RETRY_AFTER: u32 = 5;

const NO_KEY: &str = "the state needs a host key, as `Authorization: Bearer KEY`";

/// With `bearer-keys no`, of a key that others may have read.
const READABLE: &str = "keys are not sent over plain text here (`bearer-keys no`): use https";

/// What a request for the tenant host asks for.
pub(super) struct Asked {
    what: What,
    head_only: bool,
}

enum What {
    Page,
    State(Box<Asking>),
    Nothing,
    /// It is no GET.
    Change,
}

/// Who asks for the state.
struct Asking {
    /// `None` if there is none.
    key: Option<Result<HostKey, KeyError>>,
    /// The client's address.
    client: IpAddr,
    /// It came through another proxy, so nobody knows how far it has come in plain text.
    is_forwarded: bool,
    /// That proxy is a trusted one and has got it by https.
    came_by_https: bool,
}

/// What a request for the tenant host, from this connection, asks for.
#[inline(never)]
pub(super) fn asked(
    request: &Request<'_, '_>,
    connection: &Connection<Role>,
    config: &Config,
) -> Asked {
    let what = match request.path {
        _ if !matches!(request.method, "GET" | "HEAD") => What::Change,
        "/" => What::Page,
        STATE => What::State(Box::new(asking(request, connection, config))),
        _ => What::Nothing,
    };
    Asked { what, head_only: request.is_head() }
}

fn asking(request: &Request<'_, '_>, connection: &Connection<Role>, config: &Config) -> Asking {
    let settings = &config.settings;
    let field = |name| values(request.fields, name).next();
    let came_by_https = settings.trusts(connection) && field("X-Forwarded-Proto") == Some(b"https");
    Asking {
        key: field("Authorization").and_then(ptth::bearer).map(|(_, key)| HostKey::parse(key)),
        client: facts::of(request, connection.peer, settings).client().unwrap_or(connection.peer),
        is_forwarded: request.fields.iter().any(|field| bridge_request::shows_proxy(field.name)),
        came_by_https,
    }
}

/// Why the state is not shown.
enum Refused {
    NoKey,
    /// Others may have read the key on its way.
    Readable,
    Malformed(KeyError),
    Invalid(InvalidKey),
    /// The proxy has no secrets.
    Unchecked,
}

impl Worker {
    /// Answers a request for the tenant host, and closes.
    pub(super) fn answer_tenant(&mut self, key: usize, asked: &Asked) {
        let head_only = asked.head_only;
        match &asked.what {
            What::Page => {
                let page = page();
                let content_type = "text/html; charset=utf-8";
                let extra = &page.fields;
                let reply = Reply::new(200, &page.document);
                self.end(key, End::Reply(Reply { content_type, head_only, extra, ..reply }));
            }
            What::State(asking) => self.answer_tenant_state(key, asking, head_only),
            What::Nothing => {
                let reply = Reply::new(404, "there is / and /state.json");
                self.end(key, End::Reply(Reply { head_only, ..reply }));
            }
            What::Change => {
                let reply = Reply::new(405, "there is nothing to change");
                self.end(key, End::Reply(Reply { extra: "Allow: GET, HEAD\r\n", ..reply }));
            }
        }
    }

    fn answer_tenant_state(&mut self, key: usize, asking: &Asking, head_only: bool) {
        let (now, guard) = (self.conns.now().millis(), &self.shared.tenant_guard);
        if let Err(seconds) = guard.check(asking.client, now) {
            let reply = Reply::new(429, "too many requests, or wrong keys, from this address");
            let reply = Reply { head_only, retry_after: Some(seconds), ..reply };
            return self.reject(key, Reason::TenantLimit, reply);
        }
        match self.key_of_tenant(key, asking) {
            Ok(_) if self.conns.ws.pool.used() >= BUFFERS => {
                let reply = Reply::new(503, "too many answers have not been read");
                let reply = Reply { head_only, retry_after: Some(RETRY_AFTER), ..reply };
                self.reject(key, Reason::TenantLimit, reply);
            }
            Ok(host_key) => {
                let text = view::state(&self.shared, &self.config, host_key).to_string();
                let pieces = u32::try_from(1 + text.len() / PIECE).unwrap_or(u32::MAX);
                guard.charge_look(asking.client, pieces, now);
                let (content_type, extra) = ("application/json", "Cache-Control: no-store\r\n");
                let reply = Reply { content_type, head_only, extra, ..Reply::new(200, &text) };
                self.end(key, End::Reply(reply));
            }
            Err(refused) => {
                guard.charge(asking.client, refused.cost(), now);
                let (text, extra) = (refused.text(), ptth::CHALLENGE);
                let reply = Reply { head_only, extra, ..Reply::new(401, &text) };
                self.reject(key, Reason::TenantUnauthorized, reply);
            }
        }
    }

    /// The key with which somebody asks, if it is good.
    fn key_of_tenant<'a>(&self, key: usize, asking: &'a Asking) -> Result<&'a HostKey, Refused> {
        let keyring = self.config.keyring.as_ref().ok_or(Refused::Unchecked)?;
        let shown = asking.key.as_ref().ok_or(Refused::NoKey)?;
        // Such a key is refused whatever it is: it must not be sent again.
        if keyring.showing() == Showing::Proven && !self.is_private(key, asking) {
            return Err(Refused::Readable);
        }
        let shown = shown.as_ref().map_err(|bad| Refused::Malformed(*bad))?;
        let now = self.shared.moment().unix.as_secs();
        keyring.check(shown, now).map_err(Refused::Invalid)?;
        Ok(shown)
    }

    /// Whether nobody could read what has come over this connection.
    fn is_private(&self, key: usize, asking: &Asking) -> bool {
        let client = self.conns.role(key).and_then(Role::client);
        client.is_some_and(|client| client.is_https)
            || asking.came_by_https
            || (self.is_of_this_machine(key) && !asking.is_forwarded)
    }
}

impl Refused {
    /// Only what could be a guess at a key costs much.
    fn cost(&self) -> std::time::Duration {
        match self {
            Refused::NoKey | Refused::Readable | Refused::Unchecked => LOOK,
            Refused::Malformed(_) | Refused::Invalid(_) => WRONG_KEY,
        }
    }

    fn text(&self) -> String {
        match self {
            Refused::NoKey => NO_KEY.to_owned(),
            Refused::Readable => READABLE.to_owned(),
            Refused::Malformed(bad) => format!("this is no host key: {bad}"),
            Refused::Invalid(wrong) => format!("the host key {wrong}"),
            Refused::Unchecked => "this proxy checks no keys".to_owned(),
        }
    }
}

/// The page, put together once.
fn page() -> &'static Page {
    static PAGE: OnceLock<Page> = OnceLock::new();
    PAGE.get_or_init(|| Page::new(HTML, STYLE, SCRIPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_document_that_loads_and_keeps_nothing() {
        page().check();
        for kept in ["localStorage", "sessionStorage", "cookie", "history.", "location."] {
            assert!(!page().document.contains(kept), "{kept}");
        }
    }
}
