//! What is known of a request, for the predicates of backends.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use httparse::Header;

use super::cookies::Cookies;
use super::framing::Framing;
use super::network::Network;
use super::under::path_alone;

/// What the predicates of backends are compared with. What must be searched for in long fields is found
/// once, when it is first asked for: a host may have many sets of predicates.
pub struct RequestFacts<'a> {
    method: &'a str,
    /// As it came.
    path: &'a str,
    fields: &'a [Header<'a>],
    framing: Framing,
    peer: IpAddr,
    proxies: &'a [Network],
    path_alone: OnceCell<&'a str>,
    cookies: OnceCell<Cookies<'a>>,
    client: OnceCell<Option<IpAddr>>,
}

impl<'a> RequestFacts<'a> {
    /// Of a request with this method, path (with or without a query) and fields, all as sent. `peer` is
    /// that of the client's connection, or whom a proxy in front has announced; `proxies` are those whose
    /// `X-Forwarded-For` is believed.
    #[must_use]
    pub fn new(
        method: &'a str,
        path: &'a str,
        fields: &'a [Header<'a>],
        framing: Framing,
        peer: IpAddr,
        proxies: &'a [Network],
    ) -> Self {
        let (path_alone, cookies, client) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        RequestFacts { method, path, fields, framing, peer, proxies, path_alone, cookies, client }
    }

    pub(super) fn method(&self) -> &'a str {
        self.method
    }

    /// Without the query.
    pub(super) fn path(&self) -> &'a str {
        self.path_alone.get_or_init(|| path_alone(self.path))
    }

    /// The length of the body; `None` if it is not known before its end.
    pub(super) fn body(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// Whether there is a field with this name, in any case, and this value, if one is given.
    pub(super) fn has_header(&self, name: &str, value: Option<&[u8]>) -> bool {
        self.fields.iter().any(|field| {
            field.name.eq_ignore_ascii_case(name) && value.is_none_or(|value| value == field.value)
        })
    }

    /// The same of a cookie, whose name is compared with case.
    pub(super) fn has_cookie(&self, name: &str, value: Option<&[u8]>) -> bool {
        self.cookies.get_or_init(|| Cookies::of(self.fields)).has(name, value)
    }

    /// The address of the client; `None` if a proxy that is believed names one that cannot be read.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        *self.client.get_or_init(|| self.find_client())
    }

    /// Of the peers from here back, the first that is no trusted proxy.
    fn find_client(&self) -> Option<IpAddr> {
        let is_proxy = |address| self.proxies.iter().any(|network| network.has(address));
        let mut client = self.peer.to_canonical();
        let told = self
            .fields
            .iter()
            .rev()
            .filter(|field| field.name.eq_ignore_ascii_case("X-Forwarded-For"));
        let told = told.flat_map(|field| field.value.rsplit(|byte| *byte == b','));
        for address in told.map(<[u8]>::trim_ascii).filter(|address| !address.is_empty()) {
            if !is_proxy(client) {
                break;
            }
            client = read_address(address)?.to_canonical();
        }
        Some(client)
    }
}

/// A copy of [`RequestFacts`] that outlives the request.
pub struct KeptFacts {
    method: String,
    path: String,
    fields: Vec<(String, Vec<u8>)>,
    framing: Framing,
    client: Option<IpAddr>,
}

impl KeptFacts {
    /// A copy of these.
    #[must_use]
    pub fn of(facts: &RequestFacts<'_>) -> Self {
        let copied = |field: &Header<'_>| (field.name.to_owned(), field.value.to_owned());
        KeptFacts {
            method: facts.method.to_owned(),
            path: facts.path().to_owned(),
            fields: facts.fields.iter().map(copied).collect(),
            framing: facts.framing,
            client: facts.client(),
        }
    }

    /// The path of the request, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Calls `look` with them.
    pub fn look<R>(&self, look: impl FnOnce(&RequestFacts<'_>) -> R) -> R {
        let fields = self.fields.iter().map(|(name, value)| Header { name, value });
        let fields: Vec<Header<'_>> = fields.collect();
        let peer = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let facts = RequestFacts::new(&self.method, &self.path, &fields, self.framing, peer, &[]);
        look(&RequestFacts { client: OnceCell::from(self.client), ..facts })
    }
}

/// An address as proxies write it: some add a port, and IPv6 then has brackets (RFC 7239, section 6).
fn read_address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(told: &[&'static str], proxies: &[&str]) -> Option<String> {
        let proxies: Vec<Network> = proxies.iter().map(|n| Network::parse(n).unwrap()).collect();
        let field =
            |value: &&'static str| Header { name: "x-forwarded-FOR", value: value.as_bytes() };
        let fields: Vec<Header<'_>> = told.iter().map(field).collect();
        let peer = "10.0.0.1".parse().unwrap();
        let facts = RequestFacts::new("GET", "/", &fields, Framing::None, peer, &proxies);
        facts.client().map(|client| client.to_string())
    }

    #[test]
    fn the_client_is_the_last_that_a_trusted_proxy_names() {
        for (proxies, expected) in [
            (&[][..], "10.0.0.1"),
            (&["10.0.0.0/30"][..], "10.1.0.7"),
            (&["10.0.0.0/8"][..], "192.0.2.9"),
            (&["0.0.0.0/0"][..], "192.0.2.9"),
            (&["10.0.0.2"][..], "10.0.0.1"),
        ] {
            let found = client(&["192.0.2.9, 10.1.0.7", "10.0.0.2"], proxies);
            assert_eq!(found.as_deref(), Some(expected), "{proxies:?}");
        }
    }

    #[test]
    fn what_is_kept_is_as_it_was() {
        let fields = [Header { name: "Cookie", value: b"a=1" }];
        let peer = "192.0.2.9".parse().unwrap();
        let framing = Framing::Length(3);
        let facts = RequestFacts::new("PUT", "/x?y", &fields, framing, peer, &[]);
        let kept = KeptFacts::of(&facts);
        assert_eq!(kept.path(), "/x");
        kept.look(|again| {
            assert_eq!((again.method(), again.path(), again.body()), ("PUT", "/x", Some(3)));
            assert!(again.has_cookie("a", Some(b"1")) && again.has_header("cookie", Some(b"a=1")));
            assert_eq!(again.client(), Some(peer));
        });
    }

    #[test]
    fn a_port_and_brackets_are_no_part_of_an_address() {
        for (told, expected) in [
            ("192.0.2.9:4711", Some("192.0.2.9")),
            ("[2001:db8::7]:4711", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("::ffff:192.0.2.9", Some("192.0.2.9")),
            ("192.0.2.8, , 192.0.2.9,", Some("192.0.2.9")),
            ("192.0.2.9, unknown", None),
            ("192.0.2.9:x", None),
            ("[192.0.2.9]", None),
            ("_hidden", None),
        ] {
            assert_eq!(client(&[told], &["10.0.0.1"]).as_deref(), expected, "{told}");
        }
        assert_eq!(client(&["unknown"], &[]).as_deref(), Some("10.0.0.1"), "nobody is believed");
    }
}
