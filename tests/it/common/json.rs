//! A strict reader for the JSON that the proxy's info host answers with.

/// A JSON value. Numbers are whole and not negative, which is all that the info page has need of.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; its fraction is dropped.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, in its order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole document, and fails the test on anything that RFC 8259 does not allow.
    #[track_caller]
    pub fn parse(text: &str) -> Json {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        match reader.value().filter(|_| reader.peek().is_none()) {
            Some(value) => value,
            None => panic!("not JSON at byte {}: {text}", reader.at),
        }
    }

    /// The member of this name.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => {
                members.iter().find(|(have, _)| have == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The value at the end of this path of names, which must be there.
    #[track_caller]
    pub fn at(&self, path: &[&str]) -> &Json {
        path.iter().fold(self, |value, name| match value.get(name) {
            Some(value) => value,
            None => panic!("no {path:?} in {self:?}"),
        })
    }

    /// The number at the end of this path of names; zero when its last name is not there.
    #[track_caller]
    pub fn number(&self, path: &[&str]) -> u64 {
        let (last, before) = path.split_last().expect("a path has a name");
        match self.at(before).get(last) {
            Some(Json::Number(number)) => *number,
            Some(other) => panic!("{path:?} is {other:?}"),
            None => 0,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next byte after white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn value(&mut self) -> Option<Json> {
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.list(),
            b'"' => self.text().map(Json::Text),
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }

    fn number(&mut self) -> Option<Json> {
        let digits = |from: &[u8]| from.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = digits(&self.bytes[self.at..]);
        let number =
            std::str::from_utf8(&self.bytes[self.at..self.at + whole]).ok()?.parse().ok()?;
        self.at += whole;
        if self.bytes.get(self.at) == Some(&b'.') {
            let fraction = digits(&self.bytes[self.at + 1..]);
            self.at += 1 + fraction;
            (fraction > 0).then_some(())?;
        }
        Some(Json::Number(number))
    }

    fn text(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => text.extend_from_slice(self.escape()?.to_string().as_bytes()),
                0..0x20 => return None,
                _ => text.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' => Some(char::from(byte)),
            b'b' => Some('\u{8}'),
            b'f' => Some('\u{c}'),
            b'n' => Some('\n'),
            b'r' => Some('\r'),
            b't' => Some('\t'),
            b'u' => {
                let digits = std::str::from_utf8(self.bytes.get(self.at..self.at + 4)?).ok()?;
                self.at += 4;
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)
            }
            _ => None,
        }
    }

    fn list(&mut self) -> Option<Json> {
        self.take(b'[')?;
        let mut values = Vec::new();
        if self.take(b']').is_some() {
            return Some(Json::List(values));
        }
        loop {
            values.push(self.value()?);
            if self.take(b']').is_some() {
                return Some(Json::List(values));
            }
            self.take(b',')?;
        }
    }

    fn object(&mut self) -> Option<Json> {
        self.take(b'{')?;
        let mut members = Vec::new();
        if self.take(b'}').is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.peek()?;
            let name = self.text()?;
            self.take(b':')?;
            members.push((name, self.value()?));
            if self.take(b'}').is_some() {
                return Some(Json::Object(members));
            }
            self.take(b',')?;
        }
    }
}
