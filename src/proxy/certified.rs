//! A bridge is let in by its certificate in place of keys, and loses it when it expires
//! (`certificates.rs`). What a reload takes back is in `revocation.rs`.

use std::borrow::Cow;

use crate::bridge::hostkey::Grant;
use crate::bridge::{Refusal, Registration};

use super::certificates::{HeldCertificate, Shown};
use super::losses::bridges;
use super::proofs::Loss;
use super::role::Role;
use super::state::Mail;
use super::through_old::ThroughOld;
use super::worker::Worker;

/// What a certificate grants, and the hold on it; and the registration of the hosts that it does not
/// cover, which need keys.
pub(super) struct Certified<'r> {
    pub(super) grants: Vec<Grant>,
    pub(super) held: Option<HeldCertificate>,
    pub(super) rest: Option<Cow<'r, Registration>>,
}

impl Worker {
    /// The certificate that the peer of a connection has shown.
    pub(super) fn shown_by(&self, key: usize) -> Option<Shown> {
        if let Some(through) = self.through_old(key) {
            return through.shown().cloned();
        }
        let session = self.conns[key].conn.tls()?;
        let listener = session.identity().asked_at.as_ref()?;
        Shown::read(session.agreed().peer_certificates()?, listener)
    }

    /// Whether the listener to which the peer of a connection has come asks for certificates.
    pub(super) fn is_asked(&self, key: usize) -> bool {
        if let Some(through) = self.through_old(key) {
            return through.relayed.asked_at.is_some();
        }
        let session = self.conns[key].conn.tls();
        session.is_some_and(|session| session.identity().asked_at.is_some())
    }

    /// What is known of a connection that comes through an old program and is no bridge yet.
    fn through_old(&self, key: usize) -> Option<&ThroughOld> {
        let client = self.conns.role(key).and_then(Role::client)?;
        client.through_old.as_deref()
    }

    /// What the certificate of a peer grants of a registration; nothing of one that has shown none.
    ///
    /// # Errors
    /// It is no longer good.
    pub(super) fn certify<'r>(
        &self,
        shown: Option<&Shown>,
        registration: &'r Registration,
        comes_back: bool,
    ) -> Result<Certified<'r>, Refusal> {
        let grants = shown.map(|shown| shown.grants(&registration.patterns)).unwrap_or_default();
        let Some(shown) = shown.filter(|_| !grants.is_empty()) else {
            let rest = Some(Cow::Borrowed(registration));
            return Ok(Certified { grants, held: None, rest });
        };
        let held = self.shared.certificates.hold(shown, comes_back, self.shared.moment());
        let held = held.map_err(|loss| {
            let what = match loss {
                Loss::Expired => "has expired",
                Loss::Revoked => "is not accepted any more",
            };
            Refusal { status: 401, text: format!("the certificate for {} {what}", shown.is_for()) }
        })?;
        let mut rest = registration.clone();
        rest.patterns.retain(|pattern| !shown.covers(pattern));
        let rest = (!rest.patterns.is_empty()).then_some(Cow::Owned(rest));
        Ok(Certified { grants, held: Some(held), rest })
    }

    /// A refusal of a key that says, too, what has been seen of certificates.
    pub(super) fn beside(&self, key: usize, shown: Option<&Shown>, refusal: Refusal) -> Refusal {
        let about = match shown {
            Some(shown) => format!("the certificate is for {}", shown.is_for()),
            None if self.is_asked(key) => "no certificate has been shown".to_owned(),
            None => return refusal,
        };
        Refusal { text: format!("{}; {about}", refusal.text), ..refusal }
    }

    /// Closes the bridges whose certificates have expired, or says that they stay.
    pub(super) fn expire_certificates(&mut self) {
        let (lost, closes) = self.shared.certificates.expire(self.shared.moment());
        if lost.names.is_empty() {
            return;
        }
        let (names, count) = (lost.shown(), bridges(lost.bridges));
        if !closes {
            log::warn!("certificates have expired, of {names}; {count} connected with them stay");
            return;
        }
        log::warn!("certificates have expired, of {names}; {count} lose them");
        for mailbox in self.shared.others(self.index) {
            mailbox.send(Mail::KeysLost);
        }
        self.dismiss_lost();
    }
}
