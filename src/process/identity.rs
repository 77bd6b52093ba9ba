//! The user and group that the process becomes when it no longer needs root.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;

use crate::net::sys::{self, User};

/// The user and group to become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    user: User,
    /// For the supplementary groups; `None` if only a group is configured.
    name: Option<CString>,
    /// As configured.
    shown: String,
}

impl Identity {
    /// Looks up `user` and `group`; the default group is the user's own. `None` if neither is
    /// configured.
    ///
    /// # Errors
    /// One sentence about the one that does not exist.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Identity>, String> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let name = user.map(c_string).transpose()?;
        let mut found = match &name {
            Some(name) => lookup("user", name, sys::find_user)?,
            None => sys::acting_as(),
        };
        if let Some(group) = group {
            found.gid = lookup("group", &c_string(group)?, sys::find_group)?;
        }
        let shown = match (user, group) {
            (Some(user), None) => format!("user {user}"),
            (Some(user), Some(group)) => format!("user {user}, group {group}"),
            (None, group) => format!("group {}", group.unwrap_or_default()),
        };
        Ok(Some(Identity { user: found, name, shown }))
    }

    /// Becomes this user for good. Does nothing if the process already is.
    ///
    /// # Errors
    /// One sentence; usually that only root may become another user.
    pub fn assume(&self) -> Result<(), String> {
        if sys::acting_as() == self.user && self.user.uid != 0 {
            return Ok(());
        }
        sys::become_user(self.name.as_deref(), self.user)
            .map_err(|error| format!("cannot become {}: {error}", self.shown))
    }

    /// Gives a new file to this user, so that the process can reopen it later.
    ///
    /// # Errors
    /// As fchown(2).
    pub fn give(&self, file: &File) -> io::Result<()> {
        std::os::unix::fs::fchown(file, Some(self.user.uid), Some(self.user.gid))
    }
}

fn c_string(name: &str) -> Result<CString, String> {
    CString::new(name).map_err(|_| format!("{name:?} is not the name of a user or group"))
}

fn lookup<T>(
    kind: &str,
    name: &CStr,
    find: fn(&CStr) -> io::Result<Option<T>>,
) -> Result<T, String> {
    let shown = name.to_string_lossy();
    match find(name) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(format!("{kind}: there is no {kind} {shown:?} on this machine")),
        Err(error) => Err(format!("{kind}: cannot look up {shown:?}: {error}")),
    }
}

/// As configured: `user www-data, group www-data`.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identity_by_default() {
        assert_eq!(Identity::find(None, None), Ok(None));
    }

    #[test]
    fn a_user_brings_its_own_group_unless_another_is_named() {
        let root = Identity::find(Some("root"), None).unwrap().unwrap();
        assert_eq!(root.user, User { uid: 0, gid: 0 });
        assert_eq!(root.to_string(), "user root");
        match Identity::find(Some("root"), Some("daemon")) {
            Ok(both) => {
                let both = both.unwrap();
                assert_ne!(both.user.gid, 0);
                assert_eq!(both.to_string(), "user root, group daemon");
            }
            Err(why) => eprintln!("skipped: {why}"),
        }
    }

    #[test]
    fn unknown_user_or_group_is_an_error() {
        assert_eq!(
            Identity::find(Some("nobody-here"), None).unwrap_err(),
            "user: there is no user \"nobody-here\" on this machine"
        );
        assert_eq!(
            Identity::find(None, Some("nobody-here")).unwrap_err(),
            "group: there is no group \"nobody-here\" on this machine"
        );
    }
}
