//! From the path of a request to a name below a folder.

use memchr::memchr;

/// Longest name, in bytes: below PATH_MAX, which includes the final NUL.
const LONGEST: usize = 4000;

/// The name of the file for a path that ends in `/`.
pub(crate) const INDEX: &[u8] = b"index.html";

/// Writes the name that a path means into `name`, with the slash that it begins with. False if no file
/// is meant; then `name` has no meaning.
///
/// Escapes (`%41`, RFC 3986, section 2.1) are decoded once. Only paths that every recipient reads
/// alike name files: none with `.`, `..` or nothing between two slashes, an escaped slash, a backslash,
/// a NUL, or an escape that is none. Nor do those in which a name begins with a dot, such as `.git`.
pub(crate) fn read(path: &str, name: &mut Vec<u8>) -> bool {
    name.clear();
    if !path.starts_with('/') || !decode(path.as_bytes(), name) || name.len() > LONGEST {
        return false;
    }
    let mut segments = name[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment.starts_with(b".") || (segment.is_empty() && !is_last) {
            return false;
        }
    }
    true
}

/// Decodes a path. False if it must name no file.
fn decode(path: &[u8], into: &mut Vec<u8>) -> bool {
    let is_plain = |byte: u8| byte != b'\\' && byte != 0;
    if memchr(b'%', path).is_none() {
        into.extend_from_slice(path);
        return path.iter().all(|byte| is_plain(*byte));
    }
    let mut rest = path;
    while let [byte, more @ ..] = rest {
        rest = more;
        let mut byte = *byte;
        if byte == b'%' {
            let [high, low, more @ ..] = rest else { return false };
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
            byte = high << 4 | low;
            if byte == b'/' {
                return false;
            }
            rest = more;
        }
        if !is_plain(byte) {
            return false;
        }
        into.push(byte);
    }
    true
}

/// Decodes a path that a backend names, below a folder: it may have names that begin with a dot. False
/// if it is none.
pub(crate) fn read_redirect(uri: &[u8], name: &mut Vec<u8>) -> bool {
    name.clear();
    let path = uri.split(|byte| *byte == b'?').next().unwrap_or_default();
    path.starts_with(b"/") && decode(path, name) && is_below(&name[1..])
}

/// Whether a name, without a slash in front, is one of something below a folder.
pub(crate) fn is_below(name: &[u8]) -> bool {
    let is_plain = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
    name.len() <= LONGEST && !name.contains(&0) && name.split(|byte| *byte == b'/').all(is_plain)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> Option<Vec<u8>> {
        let mut name = b"before".to_vec();
        read(path, &mut name).then_some(name)
    }

    #[test]
    fn a_path_is_decoded_once() {
        for (path, name) in [
            ("/", &b"/"[..]),
            ("/a", b"/a"),
            ("/a/b.c", b"/a/b.c"),
            ("/a/", b"/a/"),
            ("/a%20b", b"/a b"),
            ("/%41%c3%A9", b"/A\xc3\xa9"),
            ("/%2541", b"/%41"),
            ("/a+b", b"/a+b"),
            ("/a..b/c.", b"/a..b/c."),
            ("/%ff", b"/\xff"),
            // Bytes that are no UTF-8, and no dots to the kernel.
            ("/%c0%ae%c0%ae", b"/\xc0\xae\xc0\xae"),
        ] {
            assert_eq!(named(path).as_deref(), Some(name), "{path}");
        }
        let long = format!("/{}", "a/".repeat(1999));
        assert!(named(&long).is_some());
        assert_eq!(named(&format!("{long}aaa")), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_names_no_file() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/../a",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e%2e/a",
            "/%2e%2e%2fa",
            "/..%2fa",
            "/a%2fb",
            "/a%2Fb",
            "/%5c..%5ca",
            "/..\\a",
            "/a%00",
            "/a%00.html",
            "/%",
            "/%4",
            "/%4g",
            "/%g4",
            "/a%",
            "/.git/config",
            "/a/.htaccess",
            "/%2egit",
            "/...",
        ] {
            assert_eq!(named(path), None, "{path}");
        }
    }

    #[test]
    fn a_backend_may_name_more() {
        let named = |uri: &str| {
            let mut name = Vec::new();
            read_redirect(uri.as_bytes(), &mut name).then_some(name)
        };
        assert_eq!(named("/a%20b?c").as_deref(), Some(&b"/a b"[..]));
        assert_eq!(named("/.private/a").as_deref(), Some(&b"/.private/a"[..]));
        for uri in ["", "a", "/", "/a/", "//a", "/../a", "/a/..", "/%2e%2e/a", "/a%2fb", "/%00"] {
            assert_eq!(named(uri), None, "{uri}");
        }
    }
}
