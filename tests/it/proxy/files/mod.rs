//! Files: what a site serves by itself, and when a request goes to a backend as if there were none.

mod limits;
mod named;
mod nginx;
mod pages;
mod serving;
mod slow_disk;
mod traversal;
mod tree;
