//! Sites whose clients come back to the same backend (`doc/protocol.md`, "Sticky sites"): which one a
//! request is to go to, how long it waits for that, and the cookie that its response gets.

use std::sync::LazyLock;
use std::time::Duration;

use regex::bytes::Regex;

use crate::bridge::instance::InstanceName;
use crate::config::{STICKY_WAIT, Site, Sticky, StickyCookie};
use crate::exchange::{Cookie, RequestMeta};
use crate::http::conditions::values;
use crate::http::request::Request;
use crate::http::{Forwarded, cookies};
use crate::routing::{InstanceId, Wanted};

use super::instance::id_of;
use super::sticky_keys::StickyKeys;

/// The end of a path that names a backend: the session ids of Swiftiply's applications.
static PATH: LazyLock<Regex> = LazyLock::new(|| {
    let word = "[0-9A-Za-z_]+";
    let dotted = "[0-9A-Za-z_.]+";
    let path = format!("{word}-{word}-{word}\\.{word}\\.{dotted}-({word})$");
    Regex::new(&path).expect("an expression")
});

/// How many cookies of the name are looked at: a client has one, or two if another program has set it for
/// a part of the site.
const LOOKED_AT: usize = 4;

/// What a request of a sticky site shows.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) instance: Option<InstanceId>,
    pub(super) cookie: Option<Box<AskedCookie>>,
}

/// What a request keeps until it has a bridge: then it is known whether its cookie is still right.
pub(super) struct AskedCookie {
    pub(super) of: StickyCookie,
    /// The instance that it has named.
    named: Option<InstanceId>,
    /// Browsers send it by TLS alone.
    is_secure: bool,
}

/// What a request of this site shows of the backend that it is to go to.
pub(super) fn shown(
    site: &Site,
    request: &Request<'_, '_>,
    meta: &RequestMeta,
    keys: &StickyKeys,
) -> Shown {
    match &site.sticky {
        None => Shown::default(),
        Some(Sticky::Id) => Shown { instance: named_by_path(request.path), cookie: None },
        Some(Sticky::Cookie(of)) => {
            let mut sent = cookies::values(request.fields, &of.name).take(LOOKED_AT);
            let named = sent.find_map(|value| keys.read(&of.site, value));
            let is_secure = meta.https || is_forwarded_from_tls(request, meta);
            let cookie = AskedCookie { of: of.clone(), named, is_secure };
            Shown { instance: named, cookie: Some(Box::new(cookie)) }
        }
    }
}

/// How long the requests of a site wait for their backend.
pub(super) fn wait(site: &Site) -> Duration {
    site.sticky_wait.unwrap_or(STICKY_WAIT)
}

impl Shown {
    /// The backend that a request which has `waited` is to go to, if it can.
    pub(super) fn wanted(&self, waited: Duration, wait: Duration) -> Option<Wanted> {
        self.instance.map(|instance| Wanted { instance, waits: waited < wait })
    }
}

impl AskedCookie {
    /// What an exchange with this instance does with the cookie: it is set if it is new, or another.
    pub(super) fn of_exchange(self, id: Option<InstanceId>, keys: &StickyKeys) -> Cookie {
        let value = id.filter(|id| self.named != Some(*id));
        let value = value.and_then(|id| keys.sign(&self.of.site, id));
        let secure = if self.is_secure { "; Secure" } else { "" };
        let set = value.map(|value| {
            let name = &self.of.name;
            format!("Set-Cookie: {name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}\r\n")
        });
        Cookie { name: self.of.name, set }
    }
}

/// Whether a proxy in front, unless it is not trusted, says that the client uses TLS.
fn is_forwarded_from_tls(request: &Request<'_, '_>, meta: &RequestMeta) -> bool {
    let mut said = values(request.fields, "X-Forwarded-Proto");
    meta.forwarded != Forwarded::Replace && said.any(|value| value.eq_ignore_ascii_case(b"https"))
}

fn named_by_path(path: &str) -> Option<InstanceId> {
    let found = PATH.captures(path.as_bytes())?;
    InstanceName::parse(&found[1]).map(|name| id_of(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_names_a_backend() {
        let id = |name: &[u8]| Some(id_of(&InstanceName::parse(name).unwrap()));
        for (path, named) in [
            ("/app/12ab-34cd-56ef.main.1.2-7f0000010bb8", id(b"7f0000010bb8")),
            ("/a-b-c.d.e-web_1", id(b"web_1")),
            ("/a-b-c.d.e-", None),
            ("/a-b-c.d.e-f/", None),
            ("/a-b.d.e-f", None),
            ("/", None),
        ] {
            assert_eq!(named_by_path(path), named, "{path}");
        }
    }

    #[test]
    fn a_request_waits_for_its_backend_for_a_bounded_time() {
        let instance = InstanceId::new(1);
        let shown = Shown { instance: Some(instance), cookie: None };
        let wait = Duration::from_secs(5);
        for (waited, waits) in [(Duration::ZERO, true), (wait, false)] {
            assert_eq!(shown.wanted(waited, wait), Some(Wanted { instance, waits }));
        }
        assert_eq!(Shown::default().wanted(Duration::ZERO, wait), None);
    }

    #[test]
    fn the_cookie_is_set_when_it_is_new_or_another() {
        let keys = StickyKeys::parse("correct horse battery staple").unwrap();
        let of = StickyCookie { name: "own".into(), site: "a.test".into() };
        let [one, two] = [1, 2].map(InstanceId::new);
        let set = |named, is_secure, id| {
            AskedCookie { of: of.clone(), named, is_secure }.of_exchange(id, &keys).set
        };
        let value = keys.sign("a.test", two).unwrap();
        let line = format!("Set-Cookie: own={value}; Path=/; HttpOnly; SameSite=Lax\r\n");
        assert_eq!(set(Some(one), false, Some(two)), Some(line.clone()));
        assert_eq!(set(None, true, Some(two)), Some(line.replace("Lax", "Lax; Secure")));
        assert_eq!(set(Some(two), false, Some(two)), None);
        assert_eq!(set(Some(two), false, None), None);
    }
}
