//! PostgreSQL: reading a database under one snapshot, and putting it back.

mod auth;
pub mod backup;
pub mod check;
pub mod client;
pub mod dsn;
mod dump;
pub mod error;
pub mod inspect;
mod link;
mod locks;
pub mod restore;
mod sessions;
pub mod sql;
mod tls;
pub mod tools;
