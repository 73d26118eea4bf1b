//! The development tasks of klto: what the machine needs, kernel sources, builds and boots.
//!
//! Everything that is fetched or built lies in the development cache, never in the repository.
//! `main.rs` names the commands; nothing here knows their arguments.

pub mod bench;
pub mod boot;
pub mod btf;
pub mod build_log;
pub mod cache;
mod choice;
pub mod command;
pub mod demo;
pub mod initramfs;
pub mod kernel;
pub mod matrix;
pub mod modules;
mod names;
pub mod new_make;
pub mod observe;
pub mod oracle;
pub mod packages;
pub mod product;
pub mod qemu;
mod releases;
pub mod sources;
pub mod suites;
pub mod test;
mod verdict;
