//! Peers that have closed their receive window: they are there, but do not read.
//!
//! TCP_USER_TIMEOUT finds a peer that has vanished. But the kernel also counts the time in which the
//! peer's closed window holds data back (tcp(7)), although a peer that pauses answers every probe
//! of its window. How long a peer may pause is for the deadlines of its connection to say. So
//! connections with bytes on their way are looked at several times within the timeout: while the
//! window is closed and the peer answers, the kernel's limit is moved on.

use std::time::Duration;

use super::conn::Conn;
use crate::time::Millis;

/// How many looks at a connection fit into the timeout.
pub(super) const LOOKS: u32 = 4;

/// A window that was found closed.
pub(super) struct ClosedWindow {
    since: Millis,
    /// How many bytes the peer had acknowledged by then.
    acknowledged: u64,
}

/// Looks at the peer of `conn`; `closed` is what was found before. `timeout` is TCP_USER_TIMEOUT.
pub(super) fn look(
    conn: &mut Conn,
    closed: &mut Option<Box<ClosedWindow>>,
    timeout: Duration,
    now: Millis,
) {
    let waiting = conn.send_queue() > 0;
    let peer = conn.peer_state();
    let (true, Ok(peer)) = (waiting, peer) else {
        conn.all_taken();
        return reopened(conn, closed, timeout);
    };
    if peer.in_flight > 0 {
        // The window is open: the kernel's limit counts from what was sent.
        return reopened(conn, closed, timeout);
    }
    let window = match closed {
        Some(window) if window.acknowledged == peer.acknowledged => window,
        _ => closed.insert(Box::new(ClosedWindow { since: now, acknowledged: peer.acknowledged })),
    };
    // The kernel probes the window again before its limit is reached, so a peer that is there has
    // been heard within the timeout, or between this look and the last.
    if peer.silent_for < timeout + timeout / LOOKS {
        conn.set_user_timeout(now.since(window.since) + timeout);
    }
}

/// Restores the limit.
fn reopened(conn: &mut Conn, closed: &mut Option<Box<ClosedWindow>>, timeout: Duration) {
    if closed.take().is_some() {
        conn.set_user_timeout(timeout);
    }
}
