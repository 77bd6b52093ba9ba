//! Bytes that could not be passed on yet.
//!
//! An idle connection owns no memory here: its buffers are empty `Vec`s. A buffer takes storage
//! from the worker's [`Pool`] when bytes must be kept, and gives it back when they are gone.

use std::fmt;

/// Storage of this size or less goes back to the pool; larger storage, which a body or a long
/// head left behind, goes back to the allocator.
const POOLED_CAPACITY: usize = 4 * 1024;

/// How many pieces of storage a worker keeps for reuse: enough for every request in flight of
/// a busy worker, 4 MiB at the very most.
const POOLED_COUNT: usize = 1024;

/// A queue of bytes: appended at the back, consumed at the front.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// The bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `more`, taking storage from `pool` when it has none.
    pub fn push(&mut self, more: &[u8], pool: &mut Pool) {
        if more.is_empty() {
            return;
        }
        let before = self.bytes.capacity();
        if before == 0 {
            self.bytes = pool.take();
        }
        if self.start > 0 && self.bytes.len() + more.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(more);
        pool.used = pool.used.wrapping_add(self.bytes.capacity().wrapping_sub(before));
    }

    /// Drops the first `count` bytes; gives the storage back when none are left.
    ///
    /// # Panics
    /// When it holds fewer than `count` bytes.
    pub fn consume(&mut self, count: usize, pool: &mut Pool) {
        assert!(count <= self.len(), "consumed more than there is");
        self.start += count;
        if self.start == self.bytes.len() {
            self.clear(pool);
        }
    }

    /// Drops everything and gives the storage back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.start = 0;
        if self.bytes.capacity() > 0 {
            pool.put(std::mem::take(&mut self.bytes));
        }
    }
}

/// Shows only the length: the bytes may be a client's secret.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}

/// Storage for [`Buffer`]s, kept by one worker so that a request costs no allocation.
#[derive(Default)]
pub struct Pool {
    free: Vec<Vec<u8>>,
    /// See [`Pool::used`]. It wraps, because a buffer may be filled under one worker and emptied
    /// under another.
    used: usize,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// How many bytes of storage the buffers filled from this pool own, as far as is known: buffers
    /// that went to another worker full are counted here.
    #[must_use]
    pub fn used(&self) -> usize {
        usize::try_from(self.used.cast_signed()).unwrap_or(0)
    }

    fn put(&mut self, mut storage: Vec<u8>) {
        self.used = self.used.wrapping_sub(storage.capacity());
        if storage.capacity() <= POOLED_CAPACITY && self.free.len() < POOLED_COUNT {
            storage.clear();
            self.free.push(storage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_the_order_they_went_in() {
        let (mut pool, mut buffer) = (Pool::default(), Buffer::default());
        buffer.push(b"abc", &mut pool);
        buffer.consume(2, &mut pool);
        buffer.push(b"defgh", &mut pool);
        assert_eq!(buffer.bytes(), b"cdefgh");
        buffer.consume(6, &mut pool);
        assert!(buffer.is_empty());
    }

    #[test]
    fn storage_is_reused_and_an_empty_buffer_owns_none() {
        let (mut pool, mut buffer) = (Pool::default(), Buffer::default());
        buffer.push(b"abc", &mut pool);
        let place = buffer.bytes().as_ptr();
        buffer.consume(3, &mut pool);
        assert_eq!(buffer.bytes.capacity(), 0);
        let mut other = Buffer::default();
        other.push(b"x", &mut pool);
        assert_eq!(other.bytes().as_ptr(), place);
    }

    #[test]
    fn the_storage_in_use_is_counted() {
        let (mut pool, mut other) = (Pool::default(), Pool::default());
        let mut buffers = [Buffer::default(), Buffer::default()];
        for buffer in &mut buffers {
            buffer.push(&[7; 1000], &mut pool);
            buffer.push(&[7; 9000], &mut pool);
        }
        assert!((20_000..40_000).contains(&pool.used()), "{}", pool.used());
        buffers[0].consume(9999, &mut pool);
        assert!(pool.used() >= 20_000);
        buffers[0].consume(1, &mut pool);
        buffers[1].clear(&mut other);
        assert!((10_000..20_000).contains(&pool.used()), "{}", pool.used());
        assert_eq!(other.used(), 0);
    }

    #[test]
    fn large_storage_is_not_kept() {
        let (mut pool, mut buffer) = (Pool::default(), Buffer::default());
        buffer.push(&vec![0; POOLED_CAPACITY + 1], &mut pool);
        buffer.clear(&mut pool);
        assert!(pool.free.is_empty());
    }

    #[test]
    fn a_slow_consumer_does_not_make_it_grow() {
        let (mut pool, mut buffer) = (Pool::default(), Buffer::default());
        for _ in 0..10_000 {
            buffer.push(&[7; 10], &mut pool);
            if buffer.len() > 20 {
                buffer.consume(10, &mut pool);
            }
        }
        assert!(buffer.bytes.capacity() < 100);
    }

    #[test]
    fn debug_shows_no_bytes() {
        let (mut pool, mut buffer) = (Pool::default(), Buffer::default());
        buffer.push(b"Authorization: Basic c2VjcmV0", &mut pool);
        assert_eq!(format!("{buffer:?}"), "Buffer(29 bytes)");
    }
}
