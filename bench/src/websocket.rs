//! The least of RFC 6455 that an echo needs: the handshake's digest and the framing.

use sha1::{Digest, Sha1};

/// Appended to the key before it is digested (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The opcode of a close frame (RFC 6455 section 5.5.1).
pub const CLOSE: u8 = 8;
/// Payload a frame may have, in bytes: a frame is echoed when it is whole.
pub const LARGEST_FRAME: u64 = 1 << 20;

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub fn accept(key: &[u8]) -> String {
    base64(&Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// RFC 4648 section 4, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(*group.get(at).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { letter as char } else { '=' });
        }
    }
    text
}

/// A frame at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN and the reserved bits, as they were sent.
    pub flags: u8,
    /// What kind of frame it is.
    pub opcode: u8,
    /// The mask, if there is one.
    pub mask: Option<[u8; 4]>,
    /// Where the payload begins.
    pub start: usize,
    /// Where it ends, and the frame with it.
    pub end: usize,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More is needed.
    Partial,
    /// A whole frame.
    Whole(Frame),
    /// Larger than [`LARGEST_FRAME`].
    TooLarge,
}

/// Reads a frame (RFC 6455 section 5.2).
pub fn parse(bytes: &[u8]) -> Parsed {
    let &[first, second, ref rest @ ..] = bytes else {
        return Parsed::Partial;
    };
    let (len, mut start) = match (second & 0x7f, rest) {
        (126, &[a, b, ..]) => (u64::from(u16::from_be_bytes([a, b])), 4),
        (127, &[a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
        (126 | 127, _) => return Parsed::Partial,
        (len, _) => (u64::from(len), 2),
    };
    if len > LARGEST_FRAME {
        return Parsed::TooLarge;
    }
    let mut mask = None;
    if second & 0x80 != 0 {
        let Some(&[a, b, c, d]) = bytes.get(start..start + 4) else {
            return Parsed::Partial;
        };
        mask = Some([a, b, c, d]);
        start += 4;
    }
    // At most LARGEST_FRAME, hence a usize.
    let end = start + len as usize;
    if bytes.len() < end {
        return Parsed::Partial;
    }
    Parsed::Whole(Frame { flags: first & 0xf0, opcode: first & 0x0f, mask, start, end })
}

/// Appends a frame to `to`, masked if a mask is given (which a client must do, RFC 6455 section
/// 5.3).
pub fn write(first: u8, mask: Option<[u8; 4]>, payload: &[u8], to: &mut Vec<u8>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    to.push(first);
    match payload.len() {
        len @ 0..126 => to.push(masked | len as u8),
        len @ 126..0x1_0000 => {
            to.push(masked | 126);
            to.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            to.push(masked | 127);
            to.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(mask.as_ref().map_or(&[], |mask| &mask[..]));
    let start = to.len();
    to.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply(mask, &mut to[start..]);
    }
}

/// Masks or unmasks a payload (RFC 6455 section 5.3).
pub fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_frame_written_is_read_again_and_is_partial_before_its_last_byte() {
        for len in [0usize, 1, 125, 126, 65535, 65536] {
            let payload = vec![b'x'; len];
            let mut bytes = Vec::new();
            write(0x82, Some([1, 2, 3, 4]), &payload, &mut bytes);
            for end in (0..bytes.len()).step_by(1 + len / 50) {
                assert_eq!(parse(&bytes[..end]), Parsed::Partial, "{end} of {len}");
            }
            let Parsed::Whole(frame) = parse(&bytes) else { panic!("{len}") };
            assert_eq!((frame.flags, frame.opcode, frame.end), (0x80, 2, bytes.len()));
            apply(frame.mask.unwrap(), &mut bytes[frame.start..frame.end]);
            assert_eq!(&bytes[frame.start..frame.end], payload);
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_at_once() {
        assert_eq!(parse(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]), Parsed::TooLarge);
    }
}
