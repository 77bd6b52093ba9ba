//! A change of a site that the operator asks for while the proxy runs, and what came of it.

use std::hash::{BuildHasher, RandomState};

/// What is to change.
#[derive(Clone, PartialEq, Eq)]
pub struct SiteChange {
    /// The name of the site, which is its first.
    pub(super) name: String,
    /// What follows `site` in the settings, its key included; `None` to remove the site.
    pub(super) line: Option<String>,
    pub(super) condition: Condition,
}

/// Without the line, which may have a key.
impl std::fmt::Debug for SiteChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.line.is_some() { "put" } else { "delete" };
        write!(f, "{verb} {:?}", self.name)
    }
}

/// What must hold for it, by RFC 9110, sections 13.1.1 and 13.1.2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// `If-Match`: the site is one of these, or there is one if this is `*`.
    pub(super) is_one_of: Option<String>,
    /// `If-None-Match: *`: there is no such site.
    pub(super) is_none: bool,
}

impl Condition {
    /// Whether it holds for a site with this tag, or for none.
    pub(super) fn holds(&self, tag: Option<&str>) -> bool {
        let is_it = |tags: &String| match tag {
            None => false,
            Some(tag) => tags.split(',').map(str::trim).any(|other| other == "*" || other == tag),
        };
        self.is_one_of.as_ref().is_none_or(is_it) && !(self.is_none && tag.is_some())
    }
}

/// What came of a change.
pub(super) struct SiteAnswer {
    pub(super) status: u16,
    /// One sentence, or a line for each.
    pub(super) text: String,
    /// Of the site as it is now.
    pub(super) tag: Option<String>,
}

impl SiteAnswer {
    pub(super) fn new(status: u16, text: impl Into<String>) -> SiteAnswer {
        SiteAnswer { status, text: text.into(), tag: None }
    }
}

/// The tags of sites (RFC 9110, section 8.8.3): strong, and good until the process ends. They tell
/// nothing of the keys of sites.
#[derive(Default)]
pub(super) struct Tags(RandomState);

impl Tags {
    /// That of a site which is written so.
    pub(super) fn of(&self, line: &str) -> String {
        format!("\"{:016x}\"", self.0.hash_one(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_or_not() {
        let tags = Tags::default();
        let (tag, other) = (tags.of("a key=1"), tags.of("a key=2"));
        assert!(tag != other && tag == tags.of("a key=1"));
        let is = |tags: &str| Condition { is_one_of: Some(tags.to_owned()), is_none: false };
        let none = Condition { is_one_of: None, is_none: true };
        for (condition, with, without) in [
            (Condition::default(), true, true),
            (is("*"), true, false),
            (is(&tag), true, false),
            (is(&format!("{other} , {tag}")), true, false),
            (is(&other), false, false),
            (is(&format!("W/{tag}")), false, false),
            (none, false, true),
        ] {
            assert_eq!((condition.holds(Some(&tag)), condition.holds(None)), (with, without));
        }
    }
}
