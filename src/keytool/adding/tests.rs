//! Adding a secret: what is in the file afterwards, and when nothing is changed.

use super::*;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of one test's own, removed with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cloudbridge-adding-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        // Messages name files as they are without links.
        Dir(fs::canonicalize(&path).unwrap())
    }

    /// A file of this mode.
    fn file(&self, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join("secrets");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines of the file, with secrets that look random as `...`.
#[track_caller]
fn lines(path: &Path) -> Vec<String> {
    let random = |secret: &str| {
        secret.len() == 2 * RANDOM && secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    let line = |line: &str| match line.split_once(':') {
        Some((from, secret)) if random(secret) => format!("{from}:..."),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect()
}

#[track_caller]
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[track_caller]
fn refused(path: &Path) -> Vec<String> {
    let failure = add(path, 5000).unwrap_err();
    assert_eq!(failure.code, 1);
    failure.lines
}

#[test]
fn new_file_has_mode_600_and_is_in_force_at_once() {
    let dir = Dir::new();
    let path = dir.0.join("secrets");
    assert_eq!(add(&path, 5000).unwrap().from, 5000);
    assert_eq!(lines(&path), ["5000:..."]);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(dir.names(), ["secrets"]);
}

#[test]
fn no_secret_is_made_twice() {
    let dir = Dir::new();
    let path = dir.0.join("secrets");
    let mut secrets = std::collections::HashSet::new();
    for now in 0..20 {
        add(&path, now).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let last = text.lines().last().unwrap().split_once(':').unwrap().1.to_owned();
        assert!(secrets.insert(last));
    }
}

#[test]
fn existing_lines_are_kept() {
    for old in ["100:first\n\n200:s e:c#ret ", "100:first\n\n200:s e:c#ret \n"] {
        let dir = Dir::new();
        let path = dir.file(old, 0o600);
        assert_eq!(add(&path, 5000).unwrap().from, 5001);
        assert_eq!(lines(&path), ["100:first", "", "200:s e:c#ret ", "5001:..."]);
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn timestamps_rise_whatever_the_clock_says() {
    let dir = Dir::new();
    let path = dir.0.join("secrets");
    for (now, expected) in [(5000, 5000), (5000, 5001), (5000, 5002), (4000, 5003), (9000, 9001)] {
        assert_eq!(add(&path, now).unwrap().from, expected);
    }
    assert_eq!(lines(&path), ["5000:...", "5001:...", "5002:...", "5003:...", "9001:..."]);
    let ahead = dir.file("18446744073709551615:last\n", 0o600);
    assert_eq!(
        refused(&ahead),
        [format!("{}: no time is left after Unix time 18446744073709551615", ahead.display())]
    );
}

#[test]
fn an_empty_file_is_filled() {
    for old in ["", "\n \n"] {
        let dir = Dir::new();
        let path = dir.file(old, 0o600);
        assert_eq!(add(&path, 5000).unwrap().from, 5000);
        assert_eq!(lines(&path).last().unwrap(), "5000:...");
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    for open in [0o644, 0o660, 0o604, 0o620, 0o601, 0o650, 0o777] {
        let dir = Dir::new();
        let path = dir.file("100:first\n", open);
        assert_eq!(
            refused(&path),
            [format!(
                "{}: mode {open:04o} is open to others; chmod it to 600 or 640, and consider its secrets known",
                path.display()
            )]
        );
        assert_eq!(lines(&path), ["100:first"]);
        assert_eq!(mode(&path), open);
        assert_eq!(dir.names(), ["secrets"]);
    }
}

#[test]
fn a_file_of_a_folders_group_can_be_read_by_the_group() {
    let dir = Dir::new();
    let path = dir.0.join("secrets");
    fs::set_permissions(&dir.0, Permissions::from_mode(0o2750)).unwrap();
    for _ in 0..2 {
        add(&path, 5000).unwrap();
        assert_eq!(mode(&path), 0o640);
    }
    // What its owner has made of it stays.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    add(&path, 5000).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(lines(&path), ["5000:...", "5001:...", "5002:..."]);
}

/// Where others of the group write, or everybody looks, secrets are their owner's alone.
#[test]
fn a_file_of_a_shared_folder_is_its_owners_alone() {
    for folder in [0o2775, 0o2770, 0o2755, 0o0750] {
        let dir = Dir::new();
        fs::set_permissions(&dir.0, Permissions::from_mode(folder)).unwrap();
        add(&dir.0.join("secrets"), 5000).unwrap();
        assert_eq!(mode(&dir.0.join("secrets")), 0o600, "{folder:o}");
    }
}

#[test]
fn secret_is_not_added_to_malformed_file() {
    let dir = Dir::new();
    let path = dir.file("200:a\n100:sesame\nhunter2\n", 0o600);
    let name = path.display();
    assert_eq!(
        refused(&path),
        [
            format!("{name}:2: the timestamp is not above the one before it"),
            format!("{name}:3: a line is timestamp:secret, and this one has no colon"),
        ]
    );
    assert_eq!(lines(&path), ["200:a", "100:sesame", "hunter2"]);
    assert_eq!(dir.names(), ["secrets"]);
}

#[test]
fn only_one_adds_at_a_time() {
    let dir = Dir::new();
    let path = dir.file("100:first\n", 0o600);
    let draft = dir.0.join("secrets.new");
    fs::write(&draft, "somebody else's").unwrap();
    assert_eq!(
        refused(&path),
        [format!(
            "{}: another process is adding a secret, or was interrupted: then remove this file",
            draft.display()
        )]
    );
    assert_eq!(fs::read_to_string(&draft).unwrap(), "somebody else's");
    fs::remove_file(&draft).unwrap();
    assert!(add(&path, 5000).is_ok());
}

#[test]
fn concurrent_additions_lose_no_secret() {
    let dir = Dir::new();
    let path = dir.0.join("secrets");
    let add_one = || {
        // The draft of another thread is in the way for a moment.
        while let Err(failure) = add(&path, 5000) {
            assert!(failure.lines[0].contains("another process"), "{failure:?}");
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(add_one);
        }
    });
    let expected: Vec<String> = (5000..5008).map(|from| format!("{from}:...")).collect();
    assert_eq!(lines(&path), expected);
    assert_eq!(dir.names(), ["secrets"]);
}

#[test]
fn a_link_stays_a_link() {
    let dir = Dir::new();
    let path = dir.file("100:first\n", 0o600);
    let link = dir.0.join("link");
    symlink(&path, &link).unwrap();
    add(&link, 5000).unwrap();
    assert_eq!(lines(&path), ["100:first", "5001:..."]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn directory_is_refused_as_secrets_file() {
    let dir = Dir::new();
    let folder = dir.0.join("folder");
    fs::create_dir(&folder).unwrap();
    assert_eq!(refused(&folder), [format!("{}: this is not a regular file", folder.display())]);
    let nowhere = dir.0.join("no/secrets");
    assert_eq!(
        refused(&nowhere),
        [format!("{}.new: No such file or directory (os error 2)", nowhere.display())]
    );
    assert_eq!(dir.names(), ["folder"]);
}
