//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): with one a client's next handshake is short.
//!
//! A ticket holds the session's state, encrypted with a key that only the proxies of one service
//! know, so nothing is kept here for each client. The newest key encrypts; those before it are still
//! good for what they have encrypted. Keys of our own making are replaced after [`LIFETIME`].
//!
//! Nobody's certificate is verified again when a session is resumed. So a ticket is good only where
//! the same is asked of clients as where it was made: see [`Scoped`].

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;
use sha2::{Digest, Sha256};

/// How long a key of our own making encrypts. After twice that time it is forgotten.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Most keys of our own making: some are of programs that have been replaced.
const MOST: usize = 8;

/// Bytes of the name of a key, with which each ticket begins.
const NAME: usize = 16;

/// Bytes of a key.
const KEY: usize = 32;

/// The keys.
pub(crate) struct Tickets {
    keys: RwLock<Keys>,
}

struct Keys {
    /// The first one encrypts.
    all: Vec<Key>,
    /// When it began to; `None` if they come from a file.
    since: Option<Instant>,
}

struct Key {
    name: [u8; NAME],
    /// What it is made of, for another process.
    secret: [u8; KEY],
    key: RandomizedNonceKey,
}

impl Key {
    fn new(secret: [u8; KEY]) -> Option<Key> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?;
        let mut name = [0; NAME];
        name.copy_from_slice(
            &Sha256::digest([b"cloudbridge ticket key:", &secret[..]].concat())[..NAME],
        );
        Some(Key { name, secret, key })
    }

    fn random() -> Option<Key> {
        let mut secret = [0; KEY];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Key::new(secret)
    }

    fn encrypt(&self, plain: &[u8], of: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let aad = Aad::from([&self.name[..], of].concat());
        let nonce = self.key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([&self.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8], of: &[u8]) -> Option<Vec<u8>> {
        let rest = ticket.strip_prefix(&self.name)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from([&self.name[..], of].concat());
        let plain = self.key.open_in_place(nonce, aad, &mut sealed).ok()?;
        Some(plain.to_vec())
    }
}

impl Tickets {
    /// With a key of our own making.
    ///
    /// # Errors
    /// When no random bytes are to be had.
    pub(crate) fn random() -> Result<Tickets, String> {
        let key = Key::random().ok_or("no random bytes are to be had")?;
        let keys = Keys { all: vec![key], since: Some(Instant::now()) };
        Ok(Tickets { keys: RwLock::new(keys) })
    }

    /// With the keys of a file: one on each line, 64 hexadecimal digits. The first one encrypts, and the others
    /// are good for tickets that they have encrypted elsewhere or earlier.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence. No key is shown.
    pub(crate) fn parse(text: &str) -> Result<Tickets, String> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let all = lines
            .map(|(at, line)| {
                secret(line.trim())
                    .and_then(Key::new)
                    .ok_or_else(|| format!("line {}: no key of 64 hexadecimal digits", at + 1))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err("holds no key".to_owned());
        }
        Ok(Tickets { keys: RwLock::new(Keys { all, since: None }) })
    }

    /// Goes on with the keys of others, so that their tickets stay good, unless these are from a file.
    pub(crate) fn take_over(&self, others: &Tickets) {
        let others = others.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.since.is_some() && others.since.is_some() {
            keys.all = others.all.iter().filter_map(|key| Key::new(key.secret)).collect();
            keys.since = others.since;
        }
    }

    /// The keys, for a process that replaces this one; none if they are from a file.
    pub(crate) fn secrets(&self) -> Vec<[u8; KEY]> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let own = keys.since.is_some();
        keys.all.iter().filter(|_| own).map(|key| key.secret).collect()
    }

    /// The keys of the process that this one replaces are good for what they have encrypted. Ours
    /// encrypts from now on, or an upgrade a day would keep one key forever.
    pub(crate) fn inherit(&self, secrets: &[[u8; KEY]]) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.since.is_some() {
            keys.all.extend(secrets.iter().filter_map(|secret| Key::new(*secret)));
            keys.all.truncate(MOST);
        }
    }

    fn encrypt(&self, plain: &[u8], of: &[u8]) -> Option<Vec<u8>> {
        self.rotate();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.all.first()?.encrypt(plain, of)
    }

    fn decrypt(&self, ticket: &[u8], of: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.all.iter().find_map(|key| key.decrypt(ticket, of))
    }

    /// Makes a new key when the first one has encrypted for long enough.
    fn rotate(&self) {
        let is_old = |keys: &Keys| keys.since.is_some_and(|since| since.elapsed() >= LIFETIME);
        if !is_old(&self.keys.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if is_old(&keys)
            && let Some(key) = Key::random()
        {
            keys.all.truncate(1);
            keys.all.insert(0, key);
            keys.since = Some(Instant::now());
        }
    }
}

/// The key that a line holds.
fn secret(line: &str) -> Option<[u8; KEY]> {
    if line.len() != 2 * KEY || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut secret = [0; KEY];
    for (byte, digits) in secret.iter_mut().zip(line.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(secret)
}

/// The tickets of listeners that ask for certificates from the same issuers, or for none. Those of others are
/// not good there: with one of them a client would get in that has shown none, or one of another issuer.
#[derive(Debug)]
pub(super) struct ListenerTickets {
    pub(super) tickets: Arc<Tickets>,
    /// Tells these listeners from others.
    pub(super) of: Vec<u8>,
}

impl ProducesTickets for ListenerTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // After that its key may be gone.
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(plain, &self.of)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.decrypt(ticket, &self.of)
    }
}

/// Without the keys.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const OTHER: &str = "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_ticket_is_good_wherever_its_key_is_known() {
        let ours = Tickets::parse(&format!("{ONE}\n")).unwrap();
        let theirs = Tickets::parse(&format!("{OTHER}\n\n{ONE}\n")).unwrap();
        let strangers = Tickets::random().unwrap();
        let ticket = ours.encrypt(b"session", b"").unwrap();
        assert_eq!(ours.decrypt(&ticket, b"").as_deref(), Some(&b"session"[..]));
        assert_eq!(theirs.decrypt(&ticket, b"").as_deref(), Some(&b"session"[..]));
        assert_eq!(strangers.decrypt(&ticket, b""), None);
        assert_eq!(ours.decrypt(&theirs.encrypt(b"session", b"").unwrap(), b""), None);
        assert!(!ticket.windows(7).any(|bytes| bytes == b"session"));
    }

    #[test]
    fn a_ticket_is_good_where_the_same_certificates_are_asked_for() {
        let tickets = Tickets::random().unwrap();
        let ticket = tickets.encrypt(b"session", b"").unwrap();
        assert_eq!(tickets.decrypt(&ticket, b"asks"), None);
        let ticket = tickets.encrypt(b"session", b"asks").unwrap();
        assert_eq!(tickets.decrypt(&ticket, b"others"), None);
        assert!(tickets.decrypt(&ticket, b"asks").is_some());
    }

    #[test]
    fn a_changed_ticket_is_no_ticket() {
        let tickets = Tickets::random().unwrap();
        let ticket = tickets.encrypt(b"session", b"").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed, b""), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at], b""), None);
        }
    }

    #[test]
    fn keys_are_taken_over_but_not_those_of_files() {
        let (old, new) = (Tickets::random().unwrap(), Tickets::random().unwrap());
        let ticket = old.encrypt(b"session", b"").unwrap();
        new.take_over(&old);
        assert!(new.decrypt(&ticket, b"").is_some());
        let file = Tickets::parse(ONE).unwrap();
        file.take_over(&old);
        assert!(file.decrypt(&ticket, b"").is_none() && file.secrets().is_empty());
        let heir = Tickets::random().unwrap();
        heir.inherit(&old.secrets());
        assert!(heir.decrypt(&ticket, b"").is_some());
    }

    #[test]
    fn malformed_files_are_explained_without_their_keys() {
        for (text, what) in [
            ("\n", "holds no key"),
            ("sesame\n", "line 1: no key of 64 hexadecimal digits"),
            (&format!("{ONE}\n{ONE}0\n"), "line 2: no key of 64 hexadecimal digits"),
        ] {
            assert_eq!(Tickets::parse(text).err().as_deref(), Some(what));
        }
    }
}
