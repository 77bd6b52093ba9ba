//! The buffers and pipes that a worker lends to the call in progress.

use super::buffer::Pool;
use super::pipe::Pipes;

/// The size of the buffer for all reads. Bulk copying costs much less with reads of this size than
/// with 64 KiB, and a slow peer can make us keep at most one read. A small read touches only the
/// beginning.
const SCRATCH: usize = 256 * 1024;

/// Room for heads and small bodies before the output buffer must grow.
const OUT: usize = 64 * 1024;

/// Lent to the call in progress. Nothing in it outlives the call.
pub struct Workspace {
    /// Bytes just read.
    pub scratch: Box<[u8]>,
    /// Bytes about to be sent.
    pub out: Vec<u8>,
    /// Storage for bytes that must be kept.
    pub pool: Pool,
    /// Pipes for bytes that never enter the process.
    pub pipes: Pipes,
    /// What has crossed the loop so far.
    pub traffic: Traffic,
}

/// Bytes that the requesters of a loop have sent and been sent, heads and bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By them.
    pub received: u64,
    /// To them.
    pub sent: u64,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace {
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            out: Vec::with_capacity(OUT),
            pool: Pool::default(),
            pipes: Pipes::default(),
            traffic: Traffic::default(),
        }
    }
}
