//! Hashes of host names. Each request needs one.
//!
//! Only backends put names into the tables; clients can only look them up. So the hash need not
//! withstand an attacker who sees its values, as the standard library's does at three times the
//! price. It must be fast for a few dozen bytes, and unpredictable to a backend, which may register
//! any name it likes. A random key, and multiplications that keep both halves of the product, give
//! that.

use std::hash::{BuildHasher, Hasher, RandomState};

/// An odd number whose bits follow no pattern: the fraction of the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes the hashers of one table.
#[derive(Clone, Debug)]
pub(super) struct NameHashes {
    key: u64,
}

impl Default for NameHashes {
    /// With a key of its own.
    fn default() -> Self {
        NameHashes { key: RandomState::new().hash_one(GOLDEN) }
    }
}

impl BuildHasher for NameHashes {
    type Hasher = NameHasher;

    fn build_hasher(&self) -> NameHasher {
        NameHasher { state: self.key }
    }
}

/// Hashes one name.
#[derive(Debug)]
pub(super) struct NameHasher {
    state: u64,
}

impl NameHasher {
    fn take(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(GOLDEN);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(GOLDEN);
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.take(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // The length, so that zeros at the end are not the same as nothing.
        self.take(u64::from_le_bytes(last) ^ (bytes.len() as u64).rotate_right(8));
    }

    /// The byte that `str` appends, which is not needed: the length is in already.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_that_are_alike_have_hashes_that_are_not() {
        let hashes = NameHashes::default();
        let names = (0..100_000).map(|number| format!("h{number}.example.com"));
        // A hash table uses the lowest bits as the index and the highest seven as the tag.
        let places: HashSet<u64> =
            names.map(|name| hashes.hash_one(name.as_str()) & 0xffff).collect();
        // 1 - 1/e^(100,000/65,536) of them would be taken by chance: 51,300.
        assert!((50_500..52_100).contains(&places.len()), "{}", places.len());
        // One of 128 is missed by chance once in 10^32 times.
        let tops: HashSet<u64> = (0..10_000)
            .map(|number| hashes.hash_one(format!("{number}.a").as_str()) >> 57)
            .collect();
        assert_eq!(tops.len(), 128);
    }

    #[test]
    fn the_length_counts_and_so_does_the_key() {
        let hashes = NameHashes::default();
        let zeros = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let all: HashSet<u64> = (0..=17).map(|end| hashes.hash_one(&zeros[..end])).collect();
        assert_eq!(all.len(), 18);
        assert_ne!(hashes.hash_one("a.test"), NameHashes::default().hash_one("a.test"));
        assert_eq!(hashes.hash_one("a.test"), hashes.hash_one(Box::<str>::from("a.test")));
    }
}
