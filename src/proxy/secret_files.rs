//! The files that hold secrets, or that say which keys are good.

use std::path::Path;
use std::sync::Arc;

use crate::bridge::Secrets;
use crate::bridge::hostkey::{Forms, Keyring, Revoked};
use crate::config::{SecretFile, Settings, Source, kept_text, read_secret};

use super::admin_token::AdminToken;

/// What these files hold.
pub(super) struct SecretFiles {
    pub(super) keyring: Option<Arc<Keyring>>,
    pub(super) admin_token: Option<AdminToken>,
}

impl SecretFiles {
    /// Reads the files that `settings`, which come from `source`, name.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub(super) fn read(settings: &Settings, source: &Source) -> Result<SecretFiles, Vec<String>> {
        let read = |path: &Path, strict| read(path, settings, source, strict);
        let secrets = settings.secrets.as_deref().map(|path| {
            // The original took any file after `-s`.
            let strict = !source.overrides.has("secrets");
            Secrets::parse(&read(path, strict)?, &path.display().to_string())
        });
        let revoked = settings.revoked.as_deref().map(|path| {
            // The hashes of keys are no secrets.
            let text = read_public(path, source)?;
            Revoked::parse(&text, &path.display().to_string())
        });
        let admin_token = settings.admin_token.as_deref().map(|path| {
            AdminToken::parse(&read(path, true)?)
                .map_err(|what| vec![format!("{} {what}", path.display())])
        });
        let mut problems = Vec::new();
        let secrets = good(secrets, &mut problems);
        let revoked = good(revoked, &mut problems).unwrap_or_default();
        let admin_token = good(admin_token, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let forms = if settings.legacy_keys { Forms::Both } else { Forms::Modern };
        let keyring = secrets.map(|secrets| Arc::new(Keyring::new(secrets, revoked, forms)));
        Ok(SecretFiles { keyring, admin_token })
    }
}

/// What has been read, if it is good.
pub(super) fn good<T>(
    read: Option<Result<T, Vec<String>>>,
    problems: &mut Vec<String>,
) -> Option<T> {
    match read? {
        Ok(good) => Some(good),
        Err(wrong) => {
            problems.extend(wrong);
            None
        }
    }
}

/// A file of secrets.
///
/// # Errors
/// What is wrong, in one sentence.
pub(super) fn read_secrets(
    path: &Path,
    settings: &Settings,
    source: &Source,
) -> Result<String, Vec<String>> {
    read(path, settings, source, true)
}

/// A file of secrets. If it is not `strict`, permissions that are too wide are only warned of.
fn read(
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
