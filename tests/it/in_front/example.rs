//! A file in `conf/` as it is shipped, with the addresses and paths of a test.

use std::path::Path;

/// The text of an example file.
#[derive(Clone)]
pub struct Example(String);

impl Example {
    #[track_caller]
    pub fn read(name: &str) -> Example {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name);
        Example(std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")))
    }

    /// The settings of the cloudbridge that goes with it, which stand in the comment at its top.
    #[track_caller]
    pub fn settings(&self) -> Example {
        let comment = self.0.lines().take_while(|line| line.starts_with('#'));
        let lines: Vec<&str> = comment.filter_map(|line| line.strip_prefix("#     ")).collect();
        assert!(!lines.is_empty(), "no settings in the comment at the top");
        Example(lines.join("\n"))
    }

    /// Puts `new` in the place of `old`, which must be there.
    #[must_use]
    #[track_caller]
    pub fn with(self, old: &str, new: impl ToString) -> Example {
        let (comment, rest) = self.split();
        assert!(rest.contains(old), "no {old:?} in {rest}");
        Example(comment + &rest.replace(old, &new.to_string()))
    }

    /// Puts the pairs of `old` and `new` in each line that has `within`.
    #[must_use]
    #[track_caller]
    pub fn with_in(self, within: &str, pairs: &[(&str, String)]) -> Example {
        let (comment, rest) = self.split();
        assert!(rest.contains(within), "no {within:?} in {rest}");
        let line = |line: &str| match line.contains(within) {
            true => pairs.iter().fold(line.to_owned(), |line, (old, new)| {
                assert!(line.contains(old), "no {old:?} in {line}");
                line.replace(old, new)
            }),
            false => line.to_owned(),
        };
        Example(comment + &rest.lines().map(|l| line(l) + "\n").collect::<String>())
    }

    /// Takes a line out, which must be there.
    #[must_use]
    #[track_caller]
    pub fn without_line(self, line: &str) -> Example {
        let is_line = |have: &&str| have.trim() == line;
        assert!(self.0.lines().any(|have| is_line(&have)), "no line {line:?} in {}", self.0);
        Example(self.0.lines().filter(|have| !is_line(have)).map(|l| format!("{l}\n")).collect())
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The comment at the top, in which nothing is replaced, and what follows it.
    fn split(&self) -> (String, String) {
        let length: usize =
            self.0.split_inclusive('\n').take_while(|l| l.starts_with('#')).map(str::len).sum();
        let (comment, rest) = self.0.split_at(length);
        (comment.to_owned(), rest.to_owned())
    }
}
