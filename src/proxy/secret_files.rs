//! The files that hold secrets, or that say which keys are good.

use std::path::Path;
use std::sync::Arc;

use crate::bridge::Secrets;
use crate::bridge::hostkey::{Forms, Keyring, Revoked, Showing};
use crate::config::{Settings, Source};

use super::admin_token::AdminToken;
use super::file_texts::{read_public, read_secrets};
use super::problems::or_note;
use super::redis_password::RedisPassword;
use super::sticky_keys::StickyKeys;

/// What these files hold.
pub(super) struct SecretFiles {
    pub(super) keyring: Option<Arc<Keyring>>,
    pub(super) admin_token: Option<AdminToken>,
    pub(super) redis_password: Option<RedisPassword>,
    pub(super) sticky_keys: Arc<StickyKeys>,
}

impl SecretFiles {
    /// Reads the files that `settings`, which come from `source`, name.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence each.
    pub(super) fn read(settings: &Settings, source: &Source) -> Result<SecretFiles, Vec<String>> {
        let read = |path: &Path, strict| read_secrets(path, settings, source, strict);
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
        let sticky_keys = match settings.sticky_secret.as_deref() {
            Some(path) => read(path, true).and_then(|text| {
                StickyKeys::parse(&text).map_err(|what| vec![format!("{} {what}", path.display())])
            }),
            // A site may become sticky at run time.
            None => StickyKeys::random().map_err(|what| vec![what]),
        };
        let redis_password = settings.redis_password.as_deref().map(|path| {
            RedisPassword::parse(&read(path, true)?)
                .map_err(|what| vec![format!("{} {what}", path.display())])
        });
        let mut problems = Vec::new();
        let sticky_keys = or_note(&mut problems, sticky_keys).unwrap_or_default();
        let secrets = or_note(&mut problems, secrets.transpose()).flatten();
        let revoked = or_note(&mut problems, revoked.transpose()).flatten().unwrap_or_default();
        let admin_token = or_note(&mut problems, admin_token.transpose()).flatten();
        let redis_password = or_note(&mut problems, redis_password.transpose()).flatten();
        if !problems.is_empty() {
            return Err(problems);
        }
        let forms = if settings.legacy_keys { Forms::Both } else { Forms::Modern };
        let showing = if settings.bearer_keys { Showing::BareOrProven } else { Showing::Proven };
        let keyring = |secrets| Arc::new(Keyring::new(secrets, revoked, forms).with(showing));
        let keyring = secrets.map(keyring);
        let sticky_keys = Arc::new(sticky_keys);
        Ok(SecretFiles { keyring, admin_token, redis_password, sticky_keys })
    }
}
