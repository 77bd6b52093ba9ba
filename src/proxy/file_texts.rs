//! What is read from files that the settings name, or was when they could still be read.

use std::path::Path;

use crate::config::{SecretFile, Settings, Source, kept_text, read_secret};

/// A file of secrets. If it is not `strict`, permissions that are too wide are only warned of.
///
/// # Errors
/// What is wrong, in one sentence.
pub(super) fn read_secrets(
    path: &Path,
    settings: &Settings,
    source: &Source,
    strict: bool,
) -> Result<String, Vec<String>> {
    let kept = |bytes: &[u8]| Ok(SecretFile { text: kept_text(bytes)?, exposed: None });
    let file = read_secret(path, settings.secrets_mode);
    let file = source
        .kept
        .or(path, file, kept)
        .map_err(|error| vec![format!("cannot read {}: {error}", path.display())])?;
    match file.exposed {
        Some(what) if strict => Err(vec![format!("{what}, or set `secrets-mode any`")]),
        Some(what) => {
            log::warn!("{what}");
            Ok(file.text)
        }
        None => Ok(file.text),
    }
}

/// A file that holds no secrets.
///
/// # Errors
/// What is wrong, in one sentence.
pub(super) fn read_public(path: &Path, source: &Source) -> Result<String, Vec<String>> {
    source
        .kept
        .or(path, std::fs::read_to_string(path), kept_text)
        .map_err(|error| vec![format!("cannot read {}: {error}", path.display())])
}
