//! Settings of Swiftiply, the original, made into settings of ours.
//!
//! [`swiftiply`] takes the text of its YAML file and gives the text of a flat file that does the same.
//! `yaml` reads, `global` says what the settings of the whole mean here, `site` what the entries
//! under `map:` do, `other` has a sentence for everything that has no counterpart. The result has been
//! read by the same reader that will read it later, so that a mistake is found where it was made: in
//! the YAML. doc/swiftiply.md says all of it in prose.

mod global;
mod other;
mod site;
#[cfg(test)]
mod tests;
mod yaml;

use std::fmt;
use std::path::Path;

use crate::config;

/// What is wrong with the file that is imported, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line of the file, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl Problem {
    fn new(line: usize, what: impl Into<String>) -> Problem {
        Problem { line, what: what.into() }
    }
}

/// `12: what is wrong`: the file's name belongs in front.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

/// What an import has made.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// The flat file. It holds the keys that stand in the YAML.
    pub text: String,
    /// How much of the YAML has become a comment that says why.
    pub left_out: usize,
}

/// Makes a flat file of Swiftiply's settings. `file` is only for the comment at its beginning.
///
/// # Errors
/// Everything that is wrong, in the order of the lines; where it is no YAML, one problem.
pub fn swiftiply(text: &str, file: &str) -> Result<Imported, Vec<Problem>> {
    let root = yaml::read(text).map_err(|problem| vec![problem])?;
    let mut out = Output::default();
    out.comment(&format!("Made from {file} by cloudbridge --import-swiftiply."));
    out.comment("Check it with cloudbridge -t -c FILE. doc/swiftiply.md has the differences.");
    let mut problems = global::write(&root, &mut out);
    problems.extend(out.check());
    if problems.is_empty() {
        return Ok(Imported { text: out.text, left_out: out.left_out });
    }
    problems.sort_by_key(|problem| problem.line);
    Err(problems)
}

/// The flat file as it grows, and for each of its lines the line of the YAML that it comes from.
#[derive(Default)]
struct Output {
    text: String,
    origin: Vec<usize>,
    left_out: usize,
}

impl Output {
    /// Adds a directive that comes from this line of the YAML.
    fn directive(&mut self, line: usize, name: &str, value: &str) {
        self.line(line, &format!("{name} {value}"));
    }

    fn comment(&mut self, text: &str) {
        // A line end or an escape sequence from the YAML must not end the comment.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.line(1, &format!("# {text}"));
    }

    /// Adds a comment for something that is not taken over.
    fn left_out(&mut self, line: usize, name: &str, why: &str) {
        self.left_out += 1;
        self.comment(&format!("{name} (line {line}): {why}"));
    }

    fn blank(&mut self) {
        self.line(1, "");
    }

    fn line(&mut self, origin: usize, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.origin.push(origin);
    }

    /// What our own reader has against it, said of the YAML's lines.
    fn check(&self) -> Vec<Problem> {
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

/// The value as one word of the flat file: in quotation marks where it needs them.
fn word(value: &str) -> String {
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
