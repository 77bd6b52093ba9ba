//! The agent from outside, one behaviour a file: the real agent between an application of the
//! test's and the real proxy, or a proxy that the test plays itself.

// What crosses the agent.
mod gone;
mod send_proxy;
mod serving;
mod tunnels;

// Who is there, and how much of it.
mod application;
mod capacity;
mod checks;
mod dying;
mod places;
mod proofs;
mod proxies;
mod retries;

// The process.
mod deregistration;
mod exit_idle;
mod health;
mod options;
mod reload;
mod shutdown;
mod systemd;
mod upgrade;
mod upgrade_tls;
