//! Converts settings of Swiftiply into settings of this proxy (`doc/swiftiply.md`).
//!
//! - `yaml`: the YAML file as a tree
//! - `global`: the settings of the whole
//! - `site`: the entries under `map:`; `servers`: those of a traditional one; `files`: what it
//!   serves by itself
//! - `other`: settings without a counterpart, and why
//! - `output`: the flat file. It is parsed by the reader that will read it later, so that errors
//!   are reported with their line of the YAML.

#[cfg(test)]
mod corpus;
mod files;
mod global;
mod other;
mod output;
mod servers;
mod site;
#[cfg(test)]
mod tests;
mod yaml;

pub use output::Problem;

use output::Output;

/// The result of an import.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported {
    /// The flat file. It contains the keys of the YAML file.
    pub text: String,
    /// How many settings became a comment that says why.
    pub left_out: usize,
}

/// Converts a YAML file of Swiftiply. `file` is its name, for a comment.
///
/// # Errors
/// Everything that is wrong, by line; a single problem if it is not YAML.
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
