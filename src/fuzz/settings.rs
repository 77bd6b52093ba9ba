//! A settings file: every complaint names its line, and what was understood can be written down.

use std::path::Path;

use super::input::Input;
use crate::config::{Problem, Settings, TABLE, read};

/// A key in a seed. No complaint may show it.
const KEY: &str = "S3cr3tK3y";

/// A file's content.
pub(super) fn run(bytes: &[u8]) {
    let bytes = Input::new(bytes).rest();
    let mut settings = Settings::default();
    let problems = read(TABLE, Path::new("f"), bytes, &mut settings);
    if problems.is_empty() {
        return written_and_read(&settings);
    }
    let lines = memchr::memchr_iter(b'\n', bytes).count() + 1;
    let mut last = 0;
    for problem in &problems {
        let Problem::Line { line, .. } = problem else { panic!("no line: {problem}") };
        assert!((last..=lines).contains(line) && *line > 0, "line {line}: {problem}");
        last = *line;
        let shown = problem.to_string();
        assert!(!shown.contains('\n'), "{shown}");
        // As the value of a site's `key=`; elsewhere it would be a name.
        let site = |line: &[u8]| line.starts_with(b"site ") && has(line, &format!(" key={KEY} "));
        let is_key = bytes.split(|&b| b == b'\n').any(site);
        let once = memchr::memmem::find_iter(bytes, KEY).count() == 1;
        assert!(!(is_key && once && shown.contains(KEY)), "{shown}");
    }
}

fn has(line: &[u8], text: &str) -> bool {
    memchr::memmem::find(line, text.as_bytes()).is_some()
}

/// Each directive's value, as it is shown, is read again as the same value. Sites are left out:
/// they do not show their keys.
fn written_and_read(settings: &Settings) {
    assert!(!format!("{settings:?}").contains(&format!("key: {KEY}")));
    let mut text = String::new();
    for row in TABLE.iter().filter(|row| row.name != "site") {
        let shown = row.show(settings);
        if shown.is_empty() {
            continue;
        }
        if row.has_words() {
            text.push_str(&format!("{} {shown}\n", row.name));
        } else if row.repeats() {
            shown.split(", ").for_each(|item| text.push_str(&format!("{} {item}\n", row.name)));
        } else {
            let escaped = shown.replace('\\', "\\\\").replace('"', "\\\"");
            text.push_str(&format!("{} \"{escaped}\"\n", row.name));
        }
    }
    let mut again = Settings::default();
    let problems = read(TABLE, Path::new("again"), text.as_bytes(), &mut again);
    let sites = |problem: &&Problem| !problem.to_string().contains("site");
    let problem = problems.iter().find(sites);
    assert!(problem.is_none(), "{}: {text}", problem.unwrap());
}
