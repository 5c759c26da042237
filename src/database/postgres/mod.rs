//! PostgreSQL: reading a database under one snapshot, and putting it back.

mod auth;
pub mod backup;
pub mod client;
pub mod dsn;
pub mod error;
pub mod inspect;
mod link;
mod sessions;
mod tls;
pub mod tools;
