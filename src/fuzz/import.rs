//! A YAML file of Swiftiply: what is made of it is a settings file.

use std::path::Path;

use super::input::Input;
use crate::config::{Settings, TABLE, read};
use crate::import::swiftiply;

/// A file's content.
pub(super) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(Input::new(bytes).rest()) else { return };
    match swiftiply(text, "f") {
        Ok(imported) => {
            let mut settings = Settings::default();
            let bytes = imported.text.as_bytes();
            let problems = read(TABLE, Path::new("made"), bytes, &mut settings);
            assert!(problems.is_empty(), "{problems:?}: {}", imported.text);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            // A parser of YAML also ends lines at CR and at the separators of Unicode.
            let ends = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
            let lines = text.chars().filter(|c| ends(*c)).count() + 1;
            for problem in problems {
                assert!((1..=lines + 1).contains(&problem.line), "{problem}");
                assert!(!problem.what.is_empty() && !problem.what.contains('\n'), "{problem}");
            }
        }
    }
}
