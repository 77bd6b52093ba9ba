//! Tests that hold `conf/cloudbridge.conf` against the table.

use super::reader::read;
use super::settings::Settings;
use super::table::TABLE;
use std::path::Path;

const SHIPPED: &str = include_str!("../../conf/cloudbridge.conf");

/// Fewest words in a directive's paragraph: the two or three sentences that say why one would
/// change it.
const PARAGRAPH: usize = 25;

/// The line of the shipped file that shows the directive, and the comment right above it.
fn shown(name: &str) -> Option<(&'static str, Vec<&'static str>)> {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    let at = lines.iter().position(|line| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let mut words = line.split(' ');
        // An example is the name and its value, and an option at most; prose may begin with the
        // same word.
        words.next() == Some(name) && (1..=2).contains(&words.count())
    })?;
    let above = lines[..at].iter().rev();
    let mut comment: Vec<&str> = above
        .take_while(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    comment.reverse();
    Some((lines[at], comment))
}

#[test]
fn the_shipped_file_is_exactly_the_defaults() {
    let mut settings = Settings::default();
    settings.listen.clear();
    let problems =
        read(TABLE, Path::new("conf/cloudbridge.conf"), SHIPPED.as_bytes(), &mut settings);
    assert_eq!(problems, []);
    assert_eq!(settings, Settings::default());
}

#[test]
fn the_shipped_file_shows_every_directive_with_its_default() {
    for row in TABLE {
        let (line, _) = shown(row.name).unwrap_or_else(|| panic!("{} is missing", row.name));
        match row.default {
            Some(default) => assert_eq!(line, format!("{} {default}", row.name)),
            None => assert!(line.starts_with("# "), "{line}: unset, yet not commented out"),
        }
    }
}

#[test]
fn the_shipped_file_says_why_and_in_which_units() {
    for row in TABLE {
        let (_, comment) = shown(row.name).unwrap_or_else(|| panic!("{} is missing", row.name));
        let text = comment.join(" ");
        assert!(text.contains(&row.summary()), "{}: says not {:?}", row.name, row.summary());
        let words = text.replace(&row.summary(), "").split(' ').count();
        assert!(words >= PARAGRAPH, "{}: {words} words", row.name);
    }
}

#[test]
fn commented_examples_of_the_shipped_file_are_valid() {
    let examples: String = TABLE
        .iter()
        .filter(|row| row.default.is_none())
        .filter_map(|row| shown(row.name))
        .map(|(line, _)| format!("{}\n", line.trim_start_matches("# ")))
        .collect();
    let mut settings = Settings::default();
    let problems = read(TABLE, Path::new("f"), examples.as_bytes(), &mut settings);
    assert_eq!(problems, []);
    for row in TABLE.iter().filter(|row| row.default.is_none()) {
        assert_ne!(row.show(&settings), "", "{}", row.name);
    }
}
