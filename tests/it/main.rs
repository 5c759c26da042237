//! All integration tests in one binary: it links once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod closure;
mod concurrency;
mod crash;
mod damage;
mod delta;
mod emulators;
mod engine;
mod files;
mod keys;
mod liar;
mod model;
mod mount;
mod object;
mod postgres;
mod prune;
mod restore;
mod salvage;
mod seaweed;
mod sftp;
mod support;
