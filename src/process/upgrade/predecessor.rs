//! In the new program: talks to the old one.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::channel::{Channel, Message};

/// How long the old program may take for its next message while it offers.
const OFFER_TIMEOUT: Duration = Duration::from_secs(5);

/// The program that this one replaces.
pub struct Predecessor {
    channel: Channel,
}

impl Predecessor {
    /// The program that has started this one to be replaced by it, if one has.
    ///
    /// # Errors
    /// One sentence.
    pub fn find() -> Result<Option<Predecessor>, String> {
        match Channel::inherited() {
            Ok(channel) => Ok(channel.map(|channel| Predecessor { channel })),
            Err(error) => Err(format!("cannot talk to the old program: {error}")),
        }
    }

    /// Receives what it offers: gives each message, and its line read, to `take`, which says no to
    /// what it does not know.
    ///
    /// # Errors
    /// One sentence.
    pub fn receive_offer(
        &self,
        mut take: impl FnMut(&Value, Message) -> Result<(), String>,
    ) -> Result<(), String> {
        let lost = |error: io::Error| format!("the old program does not say what it has: {error}");
        self.channel.set_timeouts(None, Some(OFFER_TIMEOUT)).map_err(lost)?;
        loop {
            let message = self.channel.receive().map_err(lost)?;
            let message = message.ok_or("the old program has ended")?;
            let line = message.line();
            if line["kind"] == "offered" {
                break;
            }
            take(&line, message)?;
        }
        self.channel.set_timeouts(None, None).map_err(lost)
    }

    /// Tells it why this program does not serve.
    ///
    /// # Errors
    /// It does not listen.
    pub fn refuse(&self, problems: &[String]) -> io::Result<()> {
        self.say(&json!({ "kind": "refused", "problems": problems }))
    }

    /// Tells it what this program will serve. `line` is one of any number of such messages.
    ///
    /// # Errors
    /// It has ended.
    pub fn serves(&self, mut line: Value) -> io::Result<()> {
        line["kind"] = "serves".into();
        self.say(&line)
    }

    /// Tells it that this program serves.
    ///
    /// # Errors
    /// It has ended.
    pub fn serving(&self) -> io::Result<()> {
        self.say(&json!({ "kind": "serving" }))
    }

    /// Tells it whether this program is replaced itself: by one that goes on should this one fail.
    pub fn set_replaced(&self, is_replaced: bool) {
        // If it has ended, nobody needs to know.
        let _ = self.say(&json!({ "kind": "replaced", "is": is_replaced }));
    }

    /// Tells it that this program has the connections that cannot go over.
    pub fn dialled(&self) {
        // If it has ended, nobody needs to know.
        let _ = self.say(&json!({ "kind": "dialled" }));
    }

    fn say(&self, line: &Value) -> io::Result<()> {
        self.channel.send(&line.to_string(), b"", &[])
    }

    /// The next message after the offer; `None` when the old program has ended, or none comes in
    /// time.
    #[must_use]
    pub fn next(&self) -> Option<Message> {
        self.channel.receive().ok().flatten()
    }

    /// How long [`Predecessor::next`] waits; `None` for any time.
    pub fn set_receive_timeout(&self, timeout: Option<Duration>) {
        let _ = self.channel.set_timeouts(None, timeout);
    }
}
