//! All integration tests in one binary: it links once.

mod cli;
mod closure;
mod concurrency;
mod crash;
mod damage;
mod delta;
mod engine;
mod model;
mod support;
