//! Regular expressions on paths: `match=` and `hidden=` of a site.

use regex::bytes::{Regex, RegexBuilder};

use super::values::quoted;

/// Longest expression, in bytes. Each request for the site is matched against it.
const MAX_EXPRESSION: usize = 1024;

/// Most memory of a compiled expression, and of its cache, in bytes each. A few hundred
/// alternatives fit; `(a{1000}){1000}` does not.
const MAX_COMPILED: usize = 256 << 10;

/// A regular expression, in the syntax of the `regex` crate on bytes, that is searched for in a
/// path without its query. Two are equal if their texts are.
#[derive(Clone, Debug)]
pub struct PathPattern(Regex);

impl PathPattern {
    /// # Errors
    /// One sentence: not an expression, or too large.
    pub(crate) fn new(expression: &str) -> Result<PathPattern, String> {
        if expression.is_empty() || expression.len() > MAX_EXPRESSION {
            return Err(format!("an expression has 1 to {MAX_EXPRESSION} bytes"));
        }
        let compiled = RegexBuilder::new(expression)
            .unicode(false)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build();
        compiled.map(PathPattern).map_err(|error| {
            // The crate shows the expression with a marker; the last line says what is wrong.
            let text = error.to_string();
            let what = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{} is not a regular expression: {what}", quoted(expression))
        })
    }

    pub(crate) fn regex(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &PathPattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for PathPattern {}
