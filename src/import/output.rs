//! The flat file that an import writes.

use std::fmt;
use std::path::Path;

use crate::config;

/// Something wrong with the imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Problem {
    pub(super) fn new(line: usize, what: impl Into<String>) -> Problem {
        Problem { line, what: what.into() }
    }
}

/// `12: what is wrong`, without the file's name.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// The flat file under construction.
#[derive(Default)]
pub(super) struct Output {
    pub text: String,
    /// For each line, the line of the YAML that it comes from.
    origin: Vec<usize>,
    /// Settings that became a comment.
    pub left_out: usize,
}

impl Output {
    /// Adds a directive for a line of the YAML.
    pub fn directive(&mut self, line: usize, name: &str, value: &str) {
        self.line(line, &format!("{name} {value}"));
    }

    pub fn comment(&mut self, text: &str) {
        // A line end from the YAML must not end the comment.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(1, &format!("# {text}"));
    }

    /// Adds a comment for a setting without a counterpart.
    pub fn left_out(&mut self, line: usize, name: &str, why: &str) {
        self.left_out += 1;
        self.comment(&format!("{name} (line {line}): {why}"));
    }

    pub fn blank(&mut self) {
        self.line(1, "");
    }

    fn line(&mut self, origin: usize, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.origin.push(origin);
    }

    /// What the settings' own reader reports, with lines of the YAML.
    pub fn check(&self) -> Vec<Problem> {
        let mut settings = config::Settings::default();
        let problems =
            config::read(config::TABLE, Path::new(""), self.text.as_bytes(), &mut settings);
        problems
            .into_iter()
            .map(|problem| match problem {
                config::Problem::Line { line, what, .. } => {
                    Problem::new(self.origin.get(line - 1).copied().unwrap_or(1), what)
                }
                other => Problem::new(1, other.to_string()),
            })
            .collect()
    }
}

/// The value as one word of the flat file, quoted if necessary.
pub(super) fn word(value: &str) -> String {
    let needs = value.is_empty()
        || value.starts_with('#')
        || value.contains(|c: char| c.is_whitespace() || c == '"');
    if !needs {
        return value.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
