//! The agent as it is deployed: before applications that know nothing of it, restarted under load,
//! and on networks that go away.
//!
//! A load takes 8 seconds, and a minute with `CLOUDBRIDGE_LONG=1`.

// Applications that others have written.
mod flask;
mod nginx;
mod node;
mod program;
mod python;
mod units;

// Restarts under load.
mod backend;
mod client;
mod fleet;
mod load;
mod proxy;
mod rolling;

// Networks of their own: machines that vanish, small buffers, names, a cluster.
mod kubernetes;
mod names;
mod network;
mod slow;
mod vanishing;

pub use backend::{Backend, Ledger, MEMBERS};
pub use load::Load;
