//! Which content coding a client takes (RFC 9110, section 12.5.3).

use super::accept::weight;
use super::ascii::{list, trim};

/// A content coding (RFC 9110, section 8.4.1) of files that have been compressed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878).
    Zstandard,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// The densest first: that is how equally welcome ones are chosen.
    pub const ALL: [Coding; 3] = [Coding::Brotli, Coding::Zstandard, Coding::Gzip];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Brotli => "br",
            Coding::Zstandard => "zstd",
            Coding::Gzip => "gzip",
        }
    }

    /// How the names of files in it end.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Coding::Brotli => ".br",
            Coding::Zstandard => ".zst",
            Coding::Gzip => ".gz",
        }
    }

    fn named(word: &[u8]) -> Option<Coding> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        Coding::ALL
            .into_iter()
            .find(|coding| is(coding.name()))
            .or_else(|| is("x-gzip").then_some(Coding::Gzip))
    }
}

/// The weights that the `Accept-Encoding` fields of a request give, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Codings {
    weights: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    others: Option<u16>,
}

impl Codings {
    /// Reads the values of all `Accept-Encoding` fields. What is malformed is skipped.
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Codings {
        let mut codings = Codings::default();
        for member in values.flat_map(list) {
            let mut parts = member.split(|byte| *byte == b';').map(trim);
            let name = parts.next().unwrap_or_default();
            let Some(weight) = weight(parts) else { continue };
            let place = match Coding::named(name) {
                Some(coding) => &mut codings.weights[coding as usize],
                None if name.eq_ignore_ascii_case(b"identity") => &mut codings.identity,
                None if name == b"*" => &mut codings.others,
                None => continue,
            };
            // The first counts.
            place.get_or_insert(weight);
        }
        codings
    }

    /// The best of the codings that a file `has`; `None` if it is to be sent as it is. That it is
    /// not welcome as it is makes no difference if there is nothing else (RFC 9110, section 12.5.3:
    /// the field may be disregarded).
    #[must_use]
    pub fn best(&self, has: impl Fn(Coding) -> bool) -> Option<Coding> {
        let weight = |coding: Coding| self.weights[coding as usize].or(self.others).unwrap_or(0);
        // Without a word of it, the file as it is comes last.
        let identity = self.identity.unwrap_or(0);
        let mut best = None;
        let mut most = 0;
        for coding in Coding::ALL.into_iter().filter(|coding| has(*coding)) {
            if weight(coding) > most {
                (best, most) = (Some(coding), weight(coding));
            }
        }
        best.filter(|_| most >= identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(accept: &str, has: &[Coding]) -> Option<Coding> {
        Codings::of([accept.as_bytes()].into_iter()).best(|coding| has.contains(&coding))
    }

    #[test]
    fn the_heaviest_that_is_there_is_chosen_and_the_densest_of_equals() {
        use Coding::{Brotli, Gzip, Zstandard};
        for (accept, coding) in [
            ("", None),
            ("identity", None),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP ; q=0.5", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Brotli)),
            ("gzip, zstd", Some(Zstandard)),
            ("br;q=0.5, gzip;q=0.9", Some(Gzip)),
            ("br;q=0, gzip", Some(Gzip)),
            ("br;q=0", None),
            ("*", Some(Brotli)),
            ("*;q=0.1, br;q=0", Some(Zstandard)),
            ("*;q=0", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0", None),
            ("deflate, compress", None),
            ("br;q=1.5, gzip;q=x, zstd;q=", None),
            (",;,=;q,\u{fffd}", None),
            ("gzip, gzip;q=0", Some(Gzip)),
        ] {
            assert_eq!(best(accept, &Coding::ALL), coding, "{accept:?}");
        }
        assert_eq!(best("br, gzip", &[Gzip]), Some(Gzip));
        assert_eq!(best("br", &[Gzip]), None);
        let fields: [&[u8]; 2] = [b"br;q=0", b"gzip"];
        assert_eq!(Codings::of(fields.into_iter()).best(|_| true), Some(Gzip));
    }

    #[test]
    fn each_has_its_own_suffix_and_place() {
        assert_eq!(Coding::ALL.map(Coding::suffix), [".br", ".zst", ".gz"]);
        assert_eq!(Coding::ALL.map(|coding| coding as usize), [0, 1, 2]);
    }
}
