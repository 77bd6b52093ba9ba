//! Asks Redis which servers a site has. It blocks, and is for a thread of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::config::Redis;

use super::blocking::dial;
use super::resp::{self, Answer};

/// How long a connect, and a whole round of questions, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most members of one list that are taken.
pub(crate) const MAX_MEMBERS: usize = 1000;

/// Longest answer, in bytes: a set comes whole, however large it is.
const MAX_ANSWER: usize = 1 << 20;

/// How much of an error of Redis is repeated, in characters.
const ERROR_SHOWN: usize = 200;

/// Behind a key: where Swiftiply keeps the servers of a list that it is using.
const IN_USE: &str = ".inuse";

/// A connection to Redis.
pub(crate) struct Connection {
    stream: TcpStream,
    until: Instant,
    /// What has come and not been taken.
    input: Vec<u8>,
}

impl Connection {
    /// Connects, and logs in if there is a password.
    ///
    /// # Errors
    /// One sentence.
    pub fn open(redis: &Redis, password: Option<&[u8]>) -> Result<Connection, String> {
        let stream = dial(&redis.to, || Ok(CONNECT_TIMEOUT));
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|error| error.to_string())?;
        let until = Instant::now() + TIMEOUT;
        let mut connection = Connection { stream, until, input: Vec::new() };
        if let Some(password) = password {
            match &redis.user {
                Some(user) => connection.ask(&[b"AUTH", user.as_bytes(), password])?,
                None => connection.ask(&[b"AUTH", password])?,
            };
        }
        if redis.database != 0 {
            connection.ask(&[b"SELECT", redis.database.to_string().as_bytes()])?;
        }
        Ok(connection)
    }

    /// The members of a set, sorted; or of a list, in its order. None if there is no such key.
    ///
    /// Swiftiply moves a server that it is using from the list `KEY` to the list `KEY.inuse` and
    /// back. Both are read at one moment, so that it may run beside this program.
    ///
    /// # Errors
    /// One sentence.
    pub fn members(&mut self, key: &str) -> Result<Vec<Vec<u8>>, String> {
        let kind = match self.ask(&[b"TYPE", key.as_bytes()])? {
            Answer::Text(kind) => kind,
            _ => return Err(unexpected()),
        };
        let mut members = match &*kind {
            b"set" => {
                let mut members = texts(self.ask(&[b"SMEMBERS", key.as_bytes()])?)?;
                members.sort();
                members
            }
            b"list" | b"none" => self.lists(key)?,
            kind => {
                let kind = String::from_utf8_lossy(kind);
                return Err(format!("{key:?} is neither a list nor a set but of type {kind:?}"));
            }
        };
        members.truncate(MAX_MEMBERS);
        Ok(members)
    }

    fn lists(&mut self, key: &str) -> Result<Vec<Vec<u8>>, String> {
        let last = (MAX_MEMBERS - 1).to_string();
        let in_use = format!("{key}{IN_USE}");
        self.ask(&[b"MULTI"])?;
        for key in [key, &in_use] {
            self.ask(&[b"LRANGE", key.as_bytes(), b"0", last.as_bytes()])?;
        }
        let Answer::List(lists) = self.ask(&[b"EXEC"])? else { return Err(unexpected()) };
        let lists = lists.into_iter().map(texts).collect::<Result<Vec<_>, _>>()?;
        Ok(lists.concat())
    }

    /// Sends a command, and waits for its answer.
    fn ask(&mut self, words: &[&[u8]]) -> Result<Answer, String> {
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
            _ => error.to_string(),
        };
        self.stream.set_write_timeout(Some(self.left()?)).map_err(told)?;
        self.stream.write_all(&resp::command(words)).map_err(told)?;
        loop {
            if let Some((answer, length)) = resp::parse(&self.input)? {
                self.input.drain(..length);
                return no_error(answer);
            }
            if self.input.len() > MAX_ANSWER {
                return Err(format!("its answer is longer than {} KiB", MAX_ANSWER >> 10));
            }
            self.stream.set_read_timeout(Some(self.left()?)).map_err(told)?;
            let mut bytes = [0; 16 << 10];
            match self.stream.read(&mut bytes).map_err(told)? {
                0 => return Err("it has closed the connection".to_owned()),
                count => self.input.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn left(&self) -> Result<Duration, String> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err("it does not answer".to_owned()) } else { Ok(left) }
    }
}

fn no_error(answer: Answer) -> Result<Answer, String> {
    match answer {
        Answer::Error(text) => {
            let text: String = text.chars().take(ERROR_SHOWN).collect();
            Err(format!("it says {text:?}"))
        }
        answer => Ok(answer),
    }
}

fn texts(answer: Answer) -> Result<Vec<Vec<u8>>, String> {
    let Answer::List(parts) = no_error(answer)? else { return Err(unexpected()) };
    let text = |part| match part {
        Answer::Text(text) => Ok(text),
        _ => Err(unexpected()),
    };
    parts.into_iter().map(text).collect()
}

fn unexpected() -> String {
    "its answer is not what was asked for".to_owned()
}
