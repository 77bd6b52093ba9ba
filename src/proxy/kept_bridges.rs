//! What a worker says of its bridges that systemd keeps for the next process (`bridge_store.rs`),
//! and what the next process makes of it.
//!
//! Said busy before a byte goes out: when an exchange begins (`exchanges.rs`), for a ping
//! (`backend_pool.rs`), when the bridge ends (`closing.rs`), and when it comes from another process,
//! to be told that it is refused, perhaps. One that stands aside, as it is before a probe, is
//! busy, too (`suspects.rs`). Said idle in one place, when it parks.

use serde_json::Value;

use crate::net::sys;

use super::bridge_store::{Keeping, Kept};
use super::bridge_table::{Found, IdleBridge, LONGEST};
use super::replaced::bridge_note;
use super::role::{Bridge, Role};
use super::upgrade::notes::{Moved, MovedBridge, MovedRole};
use super::worker::Worker;

impl Worker {
    /// The bridge in slot `key` is about to park: systemd may keep it, and the next process may use
    /// it.
    pub(super) fn keep(&mut self, key: usize) {
        let conn = &self.conns[key].conn;
        // Part of a ping is to be sent, or something has come.
        if !conn.output.is_empty() || !conn.input.is_empty() || !conn.can_move() {
            return;
        }
        let Some(bridge) = self.conns.role(key).and_then(Role::bridge) else { return };
        match &bridge.keeping {
            Keeping::Kept(kept) if kept.is_idle() => {}
            Keeping::Kept(kept) => kept.set_idle(idle(bridge)),
            Keeping::NotYet => self.begin_to_keep(key),
            Keeping::Never => {}
        }
    }

    fn begin_to_keep(&mut self, key: usize) {
        // What ends soon, or goes to a new program, is not worth it.
        let Some(store) = self.shared.bridge_store.clone() else { return };
        if !store.has_room() || !self.is_serving() || self.replaced.is_on() {
            return;
        }
        let keeping = match self.bridge_entry(key).and_then(|(moved, text)| text_of(&moved, &text))
        {
            None => Keeping::Never,
            Some(text) => {
                let conn = &self.conns[key].conn;
                // Without a descriptor it is tried again.
                let (Ok(cookie), Ok(copy)) =
                    (sys::cookie(&conn.as_fd()), conn.as_fd().try_clone_to_owned())
                else {
                    return;
                };
                let Some(kept) = store.claim(cookie, &text) else { return };
                self.conns[key].set_shared(true);
                if let Some(bridge) = self.conns.role(key).and_then(Role::bridge) {
                    kept.set_idle(idle(bridge));
                }
                kept.store(copy);
                Keeping::Kept(kept)
            }
        };
        if let Some(bridge) = self.conns.role_mut(key).and_then(Role::bridge_mut) {
            bridge.keeping = keeping;
        }
    }

    /// A bridge has come from another process, which had this slot for it.
    pub(super) fn keep_again(&mut self, key: usize, slot: Option<u32>) -> Keeping {
        let Some(slot) = slot else { return Keeping::NotYet };
        self.conns[key].set_shared(true);
        let Some(store) = &self.shared.bridge_store else { return Keeping::Never };
        let cookie = sys::cookie(&self.conns[key].conn.as_fd()).ok();
        let kept: Option<Kept> = cookie.and_then(|cookie| store.adopt(slot, cookie));
        kept.map_or(Keeping::NotYet, Keeping::Kept)
    }
}

fn idle(bridge: &Bridge) -> IdleBridge {
    let MovedBridge { is_fresh, until, parked_at, served, carried_body, .. } = bridge_note(bridge);
    IdleBridge { is_fresh, until, parked_at, served, carried_body }
}

/// What the table is to say of a bridge that does not change; nothing if that is too long.
fn text_of(moved: &Moved, registration: &str) -> Option<Vec<u8>> {
    let text = format!("{}\n{registration}", moved.line()).into_bytes();
    (text.len() <= LONGEST).then_some(text)
}

/// Reads the same, and what changes.
pub(super) fn read(found: &Found) -> Option<(Moved, Vec<u8>)> {
    let end = found.text.iter().position(|byte| *byte == b'\n')?;
    let line: Value = serde_json::from_slice(&found.text[..end]).ok()?;
    let mut moved = Moved::read(&line)?;
    let IdleBridge { is_fresh, until, parked_at, served, carried_body } = found.bridge;
    let slot = u32::try_from(found.slot).ok();
    match &mut moved.role {
        MovedRole::Bridge(bridge) | MovedRole::Swiftclient { bridge, .. } => {
            let is_proven = bridge.is_proven;
            *bridge =
                MovedBridge { is_fresh, until, parked_at, served, carried_body, is_proven, slot };
        }
        MovedRole::Client(_) => return None,
    }
    Some((moved, found.text[end + 1..].to_vec()))
}
