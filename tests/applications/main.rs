//! The agent as it is deployed: before applications that know nothing of it, restarted under load, and on networks that go away.
//!
//! A load takes 8 seconds, and a minute with `CLOUDBRIDGE_LONG=1`.

// This binary uses a part of what the other tests need.
#[allow(dead_code, unused_imports)]
#[path = "../common/mod.rs"]
mod common;

#[allow(dead_code)]
#[path = "../agent/agent.rs"]
mod agent;
#[allow(dead_code)]
#[path = "../agent/app.rs"]
mod app;

// Applications that others have written.
mod flask;
mod nginx;
mod node;
mod program;
mod python;
mod units;

// Restarts under load.
mod asker;
mod backend;
mod fleet;
mod load;
mod proxy;
mod rolling;

// Machines that vanish.
mod network;
mod vanishing;
