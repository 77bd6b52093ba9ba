//! The flat file: one directive a line, `name value [option ...]`.
//!
//! It works with any table. It does not stop at the first error, so that an operator sees all of
//! them at once.

use super::directive::Directive;
use super::tokens::split;
use super::values::quoted;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest file, in bytes. The shipped one is a fortieth of it. A log or device that is named by
/// mistake must not fill the memory.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// Longest name that is compared with the known ones for a hint, in bytes. No directive's is nearly
/// as long, and the comparison takes the product of both lengths.
const MAX_HINTED: usize = 40;

/// Something wrong with the settings. It displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The file cannot be read.
    Unreadable { file: PathBuf, reason: String },
    /// A line, counted from 1.
    Line { file: PathBuf, line: usize, what: String },
    /// A flag, or the combination of file and flags.
    Flag { what: String },
}

impl Problem {
    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Problem {
        Problem::Unreadable { file: file.to_owned(), reason: error.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unreadable { file, reason } => {
                write!(f, "cannot read {}: {reason}", file.display())
            }
            Problem::Line { file, line, what } => write!(f, "{}:{line}: {what}", file.display()),
            Problem::Flag { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for Problem {}

/// Sets directives by name, from one source (a file, or the flags), and remembers which are set.
pub(super) struct Setter<'s, T: 'static> {
    table: &'static [Directive<T>],
    target: &'s mut T,
    /// For each row of the table, the line that set it first.
    first: Vec<Option<usize>>,
    /// For each row, the line of each item of its list; `None` after an error.
    items: Vec<Option<Vec<usize>>>,
}

impl<'s, T> Setter<'s, T> {
    pub fn new(table: &'static [Directive<T>], target: &'s mut T) -> Self {
        let first = vec![None; table.len()];
        let items = vec![Some(Vec::new()); table.len()];
        Setter { table, target, first, items }
    }

    /// Sets one directive. The first item of a list replaces what the list held before; any other
    /// directive may be set only once.
    ///
    /// # Errors
    /// One sentence that begins with the directive's name.
    pub fn set(&mut self, name: &str, words: &[&str], line: usize) -> Result<(), String> {
        let Some(row) = self.table.iter().position(|row| row.name == name) else {
            return Err(unknown(name, self.table));
        };
        let directive = &self.table[row];
        match self.first[row] {
            Some(first) if !directive.repeats() => {
                return Err(format!("{name} is already set on line {first}"));
            }
            Some(_) => {}
            None => {
                self.first[row] = Some(line);
                directive.clear(self.target);
            }
        }
        let set = directive.set(self.target, words).map_err(|what| {
            let colon = if words.is_empty() { "" } else { ":" };
            format!("{name}{colon} {what}")
        });
        match (&set, &mut self.items[row]) {
            (Ok(()), Some(lines)) => lines.push(line),
            _ => self.items[row] = None,
        }
        set
    }

    /// What is wrong between the lines of a list, each with its line. Lists with an error in a line
    /// are not checked, because another line may refer to that one.
    fn between_lines(&self) -> Vec<(usize, String)> {
        let mut wrong = Vec::new();
        for (directive, lines) in self.table.iter().zip(&self.items) {
            let Some(lines) = lines else { continue };
            for (item, what) in directive.check(self.target) {
                if let Some(line) = lines.get(item) {
                    wrong.push((*line, format!("{}: {what}", directive.name)));
                }
            }
        }
        wrong
    }
}

/// Reads the file into `target`, and returns everything that is wrong, in the file's order. After
/// an error `target` is only partly set.
pub(crate) fn read_file<T>(
    table: &'static [Directive<T>],
    file: &Path,
    target: &mut T,
) -> Vec<Problem> {
    match read_bytes(file) {
        Ok(bytes) => read(table, file, &bytes, target),
        Err(error) => vec![Problem::unreadable(file, &error)],
    }
}

/// What a file holds.
///
/// # Errors
/// As open(2) and read(2), or it is too large.
pub(super) fn read_bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} KiB", MAX_FILE >> 10)));
    }
    Ok(bytes)
}

/// Reads a file's content. `file` is its name, for the messages.
pub(crate) fn read<T>(
    table: &'static [Directive<T>],
    file: &Path,
    bytes: &[u8],
    target: &mut T,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut setter = Setter::new(table, target);
    // Some editors put a byte order mark before the first line.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        if let Err(what) = read_line(&mut setter, bytes, line) {
            problems.push((line, what));
        }
    }
    problems.extend(setter.between_lines());
    problems.sort_by_key(|(line, _)| *line);
    problems
        .into_iter()
        .map(|(line, what)| Problem::Line { file: file.to_owned(), line, what })
        .collect()
}

fn read_line<T>(setter: &mut Setter<'_, T>, bytes: &[u8], line: usize) -> Result<(), String> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.contains(&0) {
        return Err("contains a NUL byte: this is not a text file, or it is UTF-16".to_owned());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let column = error.valid_up_to() + 1;
        format!("byte {column} of the line is not UTF-8")
    })?;
    if let Some(control) = text.chars().find(|c| c.is_control() && *c != '\t') {
        return Err(format!("contains the control character {control:?}"));
    }
    let words = split(text)?;
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_first() {
        Some((name, words)) => setter.set(name, words, line),
        None => Ok(()),
    }
}

fn unknown<T>(name: &str, table: &[Directive<T>]) -> String {
    let hint = nearest(name, table.iter().map(|row| row.name));
    match hint {
        Some(near) => format!("there is no directive {}; did you mean {near}?", quoted(name)),
        None => format!("there is no directive {}", quoted(name)),
    }
}

/// The known name that was probably meant. Capitals and underscores are ignored; one in three
/// letters may be wrong.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > MAX_HINTED {
        return None;
    }
    let plain = name.to_ascii_lowercase().replace('_', "-");
    known
        .map(|candidate| (distance(plain.as_bytes(), candidate.as_bytes()), candidate))
        .min_by_key(|(edits, _)| *edits)
        .filter(|(edits, candidate)| *edits <= candidate.len() / 3)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance: insertions, deletions and changes of letters.
fn distance(from: &[u8], to: &[u8]) -> usize {
    // `row[j]`: from the letters of `from` so far to the first `j` of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::super::directive::{Takes, defaults};
    use super::super::range::Range;
    use super::*;
    use std::time::Duration;

    /// The settings of another program.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Garden {
        gate: Option<PathBuf>,
        rest: Duration,
        beds: Vec<String>,
    }

    static GARDEN: &[Directive<Garden>] = &[
        Directive::<Garden>::new("gate", "Where the gate is.", Takes::Path(|g| &mut g.gate)),
        Directive::<Garden>::new(
            "rest-time",
            "How long to rest.",
            Takes::Time(|g| &mut g.rest, Range::at_least(Duration::from_secs(1))),
        )
        .default("1s"),
        Directive::<Garden>::new(
            "bed",
            "What grows.",
            Takes::List {
                form: "flowers",
                clear: |g| g.beds.clear(),
                add: |g, words| {
                    g.beds.push(words.join("+"));
                    Ok(())
                },
                show: |g| g.beds.join(" "),
                check: |g| {
                    let weeds = g.beds.iter().enumerate().filter(|(_, bed)| *bed == "weeds");
                    weeds.map(|(bed, _)| (bed, "weeds grow by themselves".to_owned())).collect()
                },
            },
        )
        .default("roses"),
    ];

    fn garden(bytes: &[u8]) -> (Garden, Vec<String>) {
        let mut garden = defaults(GARDEN, Garden::default());
        let problems = read(GARDEN, Path::new("garden.conf"), bytes, &mut garden);
        (garden, problems.iter().map(Problem::to_string).collect())
    }

    #[track_caller]
    fn good(bytes: &[u8]) -> Garden {
        let (garden, problems) = garden(bytes);
        assert_eq!(problems, Vec::<String>::new());
        garden
    }

    #[track_caller]
    fn wrong(bytes: &[u8], expected: &[&str]) {
        assert_eq!(garden(bytes).1, expected);
    }

    #[test]
    fn an_empty_file_leaves_the_defaults() {
        let expected =
            Garden { gate: None, rest: Duration::from_secs(1), beds: vec!["roses".to_owned()] };
        for bytes in [&b""[..], b"\n", b"\r\n\r\n", b" \t\n", b"# gate /x\n  # y", b"\xef\xbb\xbf#"]
        {
            assert_eq!(good(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn line_ends_tabs_comments_and_missing_newline_are_accepted() {
        let expected = Garden {
            gate: Some(PathBuf::from("/a#b")),
            rest: Duration::from_secs(9),
            beds: vec!["lilies+ferns".to_owned(), "moss".to_owned()],
        };
        for bytes in [
            &b"gate /a#b\nrest-time 9s\nbed lilies ferns\nbed moss\n"[..],
            b"gate /a#b\r\nrest-time 9s\r\nbed lilies ferns\r\nbed moss",
            b"\xef\xbb\xbf\tgate \t /a#b # in the wall\n\nrest-time 9s #\nbed lilies ferns #x\nbed moss   ",
        ] {
            assert_eq!(good(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn every_error_is_reported_with_its_line() {
        wrong(
            b"gate\nrest-time soon\n# fine\nrest_time 5s\nrest-time 0\nfence 3\n",
            &[
                "garden.conf:1: gate has no value",
                "garden.conf:2: rest-time: \"soon\" is not a time; write a whole number and ms, s, m, h or d, such as 500ms or 60s",
                "garden.conf:4: there is no directive \"rest_time\"; did you mean rest-time?",
                "garden.conf:5: rest-time is already set on line 2",
                "garden.conf:6: there is no directive \"fence\"",
            ],
        );
        wrong(
            b"rest-time 0\ngate /a /b\n",
            &[
                "garden.conf:1: rest-time: 0 is less than 1s",
                "garden.conf:2: gate: takes one value, not 2",
            ],
        );
    }

    #[test]
    fn only_a_list_may_be_repeated() {
        wrong(
            b"bed a\ngate /a\nbed b\ngate /a\ngate /b\n",
            &[
                "garden.conf:4: gate is already set on line 2",
                "garden.conf:5: gate is already set on line 2",
            ],
        );
    }

    #[test]
    fn conflicts_between_lines_have_their_line() {
        wrong(
            b"bed a\n\nbed weeds\nrest-time 0\n",
            &[
                "garden.conf:3: bed: weeds grow by themselves",
                "garden.conf:4: rest-time: 0 is less than 1s",
            ],
        );
        wrong(b"bed weeds\nbed\n", &["garden.conf:2: bed has no value"]);
    }

    #[test]
    fn binary_lines_are_refused() {
        wrong(
            b"gate /a\0\nrest-time 2s\nbed \xff\nbed a\x1bb\nbed a\rbed b\n",
            &[
                "garden.conf:1: contains a NUL byte: this is not a text file, or it is UTF-16",
                "garden.conf:3: byte 5 of the line is not UTF-8",
                "garden.conf:4: contains the control character '\\u{1b}'",
                "garden.conf:5: contains the control character '\\r'",
            ],
        );
    }

    #[test]
    fn misspelt_name_gets_a_hint() {
        let near = |name| nearest(name, GARDEN.iter().map(|row| row.name));
        assert_eq!(near("rest-tme"), Some("rest-time"));
        assert_eq!(near("Rest_Time"), Some("rest-time"));
        assert_eq!(near("rest-itme"), Some("rest-time"));
        assert_eq!(near("bad"), Some("bed"));
        assert_eq!(near("gates"), Some("gate"));
        assert_eq!(near("path"), None);
        assert_eq!(near("x"), None);
        assert_eq!(near(&"rest-time".repeat(9)), None);
    }

    #[test]
    fn a_long_or_hostile_name_is_repeated_short_and_escaped() {
        let line = "é".repeat(400);
        wrong(
            line.as_bytes(),
            &[&format!("garden.conf:1: there is no directive \"{}\"...", "é".repeat(60))],
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let mut target = Garden::default();
        let problems = read_file(GARDEN, Path::new("/nonexistent/garden.conf"), &mut target);
        assert_eq!(
            problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
            ["cannot read /nonexistent/garden.conf: No such file or directory (os error 2)"]
        );
        // It has no end: what is too large is noticed without reading all of it.
        let problems = read_file(GARDEN, Path::new("/dev/zero"), &mut target);
        assert_eq!(
            problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
            ["cannot read /dev/zero: it is larger than 1024 KiB"]
        );
    }
}
