//! What a request to the admin listener asks for, and whether it may.

use std::net::IpAddr;

use subtle::ConstantTimeEq;

use crate::config::site_name;
use crate::http::Framing;
use crate::http::request::Request;

use super::super::site_change::Condition;

/// Longest body of an action, in bytes.
pub(super) const MAX_BODY: u64 = 4096;

/// The same of the change of a site, which is a line of the settings.
const MAX_LINE: u64 = 16 << 10;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The live page.
    Page,
    /// OpenMetrics text.
    Metrics,
    /// Everything, as JSON.
    State,
    /// A stream of changes.
    Events,
    /// Whether the process serves.
    Health,
    /// Whether a bridge for this name is connected.
    HealthOf(String),
    /// A change; its parameters are in the body, of this many bytes.
    Act(Verb, u64),
    /// All sites.
    Sites,
    /// One, by any of its names.
    Site(String),
    /// A change of a site.
    ChangeSite(AskedSite),
}

/// A change whose line may still come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct AskedSite {
    /// As in the path.
    pub(super) name: String,
    /// The length of the line; `None` to remove the site.
    pub(super) length: Option<usize>,
    pub(super) condition: Condition,
}

/// The changes that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Verb {
    /// No new requests for its target.
    Drain,
    /// New requests again.
    Undrain,
    /// Closes the target's bridges at once.
    Drop,
    /// Answers when enough slots are free.
    Wait,
    /// Reads the settings again.
    Reload,
    /// Finishes what is in flight and exits.
    Stop,
    /// Starts the program again, and leaves everything to it.
    Upgrade,
}

/// Who may do what at the listener that a request came to.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    /// A Unix socket: the permissions of its file have decided.
    pub is_unix: bool,
    pub token: Option<&'a [u8]>,
    /// Reading needs the token too.
    pub reads_need_token: bool,
    /// Names in `Host` under which the listener is reached, besides addresses and `localhost`.
    pub names: &'a [String],
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub status: u16,
    pub text: &'static str,
    /// Field lines that the status needs, each with CR LF.
    pub extra: &'static str,
}

const fn refused(status: u16, text: &'static str) -> Refused {
    Refused { status, text, extra: "" }
}

/// RFC 9110 section 11.6.1: a 401 says how to authenticate.
const fn unauthorised(text: &'static str) -> Refused {
    Refused { status: 401, text, extra: "WWW-Authenticate: Bearer\r\n" }
}

/// RFC 9110 section 15.5.6: a 405 says what is allowed, here in `extra`.
const fn not_allowed(extra: &'static str, text: &'static str) -> Refused {
    Refused { status: 405, text, extra }
}

impl Access<'_> {
    /// What `request` asks for.
    ///
    /// # Errors
    /// The status and the reason when it asks for nothing that there is, or may not.
    pub fn check(&self, request: &Request<'_, '_>) -> Result<Wanted, Refused> {
        let wanted = wanted(request)?;
        if !self.is_unix && !self.is_addressed(request.host) {
            // DNS rebinding: a page of a stranger's whose name leads here would be served as its own.
            return Err(refused(421, "Host names neither an address nor one of admin-names"));
        }
        let acts = matches!(wanted, Wanted::Act(..) | Wanted::ChangeSite(_));
        if acts && is_cross_site(request) {
            return Err(refused(403, "actions are not taken from other sites' pages"));
        }
        // The page is where the token is asked for, and shows nothing by itself.
        let is_open = matches!(wanted, Wanted::Page | Wanted::Health | Wanted::HealthOf(_));
        if self.is_unix || is_open || (!acts && !self.reads_need_token) {
            return Ok(wanted);
        }
        match (self.token, bearer(request)) {
            (None, _) => Err(refused(403, "actions over TCP need admin-token in the settings")),
            (Some(token), Some(sent)) if bool::from(token.ct_eq(sent)) => Ok(wanted),
            (Some(_), Some(_)) => Err(unauthorised("this is not the admin token")),
            (Some(_), None) => Err(unauthorised("the admin token is needed")),
        }
    }

    /// Whether `Host` names this listener: an address, which no stranger's name is, or a known name.
    fn is_addressed(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|name| host.eq_ignore_ascii_case(name))
    }
}

fn wanted(request: &Request<'_, '_>) -> Result<Wanted, Refused> {
    let acts = |verb| match (request.method, request.framing) {
        ("POST", Framing::None) => Ok(Wanted::Act(verb, 0)),
        ("POST", Framing::Length(length)) if length <= MAX_BODY => Ok(Wanted::Act(verb, length)),
        ("POST", Framing::Length(_)) => Err(refused(413, "the body is too long")),
        ("POST", _) => Err(refused(411, "the body needs a Content-Length")),
        _ => Err(not_allowed("Allow: POST\r\n", "this is done by POST")),
    };
    match request.path {
        "/drain" => return acts(Verb::Drain),
        "/undrain" => return acts(Verb::Undrain),
        "/drop" => return acts(Verb::Drop),
        "/wait" => return acts(Verb::Wait),
        "/reload" => return acts(Verb::Reload),
        "/upgrade" => return acts(Verb::Upgrade),
        "/stop" => return acts(Verb::Stop),
        _ => {}
    }
    let wanted = match request.path {
        "/" => Wanted::Page,
        "/metrics" => Wanted::Metrics,
        "/state.json" => Wanted::State,
        "/events" => Wanted::Events,
        "/healthz" => Wanted::Health,
        "/sites" => Wanted::Sites,
        path => match (path.strip_prefix("/healthz/"), path.strip_prefix("/sites/")) {
            (Some(host), _) => Wanted::HealthOf(host.to_ascii_lowercase()),
            (None, Some(name)) => return wanted_site(name, request),
            (None, None) => return Err(refused(404, "there is nothing here")),
        },
    };
    match request.method {
        "GET" | "HEAD" => Ok(wanted),
        _ => Err(not_allowed("Allow: GET, HEAD\r\n", "this is only read")),
    }
}

/// What a request for a path below `/sites/` asks for.
fn wanted_site(name: &str, request: &Request<'_, '_>) -> Result<Wanted, Refused> {
    let name = site_name(name).map_err(|_| refused(404, "this is no name of a site"))?;
    let length = match request.method {
        "GET" | "HEAD" => return Ok(Wanted::Site(name)),
        "DELETE" => None,
        "PUT" => Some(match request.framing {
            Framing::None => 0,
            Framing::Length(length) if length <= MAX_LINE => {
                usize::try_from(length).unwrap_or(usize::MAX)
            }
            Framing::Length(_) => return Err(refused(413, "the body is too long")),
            _ => return Err(refused(411, "the body needs a Content-Length")),
        }),
        _ => {
            let text = "a site is read, or changed by PUT and DELETE";
            return Err(not_allowed("Allow: GET, HEAD, PUT, DELETE\r\n", text));
        }
    };
    let text = |name| field(request, name).map(String::from_utf8_lossy);
    let is_none = match text("If-None-Match").as_deref() {
        None => false,
        Some("*") => true,
        Some(_) => return Err(refused(400, "If-None-Match can only be * here")),
    };
    let condition = Condition { is_one_of: text("If-Match").map(String::from), is_none };
    Ok(Wanted::ChangeSite(AskedSite { name, length, condition }))
}

fn field<'b>(request: &Request<'b, '_>, name: &str) -> Option<&'b [u8]> {
    let mut fields = request.fields.iter();
    fields.find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1).
fn bearer<'b>(request: &Request<'b, '_>) -> Option<&'b [u8]> {
    let value = field(request, "Authorization")?;
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether a browser says that another site's page sends this. With a token that page could not do
/// so anyway; the Unix socket has none, and something in front of it may let browsers in.
fn is_cross_site(request: &Request<'_, '_>) -> bool {
    let site = field(request, "Sec-Fetch-Site");
    let foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let origin = field(request, "Origin").map(|origin| {
        let start = origin.windows(3).position(|part| part == b"://").map_or(0, |at| at + 3);
        &origin[start..]
    });
    foreign || origin.is_some_and(|origin| origin != request.authority.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, request};

    const ACCESS: Access<'_> =
        Access { is_unix: false, token: Some(b"secret"), reads_need_token: false, names: &[] };

    #[track_caller]
    fn check(access: Access<'_>, head: &str) -> Result<Wanted, u16> {
        let mut storage = request::storage();
        let limits = Limits { head: 16384, fields: 100, target: 8192, behind_proxy: false };
        let text = format!("{head}\r\n\r\n");
        let request = request::parse(text.as_bytes(), &mut storage, &limits).unwrap().unwrap();
        access.check(&request).map_err(|refused| refused.status)
    }

    #[test]
    fn paths_and_methods() {
        for (line, wanted) in [
            ("GET /", Ok(Wanted::Page)),
            ("GET /?x", Ok(Wanted::Page)),
            ("HEAD /metrics", Ok(Wanted::Metrics)),
            ("GET /state.json", Ok(Wanted::State)),
            ("GET /events", Ok(Wanted::Events)),
            ("GET /healthz", Ok(Wanted::Health)),
            ("GET /healthz/A.test", Ok(Wanted::HealthOf("a.test".to_owned()))),
            ("GET /x", Err(404)),
            ("POST /", Err(405)),
            ("GET /drain", Err(405)),
            ("POST /drain", Err(401)),
            ("GET /sites", Ok(Wanted::Sites)),
            ("GET /sites/A.test", Ok(Wanted::Site("a.test".to_owned()))),
            ("HEAD /sites/%2A.a", Ok(Wanted::Site("*.a".to_owned()))),
            ("PUT /sites/a", Err(401)),
            ("DELETE /sites/a", Err(401)),
            ("POST /sites/a", Err(405)),
            ("PUT /sites", Err(405)),
            ("PUT /sites/", Err(404)),
            ("PUT /sites/a%0a", Err(404)),
            ("PUT /sites/../x", Err(404)),
        ] {
            assert_eq!(check(ACCESS, &format!("{line} HTTP/1.1\r\nHost: 127.0.0.1")), wanted);
        }
    }

    #[test]
    fn actions_over_tcp_need_the_token() {
        let head = "POST /drop HTTP/1.1\r\nHost: [::1]:8404\r\nContent-Length: 2";
        let with = |token: &str| format!("{head}\r\nAuthorization: {token}");
        let act = Ok(Wanted::Act(Verb::Drop, 2));
        assert_eq!(check(ACCESS, &with("bearer secret")), act);
        for token in ["Bearer secre", "Bearer secret2", "Bearer ", "Basic secret", ""] {
            assert_eq!(check(ACCESS, &with(token)), Err(401), "{token}");
        }
        let none = Access { token: None, ..ACCESS };
        assert_eq!(check(none, &with("Bearer ")), Err(403));
        assert_eq!(check(Access { is_unix: true, ..none }, head), act);
    }

    #[test]
    fn reading_may_need_it_too() {
        let strict = Access { reads_need_token: true, ..ACCESS };
        for (path, status) in [("/metrics", Some(401)), ("/", None), ("/healthz", None)] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1");
            assert_eq!(check(strict, &head).err(), status, "{path}");
            assert!(check(strict, &format!("{head}\r\nAuthorization: Bearer secret")).is_ok());
        }
    }

    #[test]
    fn a_stranger_s_name_that_leads_here_is_refused() {
        let names = ["Ops.example".to_owned()];
        let access = Access { names: &names, ..ACCESS };
        for (host, status) in [
            ("127.0.0.1:8404", None),
            ("[::1]", None),
            ("LOCALHOST:1", None),
            ("ops.example", None),
            ("evil.example", Some(421)),
            ("127.0.0.1.evil.example", Some(421)),
        ] {
            let head = format!("GET /state.json HTTP/1.1\r\nHost: {host}");
            assert_eq!(check(access, &head).err(), status, "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_cannot_act() {
        let unix = Access { is_unix: true, ..ACCESS };
        for (fields, status) in [
            ("Origin: http://ops.example:8404", None),
            ("Origin: http://evil.example", Some(403)),
            ("Origin: null", Some(403)),
            ("Sec-Fetch-Site: cross-site", Some(403)),
            ("Sec-Fetch-Site: same-site", Some(403)),
            ("Sec-Fetch-Site: same-origin", None),
        ] {
            let head = format!("POST /stop HTTP/1.1\r\nHost: ops.example:8404\r\n{fields}");
            assert_eq!(check(unix, &head).err(), status, "{fields}");
        }
    }

    #[test]
    fn a_change_may_expect_a_site_as_it_was() {
        let unix = Access { is_unix: true, ..ACCESS };
        let asked = |fields: &str, length, is_one_of: Option<&str>, is_none| {
            let method = if fields.contains("Content") { "PUT" } else { "DELETE" };
            let condition = Condition { is_one_of: is_one_of.map(str::to_owned), is_none };
            let asked = AskedSite { name: "a".to_owned(), length, condition };
            let head = format!("{method} /sites/a HTTP/1.1\r\nHost: x\r\n{fields}");
            assert_eq!(check(unix, &head), Ok(Wanted::ChangeSite(asked)));
        };
        asked("Content-Length: 7", Some(7), None, false);
        asked("Content-Length: 0\r\nIf-None-Match: *", Some(0), None, true);
        asked("If-Match: \"1\", \"2\"", None, Some("\"1\", \"2\""), false);
        for (fields, status) in [
            ("If-None-Match: \"1\"", 400),
            ("Content-Length: 16385", 413),
            ("Transfer-Encoding: chunked", 411),
        ] {
            let head = format!("PUT /sites/a HTTP/1.1\r\nHost: x\r\n{fields}");
            assert_eq!(check(unix, &head), Err(status), "{fields}");
        }
    }

    #[test]
    fn bodies_are_short_and_their_length_is_known() {
        let unix = Access { is_unix: true, ..ACCESS };
        let head = "POST /drain HTTP/1.1\r\nHost: x";
        assert_eq!(check(unix, &format!("{head}\r\nContent-Length: 4097")), Err(413));
        assert_eq!(check(unix, &format!("{head}\r\nTransfer-Encoding: chunked")), Err(411));
    }
}
