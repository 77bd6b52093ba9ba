//! How a backend announces that it knows the extensions, and how it leaves (`doc/protocol.md`, "Extensions").

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use crate::bridge::BackendToken;
use crate::bridge::extensions::{BACKEND, EXTENSIONS, LEAVE, TOKEN_BYTES};
use crate::bridge::request::{self, Limits};

/// One run of a backend at one proxy: what its bridges say, and what makes them leave together.
pub(crate) struct Announcement {
    /// The BRIDGE request with the token. Holds the keys, as [`Announcement::leave`] does, so it is never shown.
    pub register: Vec<u8>,
    /// The request that makes them leave.
    pub leave: Vec<u8>,
}

impl Announcement {
    /// As [`Announcement::new`], for a backend that gives receipts.
    pub fn with_receipts(request: &[u8]) -> Option<Announcement> {
        Announcement::new(&with_field(request, &format!("{EXTENSIONS}: receipts\r\n"))?)
    }

    /// A new token beside what `request`, a whole BRIDGE request, says. `None` if it has no room for one more field, or if
    /// there is no randomness to be had: then it goes out as it is, and the extensions are not used.
    pub fn new(request: &[u8]) -> Option<Announcement> {
        let token = BackendToken::new(random().ok()?);
        let register = with_field(request, &token.field(BACKEND))?;
        let leave = with_field(request, &token.field(LEAVE))?;
        Some(Announcement { register, leave })
    }
}

/// Leaves everything out.
impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announcement")
    }
}

fn random() -> io::Result<[u8; TOKEN_BYTES]> {
    let mut bytes = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// `request` with one more field at its end, if a proxy would still take it.
fn with_field(request: &[u8], field: &str) -> Option<Vec<u8>> {
    let fields = request.strip_suffix(b"\r\n")?;
    let whole = [fields, field.as_bytes(), b"\r\n"].concat();
    matches!(request::parse(&whole, &Limits::default()), Ok(Some(_))).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_token_stands_in_both_and_another_in_the_next() {
        let request = b"BRIDGE / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        let tokens = || {
            let announcement = Announcement::new(request).unwrap();
            let [register, leave] = [announcement.register, announcement.leave]
                .map(|bytes| request::parse(&bytes, &Limits::default()).unwrap().unwrap());
            assert_eq!((register.leave, leave.backend), (None, None));
            assert_eq!(register.backend, leave.leave);
            register.backend.unwrap()
        };
        assert_ne!(tokens(), tokens());
    }

    #[test]
    fn a_request_without_room_goes_out_as_it_is() {
        let hosts: String = (0..100).map(|number| format!("Host: h{number}.test\r\n")).collect();
        let request = format!("BRIDGE / HTTP/1.1\r\n{hosts}\r\n");
        assert!(request::parse(request.as_bytes(), &Limits::default()).is_ok());
        assert!(Announcement::new(request.as_bytes()).is_none());
    }
}
