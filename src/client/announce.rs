//! How a backend announces the extensions, and how it deregisters (`doc/protocol.md`,
//! "Extensions").

use std::fs::File;
use std::io::{self, Read};

use crate::bridge::BackendToken;
use crate::bridge::extensions::{
    AGENT, AGENT_OF_AGENT, BACKEND, EXTENSIONS, LEAVE, OF_AGENT, OF_AGENT_OF_SEVERAL,
    OF_LIBRARY_OF_SEVERAL,
};
use crate::bridge::proof::{self, NONCE_BYTES, Nonce};
use crate::bridge::request;
use crate::http::Limits;

/// The requests of one run of a backend at one proxy, which share a token.
pub(crate) struct Announcement {
    pub token: BackendToken,
    /// The BRIDGE request. It holds the keys, as `leave` does, so neither is ever shown.
    pub register: Vec<u8>,
    /// The deregistration of all bridges with the token.
    pub leave: Vec<u8>,
}

impl Announcement {
    /// For the agent, which uses all extensions; that for places only if it has `several` proxies.
    pub fn of_agent(request: &[u8], several: bool) -> Option<Announcement> {
        Announcement::of_agent_with(BackendToken::new(random().ok()?), request, several)
    }

    /// As [`Announcement::of_agent`], with the token of bridges that there are already.
    pub fn of_agent_with(
        token: BackendToken,
        request: &[u8],
        several: bool,
    ) -> Option<Announcement> {
        let list = if several { OF_AGENT_OF_SEVERAL } else { OF_AGENT };
        let request = with_field(request, &format!("{EXTENSIONS}: {list}\r\n"))?;
        Announcement::with(token, &request, AGENT_OF_AGENT)
    }

    /// Adds a new token to `request`, a whole BRIDGE request, and what program it comes from. `None`
    /// if it has no room for one more field, or if the system has no randomness: then the backend
    /// uses no extensions. The program's name is left out if there is no room for it.
    pub fn of(request: &[u8], agent: &str) -> Option<Announcement> {
        Announcement::with(BackendToken::new(random().ok()?), request, agent)
    }

    /// As [`Announcement::of`], for a program that shares its places between several proxies. Without room
    /// for that it uses no places.
    pub fn of_several(request: &[u8], agent: &str) -> Option<Announcement> {
        let list = format!("{EXTENSIONS}: {OF_LIBRARY_OF_SEVERAL}\r\n");
        let sharing =
            with_field(request, &list).and_then(|request| Announcement::of(&request, agent));
        sharing.or_else(|| Announcement::of(request, agent))
    }

    fn with(token: BackendToken, request: &[u8], agent: &str) -> Option<Announcement> {
        let register = with_field(request, &token.field(BACKEND))?;
        let register = with_field(&register, &format!("{AGENT}: {agent}\r\n")).unwrap_or(register);
        let leave = with_field(request, &token.field(LEAVE))?;
        Some(Announcement { token, register, leave })
    }
}

/// A nonce for one connection.
///
/// # Errors
/// The system has no randomness.
pub(crate) fn nonce() -> io::Result<Nonce> {
    random::<NONCE_BYTES>().map(Nonce::new)
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Whether a proxy takes a request, with the nonce if its keys are to be proven.
pub(crate) fn is_taken(request: &[u8]) -> bool {
    let longest = Nonce::new([0; NONCE_BYTES]);
    let proven = proof::answer(request, longest, longest, proof::PLAIN_TEXT);
    [request, &proven]
        .iter()
        .all(|request| matches!(request::parse(request, &Limits::default()), Ok(Some(_))))
}

/// Adds a field to the end of `request`, if a proxy would still accept it.
fn with_field(request: &[u8], field: &str) -> Option<Vec<u8>> {
    let fields = request.strip_suffix(b"\r\n")?;
    let whole = [fields, field.as_bytes(), b"\r\n"].concat();
    is_taken(&whole).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_requests_have_the_token_and_each_announcement_its_own() {
        let request = b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let tokens = || {
            let announcement = Announcement::of(request, "x/1").unwrap();
            let [register, leave] = [announcement.register, announcement.leave]
                .map(|bytes| request::parse(&bytes, &Limits::default()).unwrap().unwrap());
            assert_eq!((register.leave, leave.backend), (None, None));
            assert_eq!(register.backend, leave.leave);
            register.backend.unwrap()
        };
        assert_ne!(tokens(), tokens());
    }

    #[test]
    fn request_without_room_is_not_announced() {
        let hosts: String = (0..100).map(|number| format!("Host: h{number}.test\r\n")).collect();
        let request = format!("BRIDGE / HTTP/1.1\r\n{hosts}\r\n");
        assert!(request::parse(request.as_bytes(), &Limits::default()).is_ok());
        assert!(Announcement::of(request.as_bytes(), "x/1").is_none());
    }
}
