//! A head as a simple server would read it: lines, and names with values.

/// A head that this program has written.
pub(super) struct Head<'a> {
    pub start: &'a str,
    pub fields: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Head<'a> {
    /// Reads a head that is exactly `bytes`.
    ///
    /// # Panics
    /// When there is any doubt about where it ends, or one of its lines.
    pub fn read(bytes: &'a [u8]) -> Head<'a> {
        let shown = bytes.escape_ascii();
        let inside = bytes.strip_suffix(b"\r\n\r\n").unwrap_or_else(|| panic!("no end: {shown}"));
        assert!(!inside.contains(&0), "a NUL in {shown}");
        let mut lines = Vec::new();
        for line in inside.split(|&b| b == b'\n') {
            let last = lines.len() == memchr::memchr_iter(b'\n', inside).count();
            let line = if last { line } else { line.strip_suffix(b"\r").expect("LF without CR") };
            assert!(!line.is_empty(), "an empty line in {shown}");
            assert!(!line.contains(&b'\r'), "CR without LF in {shown}");
            lines.push(line);
        }
        let start = std::str::from_utf8(lines[0]).expect("a start line is text");
        let fields = lines[1..].iter().map(|line| field(line)).collect();
        Head { start, fields }
    }

    /// The values of all fields whose name is `name` in any spelling that a CGI-like server takes
    /// for it.
    pub fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let named = self.fields.iter().filter(|(known, _)| plain(known) == name);
        named.map(|(_, value)| *value).collect()
    }

    /// Whether a field's name begins with `prefix`, in any such spelling.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.fields.iter().any(|(name, _)| plain(name).starts_with(prefix))
    }
}

/// A name in lower case, with `-` for `_`.
pub(super) fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

fn field(line: &[u8]) -> (&str, &[u8]) {
    let shown = line.escape_ascii();
    let colon = memchr::memchr(b':', line).unwrap_or_else(|| panic!("no colon in {shown}"));
    let name = std::str::from_utf8(&line[..colon]).expect("a name is ASCII");
    assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()), "the name in {shown}");
    let value = line[colon + 1..].trim_ascii();
    (name, value)
}
