//! The example files in `conf/` for haproxy and nginx, with the real programs. Nothing of them is
//! changed but addresses, ports and paths.

mod bridges;
mod certificate;
mod conduct;
mod example;
mod front;
mod haproxy;
mod nginx;
mod two_proxies;
