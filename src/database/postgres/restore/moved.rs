//! Tables that are restored apart from the rest: their schemas, and themselves in another schema.

use std::collections::BTreeSet;

use super::RestoreOptions;
use super::plan::Plan;
use super::session::{named, session};
use crate::catalogue::definitions::{inherits, moved};
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::inspect::quote;
use crate::error::{Error, Result};

/// Makes the schemas that tables are restored into, but for those that the archive makes.
pub fn make_schemas(plan: &Plan, options: &RestoreOptions) -> Result<()> {
    let mut client = session(&plan.archive, options)?;
    let entries = plan.archive.toc.entries.iter();
    let entries = entries.filter(|entry| plan.choice.pre_data.contains(&entry.dump_id));
    let is_made = |entry: &&TocEntry| {
        entry.desc == "SCHEMA" && entry.defn.trim_start().starts_with("CREATE SCHEMA")
    };
    let made: BTreeSet<&str> = entries.clone().filter(is_made).map(|it| &*it.tag).collect();
    let needed: BTreeSet<&str> = entries.map(|entry| &*entry.namespace).collect();
    for schema in needed.difference(&made).filter(|schema| !schema.is_empty()) {
        let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema));
        client.query(&make).map_err(|error| named(options, error))?;
    }
    Ok(())
}

/// Makes tables, or their keys, in another schema.
pub fn make(plan: &Plan, options: &RestoreOptions, schema: &str, kinds: &[&str]) -> Result<()> {
    let mut client = session(&plan.archive, options)?;
    let make = format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema));
    client.query(&make).map_err(|error| named(options, error))?;
    for load in &plan.loads {
        let (name, of) = (&load.table.name, &load.table.schema);
        for entry in &plan.archive.toc.entries {
            if !kinds.contains(&entry.desc.as_str()) || entry.namespace != *of {
                continue;
            }
            let Some(sql) = moved(&entry.defn, of, name, &load.target) else { continue };
            if inherits(&sql) {
                let text = format!(
                    "{of}.{name} inherits from another table: it cannot be restored into another \
                     schema"
                );
                return Err(Error::Usage(text));
            }
            client.query(&sql).map_err(|error| named(options, error))?;
        }
    }
    Ok(())
}
