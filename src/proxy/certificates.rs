//! The certificates that bridges have shown in place of host keys, so that they can be checked again:
//! when the issuers and the lists of revoked certificates have been read again, and when one
//! expires.
//!
//! As with keys (`proofs.rs`), each is here once, however many bridges have shown it. What follows
//! for its bridges is in `revocation.rs`. All of this is shared by all workers, and locked when a
//! bridge comes or goes, never for a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use crate::bridge::hostkey::{self, Grant};
use crate::config::ExpiredKeys;
use crate::time::Millis;
use crate::tls::{PeerCertificate, Untrusted};

use super::proofs::{Loss, LossMark, Lost, Moment};
use super::tls_files::Verifiers;

/// Most names of a certificate that a refusal shows.
const NAMES_SHOWN: usize = 3;

/// Tells certificates apart, and where they were asked for.
type Digest = [u8; 32];

/// A certificate that a peer has shown, and the listener that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) certificate: PeerCertificate,
    pub(super) listener: Arc<str>,
}

/// One that bridges have shown.
struct Known {
    shown: Shown,
    digest: Digest,
    lost: LossMark,
    /// The log has said that it has expired.
    said: AtomicBool,
    bridges: AtomicUsize,
    table: Arc<Table>,
}

/// A bridge's hold on its certificate.
pub(super) struct HeldCertificate(Arc<Known>);

/// The certificates of all bridges.
#[derive(Default)]
pub(super) struct Certificates {
    table: Arc<Table>,
}

struct Table {
    inside: Mutex<Inside>,
    /// When the next one expires, in milliseconds of the workers' clocks; `u64::MAX` for never.
    next_expiry: AtomicU64,
}

#[derive(Default)]
struct Inside {
    known: HashMap<Digest, Weak<Known>>,
    verifiers: Arc<Verifiers>,
    closes_expired: bool,
}

impl Default for Table {
    fn default() -> Table {
        Table { inside: Mutex::default(), next_expiry: AtomicU64::new(u64::MAX) }
    }
}

impl Shown {
    /// A chain that a peer has shown to a listener. `None` if nothing can be made of it.
    pub(super) fn read(chain: &[CertificateDer<'_>], listener: &Arc<str>) -> Option<Shown> {
        let certificate = PeerCertificate::read(chain).ok()?;
        Some(Shown { certificate, listener: Arc::clone(listener) })
    }

    /// Whether it is for the host pattern itself. A wildcard is compared as text, and nothing below a
    /// name is covered by it (RFC 6125, section 6.4).
    pub(super) fn covers(&self, pattern: &str) -> bool {
        self.certificate.names().iter().any(|name| name == pattern)
    }

    /// What it grants of the hosts of a registration.
    pub(super) fn grants(&self, patterns: &[String]) -> Vec<Grant> {
        let covered = patterns.iter().filter(|pattern| self.covers(pattern));
        covered
            .map(|name| Grant {
                name: name.clone(),
                limits: Vec::new(),
                proof: None,
                shown: hostkey::Shown::Proven,
            })
            .collect()
    }

    /// What it is for, at the end of a sentence.
    pub(super) fn is_for(&self) -> String {
        match self.certificate.names() {
            [] => "no host name".to_owned(),
            names => {
                let shown = names.iter().take(NAMES_SHOWN).map(|name| name.escape_default());
                let shown: Vec<String> = shown.map(|name| name.to_string()).collect();
                let more = names.len().saturating_sub(NAMES_SHOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{}{more}", shown.join(", "))
            }
        }
    }

    /// Whose it is, and the last Unix second at which it is valid.
    pub(super) fn summary(&self) -> (String, u64) {
        (self.certificate.holder().to_owned(), self.certificate.not_after())
    }

    /// Whose it is and until when it is valid, for people.
    pub(super) fn described(&self) -> String {
        let until = i64::try_from(self.certificate.not_after()).ok();
        let until = until.and_then(|at| Timestamp::from_second(at).ok());
        let until = until.map_or_else(|| "without end".to_owned(), |at| format!("until {at}"));
        format!("{} {until}", self.certificate.holder())
    }

    fn digest(&self) -> Digest {
        let mut digest = Sha256::new_with_prefix(&*self.listener);
        for part in self.certificate.chain() {
            digest.update([0]);
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// The first Unix second at which it is no longer valid.
    fn expires(&self) -> u64 {
        self.certificate.not_after().saturating_add(1)
    }
}

impl Inside {
    /// Why a certificate is no longer good, if so.
    fn loss(&self, shown: &Shown, now: Duration) -> Option<Loss> {
        let Some(verifier) = self.verifiers.at(&shown.listener) else { return Some(Loss::Revoked) };
        // What else is wrong shows at a time at which it had not expired.
        let valid = now.min(Duration::from_secs(shown.certificate.not_after()));
        match verifier.is_still_good(shown.certificate.chain(), valid) {
            Err(Untrusted::Revoked) => Some(Loss::Revoked),
            Err(Untrusted::Expired) => self.closes_expired.then_some(Loss::Expired),
            Ok(()) if now.as_secs() < shown.expires() => None,
            Ok(()) => self.closes_expired.then_some(Loss::Expired),
        }
    }
}

impl Certificates {
    /// Another bridge has shown this certificate, in a handshake that may have been long ago. One that
    /// is new here must not have expired; one that `comes_back` from another program may be good
    /// enough, as if it had been here all the time.
    ///
    /// # Errors
    /// Why it is not good under what is in force.
    pub(super) fn hold(
        &self,
        shown: &Shown,
        comes_back: bool,
        at: Moment,
    ) -> Result<HeldCertificate, Loss> {
        let digest = shown.digest();
        let mut inside = self.lock();
        if !comes_back && at.unix.as_secs() >= shown.expires() {
            return Err(Loss::Expired);
        }
        let known = match inside.known.get(&digest).and_then(Weak::upgrade) {
            Some(known) => match known.lost.loss() {
                Some(loss) => {
                    // Without the lock: the last reference takes it.
                    drop(inside);
                    return Err(loss);
                }
                None => known,
            },
            None => {
                if let Some(loss) = inside.loss(shown, at.unix) {
                    return Err(loss);
                }
                let known = Arc::new(Known {
                    shown: shown.clone(),
                    digest,
                    lost: LossMark::default(),
                    said: AtomicBool::new(at.unix.as_secs() >= shown.expires()),
                    bridges: AtomicUsize::new(0),
                    table: Arc::clone(&self.table),
                });
                inside.known.insert(digest, Arc::downgrade(&known));
                known
            }
        };
        known.bridges.fetch_add(1, Ordering::Relaxed);
        let all: Vec<_> = inside.known.values().filter_map(Weak::upgrade).collect();
        self.reckon(&all, at);
        drop(inside);
        drop(all);
        Ok(HeldCertificate(known))
    }

    /// Checks all again, under what is in force from now on. Returns those that have become bad.
    pub(super) fn put_in_force(
        &self,
        verifiers: &Arc<Verifiers>,
        expired: ExpiredKeys,
        at: Moment,
    ) -> Lost {
        let mut inside = self.lock();
        inside.verifiers = Arc::clone(verifiers);
        inside.closes_expired = expired == ExpiredKeys::Close;
        let all: Vec<_> = inside.known.values().filter_map(Weak::upgrade).collect();
        let became_bad = |known: &&Arc<Known>| known.lost.mark(inside.loss(&known.shown, at.unix));
        let lost = lost(all.iter().filter(became_bad));
        self.reckon(&all, at);
        drop(inside);
        drop(all);
        lost
    }

    /// Marks those that have expired, and returns them; and whether their bridges are closed.
    pub(super) fn expire(&self, at: Moment) -> (Lost, bool) {
        let inside = self.lock();
        let closes = inside.closes_expired;
        let all: Vec<_> = inside.known.values().filter_map(Weak::upgrade).collect();
        let expired = all.iter().filter(|known| {
            let is_new = at.unix.as_secs() >= known.shown.expires()
                && !known.said.swap(true, Ordering::Relaxed)
                && known.lost.loss().is_none();
            if is_new && closes {
                known.lost.mark(Some(Loss::Expired));
            }
            is_new
        });
        let lost = lost(expired);
        self.reckon(&all, at);
        drop(inside);
        drop(all);
        (lost, closes)
    }

    /// When to call [`Certificates::expire`].
    pub(super) fn expires_at(&self) -> Millis {
        Millis(self.table.next_expiry.load(Ordering::Relaxed))
    }

    /// Finds out anew when the next one expires: the clock of the machine may have been set.
    pub(super) fn look_at_clock(&self, at: Moment) {
        if self.expires_at() == Millis(u64::MAX) {
            return;
        }
        let inside = self.lock();
        let all: Vec<_> = inside.known.values().filter_map(Weak::upgrade).collect();
        self.reckon(&all, at);
        drop(inside);
        drop(all);
    }

    fn reckon(&self, all: &[Arc<Known>], at: Moment) {
        let to_come = all.iter().filter(|known| !known.said.load(Ordering::Relaxed));
        let next = to_come.map(|known| known.shown.expires()).min().map_or(u64::MAX, |expires| {
            let left = Duration::from_secs(expires).saturating_sub(at.unix);
            // Not before its second, whatever is lost by rounding.
            (at.now + left).0.saturating_add(1)
        });
        self.table.next_expiry.store(next, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.table.lock()
    }
}

/// Those that are no longer good, for the log.
fn lost<'k>(those: impl Iterator<Item = &'k Arc<Known>>) -> Lost {
    let mut lost = Lost::default();
    for known in those {
        lost.names.push(known.shown.certificate.holder().to_owned());
        lost.bridges += known.bridges.load(Ordering::Relaxed);
    }
    lost.names.sort_unstable();
    lost.names.dedup();
    lost
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Each change leaves it whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut inside = self.table.lock();
        // It may have come back before the last bridge was gone.
        if inside.known.get(&self.digest).is_some_and(|here| here.strong_count() == 0) {
            inside.known.remove(&self.digest);
        }
    }
}

impl HeldCertificate {
    /// The certificate, and where it was shown.
    pub(super) fn shown(&self) -> &Shown {
        &self.0.shown
    }

    /// Why it is no longer good, if so.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.0.lost.loss()
    }
}

impl Drop for HeldCertificate {
    fn drop(&mut self) {
        self.0.bridges.fetch_sub(1, Ordering::Relaxed);
    }
}
