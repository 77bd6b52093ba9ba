//! Which requests a backend takes, apart from their host and path (`doc/protocol.md`, "Predicates").

use std::cmp::Reverse;
use std::fmt;

use super::ascii::is_token;
use super::facts::RequestFacts;
use super::network::Network;
use super::request::MAX_METHOD;
use super::under::is_under;

/// The beginning of the names of the fields.
pub(crate) const PREFIX: &str = "If-";

/// Most predicates of one backend; one that lists several methods, paths or networks counts as many.
/// With the number of lanes it bounds what a request for their host costs.
pub(crate) const MOST: usize = 16;

/// Longest value of a field, in bytes.
const MAX_VALUE: usize = 256;

/// The kinds, in the order of [`KINDS`].
#[derive(Clone, Copy)]
enum Kind {
    MaxBody,
    Method,
    PathPrefix,
    Header,
    Cookie,
    Client,
}

const KINDS: [(&str, Kind); 6] = [
    ("If-Max-Body", Kind::MaxBody),
    ("If-Method", Kind::Method),
    ("If-Path-Prefix", Kind::PathPrefix),
    ("If-Header", Kind::Header),
    ("If-Cookie", Kind::Cookie),
    ("If-Client", Kind::Client),
];

/// What a request must be like for a backend to get it. Two are equal if they say the same in
/// another order. Empty for a backend that takes every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Predicates {
    /// One of these, if there are any.
    methods: Vec<String>,
    /// Without a final slash. One of these, if there are any.
    prefixes: Vec<String>,
    /// All of these; the names are in lower case.
    headers: Vec<Named>,
    /// All of these.
    cookies: Vec<Named>,
    max_body: Option<u64>,
    /// One of these, if there are any.
    clients: Vec<Network>,
}

/// A name, and the value that it must have, if it must have a certain one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Named {
    name: String,
    value: Option<String>,
}

/// Of two sets of predicates that a request meets, the one with the larger value comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    /// How many.
    count: usize,
    /// How many of each kind, the most specific kind first.
    kinds: [usize; KINDS.len()],
    /// The shortest prefix, in bytes: what each of them demands at least.
    prefix: usize,
    /// The narrowest of what the others demand.
    max_body: Reverse<u64>,
    bits: u32,
}

/// The names of the fields, in lower case, as options have them.
pub(crate) const OPTIONS: [&str; 6] =
    ["if-method", "if-path-prefix", "if-header", "if-cookie", "if-max-body", "if-client"];

/// The field of one of [`OPTIONS`].
pub(crate) fn field_of(option: &str) -> &'static str {
    let field = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(option));
    field.map_or("", |(name, _)| name)
}

impl Predicates {
    /// Takes a field of a BRIDGE. `None` if there is no such predicate.
    ///
    /// # Errors
    /// What is wrong with its value, as one clause.
    pub(crate) fn take(&mut self, name: &str, value: &[u8]) -> Option<Result<(), String>> {
        let (_, kind) = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(self.take_value(*kind, value))
    }

    fn take_value(&mut self, kind: Kind, value: &[u8]) -> Result<(), String> {
        if value.len() > MAX_VALUE {
            return Err(format!("it has more than {MAX_VALUE} bytes"));
        }
        let text = str::from_utf8(value).ok().filter(|text| text.bytes().all(is_visible));
        let text = text.ok_or("it has characters that are not visible ASCII")?;
        match kind {
            Kind::Method => {
                for method in text.split(',').map(str::trim_ascii) {
                    let is_one =
                        (1..=MAX_METHOD).contains(&method.len()) && method.bytes().all(is_token);
                    add(&mut self.methods, is_one.then(|| method.to_owned()).ok_or("no method")?);
                }
            }
            Kind::PathPrefix => add(&mut self.prefixes, prefix(text)?),
            Kind::Header => {
                let mut named = Named::parse(text)?;
                named.name.make_ascii_lowercase();
                add(&mut self.headers, named);
            }
            Kind::Cookie => add(&mut self.cookies, Named::parse(text)?),
            Kind::MaxBody => {
                let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let most = text.parse().ok().filter(|_| is_number);
                let most: u64 = most.ok_or("it is a number of bytes")?;
                if self.max_body.replace(most).is_some() {
                    return Err("it is given twice".to_owned());
                }
            }
            Kind::Client => {
                for network in text.split(',').map(str::trim_ascii) {
                    add(&mut self.clients, Network::parse(network)?);
                }
            }
        }
        match self.count() > MOST {
            true => Err(format!("there are more than {MOST} of them")),
            false => Ok(()),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// The methods, if a request must have one of them.
    pub(crate) fn methods(&self) -> &[String] {
        &self.methods
    }

    /// How many there are; each method, path and network is one.
    pub fn count(&self) -> usize {
        self.methods.len()
            + self.prefixes.len()
            + self.headers.len()
            + self.cookies.len()
            + usize::from(self.max_body.is_some())
            + self.clients.len()
    }

    /// The order in which they are asked (`doc/protocol.md`, "Predicates").
    #[must_use]
    pub fn specificity(&self) -> Specificity {
        let kinds = [
            usize::from(!self.clients.is_empty()),
            self.cookies.len(),
            self.headers.len(),
            usize::from(!self.prefixes.is_empty()),
            usize::from(!self.methods.is_empty()),
            usize::from(self.max_body.is_some()),
        ];
        Specificity {
            count: kinds.iter().sum(),
            kinds,
            prefix: self.prefixes.iter().map(String::len).min().unwrap_or(0),
            max_body: Reverse(self.max_body.unwrap_or(u64::MAX)),
            bits: self.clients.iter().map(Network::bits).min().unwrap_or(0),
        }
    }

    /// Whether a request meets all of them.
    #[must_use]
    pub fn are_met_by(&self, facts: &RequestFacts<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|method| method == facts.method()))
            && self.max_body.is_none_or(|most| facts.body().is_some_and(|length| length <= most))
            && (self.prefixes.is_empty()
                || self.prefixes.iter().any(|prefix| is_under(facts.path(), prefix)))
            && self.headers.iter().all(|header| facts.has_header(&header.name, header.value()))
            && self.cookies.iter().all(|cookie| facts.has_cookie(&cookie.name, cookie.value()))
            && (self.clients.is_empty()
                || facts
                    .client()
                    .is_some_and(|client| self.clients.iter().any(|of| of.has(client))))
    }

    /// The fields of a BRIDGE that say the same, each with its value.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let clients: Vec<String> = self.clients.iter().map(Network::to_string).collect();
        let mut fields = Vec::new();
        let mut add = |kind: Kind, value: String| fields.push((KINDS[kind as usize].0, value));
        listed(&self.methods).into_iter().for_each(|value| add(Kind::Method, value));
        listed(&clients).into_iter().for_each(|value| add(Kind::Client, value));
        let slash = |prefix: &String| if prefix.is_empty() { "/".into() } else { prefix.clone() };
        self.prefixes.iter().for_each(|prefix| add(Kind::PathPrefix, slash(prefix)));
        self.headers.iter().for_each(|header| add(Kind::Header, header.to_string()));
        self.cookies.iter().for_each(|cookie| add(Kind::Cookie, cookie.to_string()));
        self.max_body.iter().for_each(|most| add(Kind::MaxBody, most.to_string()));
        fields
    }

    /// Reads what `Display` writes.
    #[must_use]
    pub fn read(shown: &str) -> Option<Predicates> {
        let mut predicates = Predicates::default();
        for field in shown.split("; ") {
            let (name, value) = field.split_once(": ")?;
            predicates.take(name, value.as_bytes())?.ok()?;
        }
        Some(predicates)
    }
}

/// The fields, for people: with a semicolon between two, which no value has.
impl fmt::Display for Predicates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.fields().into_iter().enumerate() {
            write!(f, "{}{name}: {value}", if at > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl Named {
    fn parse(text: &str) -> Result<Named, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("it is NAME or NAME=VALUE".to_owned());
        }
        if text.contains(';') {
            return Err("a value has no semicolon".to_owned());
        }
        if value.as_deref().is_some_and(|value| value.trim_ascii() != value) {
            // That of a request has none, so it would never be met.
            return Err("a value has no blanks around it".to_owned());
        }
        Ok(Named { name: name.to_owned(), value })
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref().map(str::as_bytes)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.value.iter().try_for_each(|value| write!(f, "={value}"))
    }
}

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

/// The values of as few fields as can list all of these: a field has no more than [`MAX_VALUE`] bytes.
fn listed(all: &[String]) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for one in all {
        match values.last_mut() {
            Some(value) if value.len() + ", ".len() + one.len() <= MAX_VALUE => {
                *value += ", ";
                *value += one;
            }
            _ => values.push(one.clone()),
        }
    }
    values
}

/// Keeps a list sorted and without repeats, so that the same predicates compare equal.
fn add<T: Ord>(all: &mut Vec<T>, one: T) {
    if let Err(at) = all.binary_search(&one) {
        all.insert(at, one);
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let path = |b: u8| b.is_ascii_graphic() && b != b'?' && b != b'#' && b != b';';
    match text.starts_with('/') && text.bytes().all(path) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err("it is a path, such as /api".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Framing;
    use httparse::Header;

    fn predicates(fields: &[(&str, &str)]) -> Predicates {
        let mut all = Predicates::default();
        for (name, value) in fields {
            all.take(name, value.as_bytes()).unwrap().unwrap();
        }
        all
    }

    const FIELDS: [Header<'static>; 4] = [
        Header { name: "X-Tenant", value: b"red" },
        Header { name: "Cookie", value: b"a=1; canary=yes" },
        Header { name: "X-Forwarded-For", value: b"192.0.2.9, 10.1.0.7" },
        Header { name: "x-forwarded-for", value: b"10.0.0.2" },
    ];

    fn facts<'a>(method: &'a str, path: &'a str, proxies: &'a [Network]) -> RequestFacts<'a> {
        let (framing, peer) = (Framing::Length(100), "10.0.0.1".parse().unwrap());
        RequestFacts::new(method, path, &FIELDS, framing, peer, proxies)
    }

    #[test]
    fn each_predicate_is_met_or_not() {
        let request = facts("POST", "/api/x?y", &[]);
        for (name, met, not) in [
            ("If-Method", "GET, POST", "GET, post"),
            ("If-Path-Prefix", "/api/", "/ap"),
            ("If-Header", "x-tenant=red", "X-Tenant=Red"),
            ("If-Header", "X-TENANT", "X-Other"),
            ("If-Cookie", "canary=yes", "canary=y"),
            ("If-Cookie", "canary", "Canary"),
            ("If-Max-Body", "100", "99"),
            ("If-Client", "192.0.2.1, 10.0.0.0/30", "10.0.0.2"),
        ] {
            assert!(predicates(&[(name, met)]).are_met_by(&request), "{name}: {met}");
            assert!(!predicates(&[(name, not)]).are_met_by(&request), "{name}: {not}");
        }
        let both = [("If-Header", "X-Tenant=red"), ("If-Header", "X-Tenant=blue")];
        assert!(!predicates(&both).are_met_by(&request), "all fields are demanded");
        let one_of = [("If-Path-Prefix", "/x"), ("If-Path-Prefix", "/")];
        assert!(predicates(&one_of).are_met_by(&request), "one of the paths is enough");
    }

    #[test]
    fn a_body_of_unknown_length_meets_no_bound() {
        let bound = predicates(&[("If-Max-Body", "18446744073709551615")]);
        let request = |framing| {
            RequestFacts::new("POST", "/", &[], framing, "10.0.0.1".parse().unwrap(), &[])
        };
        assert!(bound.are_met_by(&request(Framing::Length(u64::MAX))));
        assert!(bound.are_met_by(&request(Framing::None)));
        assert!(!bound.are_met_by(&request(Framing::Chunked)));
    }

    #[test]
    fn a_request_for_the_server_as_a_whole_is_below_the_root_alone() {
        let request = facts("OPTIONS", "*", &[]);
        assert!(predicates(&[("If-Path-Prefix", "/")]).are_met_by(&request));
        assert!(!predicates(&[("If-Path-Prefix", "/x")]).are_met_by(&request));
    }

    /// However long the lists are, the fields can be read again: a program that replaces this one reads
    /// them.
    #[test]
    fn long_lists_are_said_in_several_fields() {
        let methods: Vec<String> = (0..8).map(|n| format!("M{n:031}")).collect();
        let networks: Vec<String> =
            (0..8).map(|n| format!("2001:db8:ffff:ffff:ffff:ffff:ffff:fff{n}")).collect();
        let [method, network] =
            [methods, networks].map(|all| [all[..4].join(","), all[4..].join(",")]);
        let fields = [
            ("If-Method", &*method[0]),
            ("If-Method", &method[1]),
            ("If-Client", &network[0]),
            ("If-Client", &network[1]),
        ];
        let all = predicates(&fields);
        let said = all.fields();
        assert_eq!(said.len(), 4, "{said:?}");
        let again: Vec<(&str, &str)> = said.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(predicates(&again), all);
        assert_eq!(Predicates::read(&all.to_string()), Some(all));
    }

    #[test]
    fn the_same_in_another_order_is_equal() {
        let one = [("If-Method", "GET"), ("If-Method", "HEAD,GET"), ("If-Header", "X-a=B")];
        let other = [("If-Header", "x-A=B"), ("if-method", "HEAD, GET")];
        assert_eq!(predicates(&one), predicates(&other));
        assert_eq!(predicates(&one).to_string(), "If-Method: GET, HEAD; If-Header: x-a=B");
        assert_ne!(predicates(&[("If-Cookie", "a")]), predicates(&[("If-Cookie", "A")]));
    }

    #[test]
    fn what_is_shown_is_read_again() {
        let all = predicates(&[
            ("If-Client", "10.0.0.0/8,2001:db8::/32"),
            ("If-Cookie", "a"),
            ("If-Header", "x-b=c, d=e"),
            ("If-Max-Body", "65536"),
            ("If-Path-Prefix", "/"),
            ("If-Path-Prefix", "/x"),
        ]);
        assert_eq!(Predicates::read(&all.to_string()), Some(all));
        assert_eq!(Predicates::read("If-None-Match: x"), None);
    }

    #[test]
    fn more_is_more_specific_and_then_the_kind() {
        let order: Vec<Predicates> = [
            &[("If-Cookie", "a"), ("If-Max-Body", "10")][..],
            &[("If-Header", "a"), ("If-Header", "b")],
            &[("If-Header", "a"), ("If-Path-Prefix", "/x")],
            &[("If-Header", "a"), ("If-Max-Body", "10")],
            &[("If-Max-Body", "10"), ("If-Method", "GET")],
            &[("If-Client", "10.0.0.0/16")],
            &[("If-Client", "10.0.0.0/8")],
            &[("If-Cookie", "a")],
            &[("If-Header", "a")],
            &[("If-Path-Prefix", "/long"), ("If-Path-Prefix", "/longer")],
            &[("If-Path-Prefix", "/x"), ("If-Path-Prefix", "/much/longer")],
            &[("If-Method", "GET")],
            &[("If-Max-Body", "10")],
            &[("If-Max-Body", "11")],
        ]
        .map(predicates)
        .into();
        assert!(order.is_sorted_by(|one, next| one.specificity() > next.specificity()));
    }

    #[test]
    fn what_is_malformed_is_explained() {
        for (name, value, what) in [
            ("If-Method", "GET,", "no method"),
            ("If-Method", "", "no method"),
            ("If-Path-Prefix", "api", "it is a path, such as /api"),
            ("If-Path-Prefix", "/a;b", "it is a path, such as /api"),
            ("If-Header", "=x", "it is NAME or NAME=VALUE"),
            ("If-Cookie", "a b", "it is NAME or NAME=VALUE"),
            ("If-Cookie", "a=b;c", "a value has no semicolon"),
            ("If-Cookie", "a= b", "a value has no blanks around it"),
            ("If-Header", "X-A=red ", "a value has no blanks around it"),
            ("If-Max-Body", "64k", "it is a number of bytes"),
            ("If-Max-Body", "+1", "it is a number of bytes"),
        ] {
            let taken = Predicates::default().take(name, value.as_bytes());
            assert_eq!(taken, Some(Err(what.to_owned())), "{name}: {value}");
        }
        assert!(Predicates::default().take("If-Client", b"10.0.0.1/8").unwrap().is_err());
        assert_eq!(Predicates::default().take("If-Modified-Since", b"x"), None);
        let mut twice = predicates(&[("If-Max-Body", "1")]);
        assert_eq!(twice.take("If-Max-Body", b"1").unwrap(), Err("it is given twice".to_owned()));
        let methods: Vec<String> = (0..=MOST).map(|number| format!("M{number}")).collect();
        let many = Predicates::default().take("If-Method", methods.join(",").as_bytes());
        assert_eq!(many.unwrap(), Err("there are more than 16 of them".to_owned()));
    }
}
