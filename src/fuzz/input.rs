//! What the first bytes of an input decide. They are ordinary characters in most seeds, so that
//! the seeds can be read: only some bits of each count.

/// The choices at the front of an input, and what follows them.
pub(super) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `bound`, which is not 0: `'0'` is 0, `'1'` is 1.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte().wrapping_sub(b'0')) % bound
    }

    /// One of several values.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The next `count` bytes, or as many as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// What precedes the first `mark`, which is skipped; everything if there is none.
    pub fn until(&mut self, mark: u8) -> &'a [u8] {
        let end = memchr::memchr(mark, self.rest).unwrap_or(self.rest.len());
        let taken = self.take(end);
        self.take(1);
        taken
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// The pieces of `bytes` in an order of sizes that `seed` determines: small ones mostly, since
/// splits inside a token are where parsers go wrong.
pub(super) fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, u32::from(seed) | 1);
    std::iter::from_fn(move || {
        // A linear congruential generator: any sequence will do, if it is the same every time.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = match state >> 29 {
            0..=4 => 1,
            5 | 6 => 1 + (state >> 20 & 7) as usize,
            _ => 64,
        };
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        Some(piece)
    })
}
