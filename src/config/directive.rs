//! One row of a table of settings: what a directive is called, what it takes, and where the value goes.
//!
//! Nothing here knows whose settings they are: `T` is the struct that a table fills.

use super::values::{self, show_size, show_time};
use std::path::PathBuf;
use std::time::Duration;

/// One directive. The file's reader, the flags, the defaults and the help are all made from it.
pub struct Directive<T> {
    /// As it stands in the file.
    pub name: &'static str,
    /// The flag that sets it as well, if there is one.
    pub flag: Option<Flag>,
    /// The value it has when nobody sets it, as it would be written. `None`: unset.
    pub default: Option<&'static str>,
    /// What it does, for the help: whole sentences.
    pub about: &'static str,
    /// What it takes and where that goes.
    pub takes: Takes<T>,
    /// When a change in the file takes effect.
    pub applies: Applies,
}

/// A flag of the command line that sets a directive. Its long form is the directive's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its short form.
    pub letter: char,
    /// What stands for its value in the help: `FILE`. Empty if it has none: it says `yes`.
    pub value: &'static str,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At the next reload (SIGHUP).
    OnReload,
    /// Only when the program is started again.
    OnRestart,
}

/// What a directive takes, and the field it fills.
///
/// One accessor serves for writing and, on a copy, for reading: two could come to name different fields.
pub enum Takes<T> {
    /// A whole number of things.
    Count {
        /// Where it goes.
        field: fn(&mut T) -> &mut usize,
        /// What it may be.
        range: Range<usize>,
    },
    /// A number of bytes.
    Size {
        /// Where it goes.
        field: fn(&mut T) -> &mut usize,
        /// What it may be.
        range: Range<usize>,
    },
    /// A time.
    Time {
        /// Where it goes.
        field: fn(&mut T) -> &mut Duration,
        /// What it may be.
        range: Range<Duration>,
    },
    /// `yes` or `no`.
    YesNo {
        /// Where it goes.
        field: fn(&mut T) -> &mut bool,
    },
    /// A path.
    Path {
        /// Where it goes.
        field: fn(&mut T) -> &mut Option<PathBuf>,
    },
    /// One word with a meaning of its own.
    Word {
        /// What it may be, for the help: `wait, 404 or 503`.
        form: &'static str,
        /// Reads the word and sets the field, or says what is wrong.
        read: fn(&mut T, &str) -> Result<(), String>,
        /// The word as it would be written; empty if the field is unset.
        show: fn(&T) -> String,
    },
    /// A line that may be repeated, each time with one or more words.
    List {
        /// What it may be, for the help.
        form: &'static str,
        /// Takes out the default, before the first line of the file goes in.
        clear: fn(&mut T),
        /// Reads one line's words and adds to the list, or says what is wrong.
        add: fn(&mut T, &[&str]) -> Result<(), String>,
        /// The whole list, as it would be written.
        show: fn(&T) -> String,
        /// What is wrong between the lines when all are read: which of them, counted from 0, and what.
        check: fn(&T) -> Vec<(usize, String)>,
    },
}

/// The values a number may have.
pub struct Range<N> {
    /// What 0 does.
    pub zero: Zero,
    /// The least, other than 0.
    pub least: Bound<N>,
    /// The most; `None` if there is nothing that a large value would break.
    pub most: Option<Bound<N>>,
}

/// One end of a [`Range`].
pub struct Bound<N> {
    /// The last value that is taken.
    pub at: N,
    /// What would go wrong beyond it: the end of a sentence, after a colon.
    pub why: &'static str,
}

/// What 0 does where a number is expected.
pub enum Zero {
    /// Nothing special: it is a number like another, in the range or not.
    Plain,
    /// It is taken, and means this.
    Means(&'static str),
}

impl<N: Copy> Range<N> {
    /// From one value to another, each with the reason why not beyond it.
    pub const fn new(least: N, why_least: &'static str, most: N, why_most: &'static str) -> Self {
        Range {
            zero: Zero::Plain,
            least: Bound { at: least, why: why_least },
            most: Some(Bound { at: most, why: why_most }),
        }
    }

    /// From one value upwards.
    pub const fn at_least(least: N, why_least: &'static str) -> Self {
        Range { zero: Zero::Plain, least: Bound { at: least, why: why_least }, most: None }
    }

    /// The same range, and 0 with a meaning of its own.
    pub const fn or_zero(mut self, means: &'static str) -> Self {
        self.zero = Zero::Means(means);
        self
    }

    pub(super) fn check(&self, value: N, show: fn(N) -> String) -> Result<N, String>
    where
        N: Ord + Default,
    {
        if value == N::default() && matches!(self.zero, Zero::Means(_)) {
            return Ok(value);
        }
        if value < self.least.at {
            return Err(format!(
                "{} is less than {}: {}",
                show(value),
                show(self.least.at),
                self.least.why
            ));
        }
        match &self.most {
            Some(most) if value > most.at => {
                Err(format!("{} is more than {}: {}", show(value), show(most.at), most.why))
            }
            _ => Ok(value),
        }
    }

    fn form(&self, noun: &str, show: fn(N) -> String) -> String {
        let least = show(self.least.at);
        let span = match &self.most {
            Some(most) => format!("{noun}, {least} to {}", show(most.at)),
            None => format!("{noun}, {least} or more"),
        };
        match self.zero {
            Zero::Plain => span,
            Zero::Means(means) => format!("{span}, or 0 for {means}"),
        }
    }
}

impl<T> Directive<T> {
    /// May it stand on more than one line?
    pub fn repeats(&self) -> bool {
        matches!(self.takes, Takes::List { .. })
    }

    /// Takes out what a repeated directive holds; nothing for the others.
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

    /// Reads the words after the name and sets the field. On an error the field is as it was.
    ///
    /// # Errors
    /// One sentence, without the directive's name.
    pub fn set(&self, target: &mut T, words: &[&str]) -> Result<(), String> {
        if words.is_empty() {
            return Err("has no value".to_owned());
        }
        match &self.takes {
            Takes::Count { field, range } => {
                *field(target) = range.check(values::count(one(words)?)?, |n| n.to_string())?;
            }
            Takes::Size { field, range } => {
                *field(target) = range.check(values::size(one(words)?)?, show_size)?;
            }
            Takes::Time { field, range } => {
                *field(target) = range.check(values::time(one(words)?)?, show_time)?;
            }
            Takes::YesNo { field } => *field(target) = values::yes_no(one(words)?)?,
            Takes::Path { field } => *field(target) = Some(values::path(one(words)?)?),
            Takes::Word { read, .. } => read(target, one(words)?)?,
            Takes::List { add, .. } => add(target, words)?,
        }
        Ok(())
    }

    /// The value that `target` has, as it could be written in the file; empty if it is unset.
    pub fn show(&self, target: &T) -> String
    where
        T: Clone,
    {
        match &self.takes {
            Takes::Count { field, .. } => field(&mut target.clone()).to_string(),
            Takes::Size { field, .. } => show_size(*field(&mut target.clone())),
            Takes::Time { field, .. } => show_time(*field(&mut target.clone())),
            Takes::YesNo { field } => match *field(&mut target.clone()) {
                true => "yes".to_owned(),
                false => "no".to_owned(),
            },
            Takes::Path { field } => field(&mut target.clone())
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
            Takes::Word { show, .. } | Takes::List { show, .. } => show(target),
        }
    }

    /// What it takes, in words: `a time, 1ms to 1d`.
    pub fn form(&self) -> String {
        match &self.takes {
            Takes::Count { range, .. } => range.form("a number", |n| n.to_string()),
            Takes::Size { range, .. } => range.form("a size in bytes", show_size),
            Takes::Time { range, .. } => range.form("a time", show_time),
            Takes::YesNo { .. } => "yes or no".to_owned(),
            Takes::Path { .. } => "a path".to_owned(),
            Takes::Word { form, .. } | Takes::List { form, .. } => (*form).to_owned(),
        }
    }

    /// What it takes, its default, and whether a change needs a restart, in one line. It ends the help of every
    /// directive, and the shipped file is held to it word for word.
    pub fn summary(&self) -> String {
        let form = self.form();
        let default = self
            .default
            .map_or_else(|| "unset by default".to_owned(), |value| format!("default {value}"));
        match self.applies {
            Applies::OnReload => format!("Takes {form}; {default}."),
            Applies::OnRestart => format!("Takes {form}; {default}; a change needs a restart."),
        }
    }
}

fn one<'w>(words: &[&'w str]) -> Result<&'w str, String> {
    match words {
        [word] => Ok(word),
        _ => Err(format!("takes one value, not {}", words.len())),
    }
}

/// Writes the default of every directive of the table onto `blank`.
///
/// # Panics
/// If the table's own default is not one that the table takes: a mistake in the program, not in any file.
pub fn defaults<T>(table: &[Directive<T>], mut blank: T) -> T {
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

    fn pears(range: Range<usize>) -> Directive<Fruit> {
        Directive {
            name: "pears",
            flag: None,
            default: Some("3"),
            about: "How many pears.",
            takes: Takes::Count { field: |f| &mut f.pears, range },
            applies: Applies::OnReload,
        }
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_the_reason_and_changes_nothing() {
        let row = pears(Range::new(2, "one is no fruit bowl", 9, "the bowl is full"));
        let mut fruit = Fruit::default();
        assert_eq!(row.set(&mut fruit, &["9"]), Ok(()));
        assert_eq!(
            row.set(&mut fruit, &["10"]).unwrap_err(),
            "10 is more than 9: the bowl is full"
        );
        assert_eq!(
            row.set(&mut fruit, &["0"]).unwrap_err(),
            "0 is less than 2: one is no fruit bowl"
        );
        assert_eq!(fruit.pears, 9);
    }

    #[test]
    fn zero_may_have_a_meaning_below_the_range() {
        let row = pears(Range::new(2, "no", 9, "no").or_zero("any number"));
        let mut fruit = Fruit { pears: 5, ..Fruit::default() };
        assert_eq!(row.set(&mut fruit, &["0"]), Ok(()));
        assert_eq!(fruit.pears, 0);
        assert_eq!(row.set(&mut fruit, &["1"]).unwrap_err(), "1 is less than 2: no");
        assert_eq!(row.summary(), "Takes a number, 2 to 9, or 0 for any number; default 3.");
    }

    #[test]
    fn a_directive_takes_exactly_one_word() {
        let row = pears(Range::at_least(0, "cannot be"));
        let mut fruit = Fruit::default();
        assert_eq!(row.set(&mut fruit, &[]).unwrap_err(), "has no value");
        assert_eq!(row.set(&mut fruit, &["1", "2"]).unwrap_err(), "takes one value, not 2");
    }

    #[test]
    fn defaults_come_from_the_table() {
        let table = [
            pears(Range::at_least(0, "cannot be")),
            Directive {
                name: "ripe",
                flag: None,
                default: Some("2d"),
                about: "When to eat them.",
                takes: Takes::Time {
                    field: |f| &mut f.ripe,
                    range: Range::at_least(Duration::ZERO, "cannot be"),
                },
                applies: Applies::OnRestart,
            },
        ];
        let fruit = defaults(&table, Fruit::default());
        assert_eq!(fruit.pears, 3);
        assert_eq!(table[1].show(&fruit), "2d");
        assert_eq!(
            table[1].summary(),
            "Takes a time, 0 or more; default 2d; a change needs a restart."
        );
    }
}
