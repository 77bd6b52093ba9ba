//! What actions at an admin listener need over TCP.

/// The token of the admin listeners. It does not print.
#[derive(Clone)]
pub(super) struct AdminToken(Box<[u8]>);

impl AdminToken {
    /// The one word of a file.
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub(super) fn parse(text: &str) -> Result<AdminToken, &'static str> {
        match text.trim() {
            "" => Err("holds no token"),
            token if token.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(AdminToken(token.as_bytes().into()))
            }
            _ => Err("is not one word of visible characters"),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
