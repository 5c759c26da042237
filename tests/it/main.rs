//! All integration tests in one binary: it links once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli;
mod closure;
mod concurrency;
mod copy;
mod crash;
mod damage;
mod delta;
mod emulators;
mod engine;
mod files;
mod forget;
mod json;
mod keys;
mod liar;
mod mariadb;
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
mod sources_command;
mod sources_mysql;
mod sources_sqlite;
mod support;
mod trust;
