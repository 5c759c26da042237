//! All integration tests in one binary: it links once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod closure;
mod concurrency;
mod copy;
mod crash;
mod damage;
mod databases;
mod databases_restore;
mod delta;
mod drills;
mod emulators;
mod engine;
mod files;
mod forget;
mod json;
mod keys;
mod liar;
mod model;
mod mount;
mod object;
mod observe;
mod postgres;
mod prune;
mod repair;
mod repair_limits;
mod restore;
mod salvage;
mod schedule;
mod seaweed;
mod sftp;
mod sim;
mod soak;
mod support;
mod trust;
mod unpacked;
