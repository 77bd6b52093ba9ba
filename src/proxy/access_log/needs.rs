//! What of a request a format needs: the rest is never looked at.

use crate::config::{Field, LogFormat, Part};

/// The fields of a format, and what follows from them.
#[derive(Clone, Copy)]
pub(super) struct Needs {
    /// One bit for each [`Field`].
    fields: u64,
    /// A header field of the request.
    pub(super) headers: bool,
    /// When the bridge acknowledged, or when the response began.
    pub(super) progress: bool,
}

impl Needs {
    pub(super) fn of(format: &LogFormat) -> Needs {
        let fields: Vec<Field> = match format {
            LogFormat::Plain => vec![Field::Host, Field::Method, Field::Target],
            LogFormat::Json => Field::ALL.to_vec(),
            LogFormat::Text(_, parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Field(field) => Some(*field),
                    Part::Text(_) => None,
                })
                .collect(),
        };
        let has = |wanted: &[Field]| fields.iter().any(|field| wanted.contains(field));
        Needs {
            fields: fields.iter().fold(0, |bits, field| bits | bit(*field)),
            headers: has(&[Field::Referer, Field::UserAgent, Field::RequestId, Field::TraceId]),
            progress: has(&[Field::AckTime, Field::FirstByteTime]),
        }
    }

    pub(super) fn has(&self, field: Field) -> bool {
        self.fields & bit(field) != 0
    }
}

fn bit(field: Field) -> u64 {
    1 << field as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_bit() {
        assert!(Field::ALL.len() <= 64);
        let plain = Needs::of(&LogFormat::Plain);
        assert!(plain.has(Field::Target) && !plain.has(Field::Referer));
        assert!(!plain.headers && !plain.progress);
        let json = Needs::of(&LogFormat::Json);
        assert!(Field::ALL.iter().all(|field| json.has(*field)));
        assert!(json.headers && json.progress);
    }
}
