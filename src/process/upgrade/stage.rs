//! What a program that can be replaced is doing.

/// What the process is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nothing out of the ordinary.
    Serving,
    /// A new program starts.
    Upgrading,
    /// A new program serves; this one finishes what is in flight.
    Replaced,
    /// It has been told to stop, and finishes what is in flight.
    Draining,
    /// The new program has ended, after this one had left everything to it.
    Failed,
}

impl Stage {
    /// Why nothing is changed now, if so.
    #[must_use]
    pub fn refuses(self) -> Option<&'static str> {
        match self {
            Stage::Serving => None,
            Stage::Upgrading => Some("a new program is being started"),
            Stage::Replaced => Some("a new program serves; ask that one"),
            Stage::Draining | Stage::Failed => Some("nothing is changed while shutting down"),
        }
    }
}
