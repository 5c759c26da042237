//! What ties restored tables to those that were not restored with them: made last, one by one.

use super::RestoreOptions;
use super::plan::Plan;
use super::session::{named, session};
use crate::catalogue::toc::TocEntry;
use crate::database::postgres::client::Client;
use crate::database::postgres::error::PgError;
use crate::database::source_error;
use crate::error::Result;

/// Makes them, and adds to `warnings` what should be known of it. What was there before the restore must
/// come back: where it does not, that is an error, after the others were made.
pub fn tie(plan: &Plan, options: &RestoreOptions, warnings: &mut Vec<String>) -> Result<()> {
    let mut client = session(&plan.archive, options)?;
    let mut failed = Vec::new();
    for entry in plan.choice.links.iter().filter_map(|id| plan.entry(*id)) {
        match one(&mut client, entry) {
            Ok(None) => {}
            Ok(Some(warning)) => warnings.push(warning),
            Err(error @ PgError::Server(_)) => {
                let text = format!("{} {}.{}: {error}", kind(entry), entry.namespace, entry.tag);
                failed.push(text);
            }
            Err(error) => return Err(named(options, error)),
        }
    }
    if !options.clean {
        warnings.extend(failed.drain(..).map(|text| format!("left out: {text}")));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(source_error(&options.target.address(), failed.join("; "))),
    }
}

fn kind(entry: &TocEntry) -> String {
    match entry.desc.as_str() {
        "FK CONSTRAINT" => "the foreign key".to_owned(),
        "TABLE ATTACH" => "the partition".to_owned(),
        other => other.to_lowercase(),
    }
}

/// Makes one. Rows of a foreign key that do not fit keep it from being valid, not from being made.
fn one(client: &mut Client, entry: &TocEntry) -> Result<Option<String>, PgError> {
    match client.query(&entry.defn) {
        Ok(_) => Ok(None),
        // 23503: rows refer to others that are not there.
        Err(error) if error.code() == "23503" && entry.desc == "FK CONSTRAINT" => {
            let definition = entry.defn.trim_end().trim_end_matches(';');
            client.query(&format!("{definition} NOT VALID"))?;
            let (schema, tag) = (&entry.namespace, &entry.tag);
            Ok(Some(format!(
                "the foreign key {schema}.{tag} is NOT VALID, rows do not fit: {error}"
            )))
        }
        Err(error) => Err(error),
    }
}
