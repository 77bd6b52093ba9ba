//! A chunked body: where it ends, and what its data is, however it arrives.

use super::input::{Input, pieces};
use crate::exchange::body_pump::{BodyPump, Form};
use crate::http::{Decoder, Framing, ParseError, Piece};

/// How far a reader has come: the data so far, the bytes taken, and whether the body is complete.
type Progress = (Vec<u8>, usize, bool);

/// A seed for the pieces, and the bytes after a head.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let seed = input.byte();
    let bytes = input.rest();
    let whole = decoded([bytes].into_iter());
    let split = decoded(pieces(bytes, seed));
    assert_eq!(whole.is_ok(), split.is_ok(), "the pieces decide whether it is malformed");
    let Ok((data, taken, complete)) = whole else { return };
    assert_eq!(split.unwrap(), (data.clone(), taken, complete), "the pieces decide what it is");
    assert!(complete || taken == bytes.len(), "bytes are left over");
    assert_eq!(Decoder::new().scan(bytes), Ok((taken, complete)));
    assert_eq!(skipped(bytes), Ok((taken, complete)));
    assert_eq!(pumped(bytes), (data.clone(), taken, complete));
    if complete {
        assert_eq!(lenient(bytes), Some((data, taken)), "others end the body elsewhere");
    }
}

/// By the decoder, with the pieces one after another.
fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Progress, ParseError> {
    let (mut decoder, mut data, mut taken) = (Decoder::new(), Vec::new(), 0);
    for mut bytes in pieces {
        while let Some(piece) = decoder.next(bytes)? {
            let count = match piece {
                Piece::Data(count) => {
                    data.extend_from_slice(&bytes[..count]);
                    count
                }
                Piece::Framing(count) | Piece::End(count) => count,
            };
            assert!(count > 0, "no progress");
            taken += count;
            bytes = &bytes[count..];
        }
        assert!(bytes.is_empty() || decoder.is_done(), "it stopped in the middle");
    }
    Ok((data, taken, decoder.is_done()))
}

/// By the decoder, which sees no data: that is how spliced bodies pass.
fn skipped(bytes: &[u8]) -> Result<(usize, bool), ParseError> {
    let (mut decoder, mut taken) = (Decoder::new(), 0);
    loop {
        let data = decoder.data_left().min((bytes.len() - taken) as u64);
        decoder.skip(data);
        taken += data as usize;
        match decoder.next(&bytes[taken..])? {
            Some(Piece::Framing(count) | Piece::End(count) | Piece::Data(count)) => taken += count,
            None => return Ok((taken, decoder.is_done())),
        }
    }
}

/// By the pump that removes the coding.
fn pumped(bytes: &[u8]) -> Progress {
    let mut pump = BodyPump::new(Framing::Chunked, Form::DataOnly).expect("there is a body");
    let mut data = Vec::new();
    let taken = pump.take(bytes, &mut data).expect("the decoder has taken it");
    (data, taken, pump.is_done())
}

/// By a reader as lenient as the most lenient servers: data and end of a complete body.
fn lenient(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut at) = (Vec::new(), 0);
    let line = |at: &mut usize| {
        let end = *at + memchr::memchr(b'\n', &bytes[*at..])?;
        let line = &bytes[*at..end];
        *at = end + 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    };
    loop {
        let size = line(&mut at)?;
        let digits = size.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            while !line(&mut at)?.is_empty() {}
            return Some((data, at));
        }
        data.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        line(&mut at).filter(|rest| rest.is_empty())?;
    }
}
