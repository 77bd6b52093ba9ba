//! An exchange over real sockets, whose peers send, read, shut down, close and reset at any point.
//!
//! An input is three bytes of circumstances, a script up to the end of the line, the client's bytes
//! up to a record separator, and the backend's. In the script each letter is an event, some with a
//! number after them (`peer::size`); everything else is a turn of the event loop:
//!
//! ```text
//!     r# client sends     R# it sends filler    d# it reads    f FIN    x closes    X resets
//!     a# backend sends    A# it sends filler    u# it reads    g FIN    y closes    Y resets
//! ```
//!
//! What must hold, whatever the order: each side has received a beginning of what it may receive,
//! a finished response is whole, a retry is one that the request allows, what follows the request
//! is still there, and in the end pipes, slots and the exchange's place are free.

mod checks;
mod circumstances;
mod expected;
mod owner;
mod peer;

use crate::exchange::RequestMeta;
use crate::http::request;

use super::input::Input;
use circumstances::{CLIENT, Circumstances};
use owner::Owner;

/// Ends the client's bytes. No head contains it.
const SEPARATOR: u8 = 0x1e;

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let circumstances = Circumstances::read(&mut input);
    let script = input.until(b'\n');
    let client = input.until(SEPARATOR);
    let backend = input.rest();
    let mut storage = request::storage();
    let parsed = request::parse(client, &mut storage, &circumstances.config.limits);
    // A head that is partial or refused never begins an exchange.
    let Ok(Some(request)) = parsed else { return };
    let meta = RequestMeta::of(&request, CLIENT, &circumstances.config);
    let Some(owner) = Owner::new(circumstances.clone(), meta, script, client, backend) else {
        return;
    };
    let log = owner.run();
    checks::check(&request, &circumstances, &log);
}
