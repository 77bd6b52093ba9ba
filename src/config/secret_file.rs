//! Files that hold secrets, and whether others can read or write them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The permission bits of group and others to write.
const WRITABLE: u32 = 0o022;

/// The permission bit of others to read.
const READABLE: u32 = 0o004;

/// Which permissions a file of secrets may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretsMode {
    /// Nobody but the owner may write it, and only the owner and the group may read it.
    #[default]
    Private,
    /// Any: the file system decides, as a read-only mount does.
    Any,
}

/// The words of [`SecretsMode`].
pub(crate) const SECRETS_MODE: [(&str, SecretsMode); 2] =
    [("private", SecretsMode::Private), ("any", SecretsMode::Any)];

/// What a file of secrets holds.
pub(crate) struct SecretFile {
    /// Its text. It is never shown.
    pub text: String,
    /// What is wrong with its permissions, in one sentence.
    pub exposed: Option<String>,
}

/// Reads a file of secrets.
///
/// # Errors
/// As open(2) and read(2), or it is not UTF-8.
pub(crate) fn read_secret(path: &Path, allowed: SecretsMode) -> io::Result<SecretFile> {
    let mut file = File::open(path)?;
    let data = file.metadata()?;
    // A pipe belongs to the process that made it.
    let mode = if data.is_file() { data.mode() & 0o7777 } else { 0 };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let others = match allowed {
        SecretsMode::Any => None,
        SecretsMode::Private if mode & WRITABLE != 0 => Some("others can change it"),
        SecretsMode::Private if mode & READABLE != 0 => {
            Some("everybody on this machine can read it")
        }
        SecretsMode::Private => None,
    };
    let exposed = others.map(|others| {
        format!("{} has mode {mode:04o}: {others}; chmod it to 0600 or 0640", path.display())
    });
    Ok(SecretFile { text, exposed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_the_owner_may_write_and_only_the_group_may_read() {
        let path = std::env::temp_dir().join(format!("cloudbridge-secret-{}", std::process::id()));
        fs::write(&path, "sesame\n").unwrap();
        for (mode, what) in [
            (0o600, None),
            (0o400, None),
            (0o640, None),
            (0o440, None),
            (0o644, Some("everybody on this machine can read it")),
            (0o660, Some("others can change it")),
            (0o622, Some("others can change it")),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let read = read_secret(&path, SecretsMode::Private).unwrap();
            let said = what.map(|what| {
                let shown = path.display();
                format!("{shown} has mode {mode:04o}: {what}; chmod it to 0600 or 0640")
            });
            assert_eq!((read.text.as_str(), read.exposed), ("sesame\n", said));
            assert_eq!(read_secret(&path, SecretsMode::Any).unwrap().exposed, None);
        }
        fs::remove_file(&path).unwrap();
    }
}
