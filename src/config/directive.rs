//! One row of a table of settings: what a directive is called, what it takes, and where the value
//! goes.
//!
//! Nothing here knows whose settings they are: `T` is the struct that a table fills.

use super::range::Range;
use super::values::{self, show_size, show_time, show_yes_no};
use std::path::PathBuf;
use std::time::Duration;

/// One directive, from which the file's reader, the flags, the defaults and the help are made.
pub(crate) struct Directive<T> {
    pub name: &'static str,
    /// What it does, for the help: whole sentences.
    pub about: &'static str,
    pub takes: Takes<T>,
    /// As it would be written; `None` for unset.
    pub default: Option<&'static str>,
    pub flag: Option<Flag>,
    /// A change takes effect at the next start, and not at a reload.
    pub needs_restart: bool,
}

/// The short form of a flag that sets a directive; the long form is the directive's name.
#[derive(Clone, Copy)]
pub(crate) struct Flag {
    pub letter: char,
    /// The placeholder for its value in the help. If empty, the flag alone means `yes`.
    pub value: &'static str,
}

/// What a directive takes, and the field it fills.
///
/// One accessor serves for writing and, on a copy, for reading, so that both use the same field.
pub(crate) enum Takes<T> {
    Count(fn(&mut T) -> &mut usize, Range<usize>),
    /// In bytes.
    Size(fn(&mut T) -> &mut usize, Range<usize>),
    Time(fn(&mut T) -> &mut Duration, Range<Duration>),
    YesNo(fn(&mut T) -> &mut bool),
    Path(fn(&mut T) -> &mut Option<PathBuf>),
    /// One word that is kept as text.
    Text {
        /// What it may be, for the help.
        form: &'static str,
        field: fn(&mut T) -> &mut Option<String>,
        /// The text to keep, or what is wrong.
        read: fn(&str) -> Result<String, String>,
    },
    /// One word with a syntax of its own.
    Word {
        /// What it may be, for the help: `wait, 404 or 503`.
        form: &'static str,
        /// Sets the field, or says what is wrong.
        read: fn(&mut T, &str) -> Result<(), String>,
        /// As it would be written; empty if unset.
        show: fn(&T) -> String,
    },
    /// One or more words with a syntax of their own.
    Words {
        /// What they may be, for the help.
        form: &'static str,
        /// Sets the field, or says what is wrong.
        read: fn(&mut T, &[&str]) -> Result<(), String>,
        /// As it would be written; empty if unset.
        show: fn(&T) -> String,
    },
    /// A line that may be repeated, each time with one or more words.
    List {
        /// What it may be, for the help.
        form: &'static str,
        /// Removes the default, before the first line of the file is added.
        clear: fn(&mut T),
        /// Adds one line's words, or says what is wrong.
        add: fn(&mut T, &[&str]) -> Result<(), String>,
        /// The whole list, as it would be written.
        show: fn(&T) -> String,
        /// What is wrong between the lines: which of them, counted from 0, and what.
        check: fn(&T) -> Vec<(usize, String)>,
    },
}

impl<T> Directive<T> {
    /// A directive that is unset by default, has no flag and takes effect at a reload.
    pub const fn new(name: &'static str, about: &'static str, takes: Takes<T>) -> Self {
        Directive { name, about, takes, default: None, flag: None, needs_restart: false }
    }

    pub const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    pub const fn flag(mut self, letter: char, value: &'static str) -> Self {
        self.flag = Some(Flag { letter, value });
        self
    }

    pub const fn needs_restart(mut self) -> Self {
        self.needs_restart = true;
        self
    }

    pub fn repeats(&self) -> bool {
        matches!(self.takes, Takes::List { .. })
    }

    /// Whether its value is several words, which are shown as they would be written.
    #[cfg(any(test, fuzzing))]
    pub fn has_words(&self) -> bool {
        matches!(self.takes, Takes::Words { .. })
    }

    /// Empties a list; does nothing to other directives.
    pub fn clear(&self, target: &mut T) {
        if let Takes::List { clear, .. } = self.takes {
            clear(target);
        }
    }

    /// What is wrong between the lines of a list: which of them, counted from 0, and what.
    pub fn check(&self, target: &T) -> Vec<(usize, String)> {
        match self.takes {
            Takes::List { check, .. } => check(target),
            _ => Vec::new(),
        }
    }

    /// Reads the words after the name. On an error the field is as it was.
    ///
    /// # Errors
    /// One sentence, without the directive's name.
    pub fn set(&self, target: &mut T, words: &[&str]) -> Result<(), String> {
        let one = || match words {
            [] => Err("has no value".to_owned()),
            [word] => Ok(*word),
            _ => Err(format!("takes one value, not {}", words.len())),
        };
        match &self.takes {
            Takes::Count(field, range) => {
                *field(target) = range.check(values::count(one()?)?, |n| n.to_string())?;
            }
            Takes::Size(field, range) => {
                *field(target) = range.check(values::size(one()?)?, show_size)?;
            }
            Takes::Time(field, range) => {
                *field(target) = range.check(values::time(one()?)?, show_time)?;
            }
            Takes::YesNo(field) => *field(target) = values::yes_no(one()?)?,
            Takes::Path(field) => *field(target) = Some(values::path(one()?)?),
            Takes::Text { field, read, .. } => *field(target) = Some(read(one()?)?),
            Takes::Word { read, .. } => read(target, one()?)?,
            Takes::Words { .. } | Takes::List { .. } if words.is_empty() => {
                return Err("has no value".to_owned());
            }
            Takes::Words { read, .. } => read(target, words)?,
            Takes::List { add, .. } => add(target, words)?,
        }
        Ok(())
    }

    /// The value in `target` as it could be written in the file; empty if it is unset.
    pub fn show(&self, target: &T) -> String
    where
        T: Clone,
    {
        match &self.takes {
            Takes::Count(field, _) => field(&mut target.clone()).to_string(),
            Takes::Size(field, _) => show_size(*field(&mut target.clone())),
            Takes::Time(field, _) => show_time(*field(&mut target.clone())),
            Takes::YesNo(field) => show_yes_no(*field(&mut target.clone())),
            Takes::Path(field) => field(&mut target.clone())
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
            Takes::Text { field, .. } => field(&mut target.clone()).clone().unwrap_or_default(),
            Takes::Word { show, .. } | Takes::Words { show, .. } | Takes::List { show, .. } => {
                show(target)
            }
        }
    }

    /// What it takes, its default, and whether a change needs a restart, in one line. It ends the
    /// help of every directive, and the shipped file must repeat it word for word.
    pub fn summary(&self) -> String {
        let form = match &self.takes {
            Takes::Count(_, range) => range.form("a number", |n| n.to_string()),
            Takes::Size(_, range) => range.form("a size in bytes", show_size),
            Takes::Time(_, range) => range.form("a time", show_time),
            Takes::YesNo(_) => "yes or no".to_owned(),
            Takes::Path(_) => "a path".to_owned(),
            Takes::Text { form, .. }
            | Takes::Word { form, .. }
            | Takes::Words { form, .. }
            | Takes::List { form, .. } => (*form).to_owned(),
        };
        let default = self
            .default
            .map_or_else(|| "unset by default".to_owned(), |value| format!("default {value}"));
        let restart = if self.needs_restart { "; a change needs a restart" } else { "" };
        format!("Takes {form}; {default}{restart}.")
    }
}

/// Writes the default of every directive onto `blank`.
///
/// # Panics
/// If the table refuses a default of its own, which is a bug.
pub(crate) fn defaults<T>(table: &[Directive<T>], mut blank: T) -> T {
    for directive in table {
        if let Some(value) = directive.default {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            if let Err(what) = directive.set(&mut blank, &words) {
                panic!("the default of {}: {what}", directive.name);
            }
        }
    }
    blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Fruit {
        pears: usize,
        ripe: Duration,
    }

    const PEARS: Directive<Fruit> = Directive::<Fruit>::new(
        "pears",
        "How many pears.",
        Takes::Count(|f| &mut f.pears, Range::new(2, 9)),
    )
    .default("3");

    #[test]
    fn refused_value_changes_nothing() {
        let mut fruit = Fruit::default();
        assert_eq!(PEARS.set(&mut fruit, &["9"]), Ok(()));
        assert_eq!(PEARS.set(&mut fruit, &["10"]).unwrap_err(), "10 is more than 9");
        assert_eq!(fruit.pears, 9);
    }

    #[test]
    fn single_value_is_exactly_one_word() {
        let mut fruit = Fruit::default();
        assert_eq!(PEARS.set(&mut fruit, &[]).unwrap_err(), "has no value");
        assert_eq!(PEARS.set(&mut fruit, &["1", "2"]).unwrap_err(), "takes one value, not 2");
    }

    #[test]
    fn defaults_come_from_the_table() {
        let ripe = Takes::Time(|f: &mut Fruit| &mut f.ripe, Range::at_least(Duration::ZERO));
        let ripe = Directive::new("ripe", "When to eat them.", ripe).default("2d").needs_restart();
        let table = [PEARS, ripe];
        let fruit = defaults(&table, Fruit::default());
        assert_eq!(fruit.pears, 3);
        assert_eq!(table[0].summary(), "Takes a number, 2 to 9; default 3.");
        assert_eq!(table[1].show(&fruit), "2d");
        assert_eq!(
            table[1].summary(),
            "Takes a time, 0 or more; default 2d; a change needs a restart."
        );
    }
}
