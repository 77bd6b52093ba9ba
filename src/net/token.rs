//! Event tokens with a generation.
//!
//! `slab` reuses a freed key at once. An event, a timer or a message meant for the old connection
//! would then reach the new one, so every token carries the generation of its slot in the upper
//! half, and the receiver of a token compares it.

/// Names one connection of one worker and is never reused: the key of its slot and the connection's
/// generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Token(u64);

/// The generation of tokens that name a listener; connections never reach it (see
/// [`next_generation`]).
const LISTENER: u32 = u32::MAX;

/// The token of the worker's own waker.
pub const WAKER: Token = Token(u64::MAX);

impl Token {
    /// The token of the connection in slot `key`.
    #[must_use]
    pub fn conn(key: usize, generation: u32) -> Token {
        debug_assert!(key < u32::MAX as usize && generation != LISTENER);
        Token(u64::from(generation) << 32 | key as u64)
    }

    /// The token of the worker's `index`-th listener.
    #[must_use]
    pub fn listener(index: usize) -> Token {
        Token(u64::from(LISTENER) << 32 | index as u64)
    }

    /// The slot, whatever it holds now.
    #[must_use]
    pub fn key(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    /// The generation of the slot when this token was made.
    #[must_use]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether this names a listener; then [`Token::key`] is its index.
    #[must_use]
    pub fn is_listener(self) -> bool {
        self.generation() == LISTENER && self != WAKER
    }

    /// As one word, for tables that know nothing of tokens.
    #[must_use]
    pub fn word(self) -> u64 {
        self.0
    }

    /// Back from [`Token::word`].
    #[must_use]
    pub fn from_word(word: u64) -> Token {
        Token(word)
    }
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> mio::Token {
        mio::Token(token.0 as usize)
    }
}

impl From<mio::Token> for Token {
    fn from(token: mio::Token) -> Token {
        Token(token.0 as u64)
    }
}

/// The generation after `last`. Wraps after four billion connections of one worker, when no token
/// of the first can be left.
#[must_use]
pub fn next_generation(last: u32) -> u32 {
    if last >= LISTENER - 1 { 0 } else { last + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_key_and_generation() {
        let token = Token::conn(7, 9);
        assert_eq!((token.key(), token.generation()), (7, 9));
        assert!(!token.is_listener());
        assert_eq!(Token::from_word(token.word()), token);
        assert_eq!(Token::from(mio::Token::from(token)), token);
    }

    #[test]
    fn listeners_and_the_waker_are_no_connections() {
        assert!(Token::listener(3).is_listener());
        assert_eq!(Token::listener(3).key(), 3);
        assert!(!WAKER.is_listener());
    }

    #[test]
    fn a_generation_never_becomes_the_listeners() {
        assert_eq!(next_generation(0), 1);
        assert_eq!(next_generation(u32::MAX - 1), 0);
    }
}
