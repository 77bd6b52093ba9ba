//! The exit code and what is printed to standard error.

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One sentence for each thing that is wrong. None contains a secret or a key.
    pub lines: Vec<String>,
    /// 1: it cannot be done, or the key is invalid. 2: the command line is wrong.
    pub code: u8,
}

impl Failure {
    /// It cannot be done.
    pub(super) fn of(what: impl Into<String>) -> Failure {
        Failure { lines: vec![what.into()], code: 1 }
    }

    /// The command line is wrong.
    pub(super) fn usage(what: impl Into<String>) -> Failure {
        Failure { lines: vec![what.into()], code: 2 }
    }
}
