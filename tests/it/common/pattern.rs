//! A test body of any size that needs no memory: bytes that look random and are the same in every
//! run.

/// The 8 bytes at 8 times `word` of an endless body that never repeats, so that a byte lost,
/// doubled or moved shows.
fn word_at(word: u64) -> [u8; 8] {
    let mut x = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)).to_le_bytes()
}

/// The bytes `offset..offset + length` of the endless test body.
pub fn pattern(offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 16);
    let skipped = (offset % 8) as usize;
    let mut word = offset / 8;
    while bytes.len() < length + skipped {
        bytes.extend_from_slice(&word_at(word));
        word += 1;
    }
    bytes.truncate(length + skipped);
    bytes.drain(..skipped);
    bytes
}

/// Where `bytes`, which ought to stand at `offset` of the endless test body, first differ from it.
pub fn pattern_differs(offset: u64, bytes: &[u8]) -> Option<u64> {
    let expected = pattern(offset, bytes.len());
    let at = bytes.iter().zip(&expected).position(|(have, want)| have != want)?;
    Some(offset + at as u64)
}
