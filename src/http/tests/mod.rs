//! One rule a test, as literal bytes.

mod chunks;
mod hostile;
mod random;
mod requests;
mod responses;
mod rewriting;

use super::request::{self, Request};
use super::response::{self, Response};
use super::{Limits, ParseError, storage};

/// Parses a request with the default limits and shows it to `look`; `None` if it is not whole.
fn with_request<T>(
    bytes: &[u8],
    look: impl FnOnce(&Request<'_, '_>) -> T,
) -> Result<Option<T>, ParseError> {
    let mut fields = storage();
    Ok(request::parse(bytes, &mut fields, &Limits::default())?.map(|request| look(&request)))
}

/// Shows a good, whole request to `look`.
#[track_caller]
fn good<T>(bytes: &[u8], look: impl FnOnce(&Request<'_, '_>) -> T) -> T {
    match with_request(bytes, look) {
        Ok(Some(seen)) => seen,
        Ok(None) => panic!("partial: {}", bytes.escape_ascii()),
        Err(bad) => panic!("{bad:?}: {}", bytes.escape_ascii()),
    }
}

/// The status that refuses a request; 0 if it is whole and good, 1 if it is partial.
fn status_of(bytes: &[u8]) -> u16 {
    match with_request(bytes, |_| ()) {
        Ok(Some(())) => 0,
        Ok(None) => 1,
        Err(bad) => bad.status,
    }
}

fn with_response<T>(
    bytes: &[u8],
    to_head: bool,
    look: impl FnOnce(&Response<'_, '_>) -> T,
) -> Result<Option<T>, ParseError> {
    let mut fields = storage();
    Ok(response::parse(bytes, &mut fields, &Limits::default(), to_head)?
        .map(|response| look(&response)))
}

/// Shows a good, whole response to a GET to `look`.
#[track_caller]
fn answer<T>(bytes: &[u8], look: impl FnOnce(&Response<'_, '_>) -> T) -> T {
    match with_response(bytes, false, look) {
        Ok(Some(seen)) => seen,
        Ok(None) => panic!("partial: {}", bytes.escape_ascii()),
        Err(bad) => panic!("{bad:?}: {}", bytes.escape_ascii()),
    }
}

/// A source of numbers that is the same in every run (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn pick(&mut self, from: &[&'static [u8]]) -> &'static [u8] {
        from[self.below(from.len())]
    }
}
