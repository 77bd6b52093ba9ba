//! What Redis asks for (`redis-password`).

use std::sync::Arc;

/// The password of Redis. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct RedisPassword(Arc<[u8]>);

impl RedisPassword {
    /// The first line of a file.
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub(super) fn parse(text: &str) -> Result<RedisPassword, &'static str> {
        match text.lines().next() {
            None | Some("") => Err("holds no password"),
            Some(line) => Ok(RedisPassword(line.as_bytes().into())),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        assert!(RedisPassword::parse("se same \n").is_ok_and(|p| p.bytes() == b"se same "));
        assert!(RedisPassword::parse("").is_err() && RedisPassword::parse("\nx").is_err());
    }
}
