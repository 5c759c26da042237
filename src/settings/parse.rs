//! From TOML to a configuration. Errors say where, and what is near.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{
    CommonConfig, DrillConfig, DrillLevel, RepositoryConfig, Settings, SourceConfig, SourceKind,
};

/// What stands at the top of a file.
const SECTIONS: [&str; 4] = ["repo", "source", "drill", "retention"];
/// Options of every source.
const COMMON: [&str; 6] = ["repo", "host", "tags", "before", "after", "on_error"];
const KINDS: [&str; 5] = ["sqlite", "postgres", "mysql", "command", "files"];

/// Parses a whole file. The error is for people.
pub fn parse(text: &str) -> Result<Settings, String> {
    let file: Table = text.parse().map_err(|error: toml::de::Error| syntax(text, &error))?;
    let mut settings = Settings::default();
    for (section, value) in file {
        match section.as_str() {
            "repo" => {
                for (name, value) in tables("repo", value)? {
                    let repository: RepositoryConfig = typed(&format!("repo.{name}"), value, &[])?;
                    settings.repositories.insert(name, repository);
                }
            }
            "source" => {
                for (name, value) in tables("source", value)? {
                    let source = source(&format!("source.{name}"), value)?;
                    settings.sources.insert(name, source);
                }
            }
            "drill" => {
                for (name, value) in tables("drill", value)? {
                    let drill: DrillConfig = typed(&format!("drill.{name}"), value, &[])?;
                    settings.drills.insert(name, drill);
                }
            }
            "retention" => {
                let Value::Table(table) = value else {
                    return Err("'retention' is no section: write [retention]".into());
                };
                settings.retention = Some(typed("retention", table, &[])?);
            }
            other => return Err(unknown("the file", other, &SECTIONS)),
        }
    }
    for (name, source) in &settings.sources {
        if let Some(repo) = &source.common.repo
            && !settings.repositories.contains_key(repo)
        {
            let known: Vec<&str> = settings.repositories.keys().map(String::as_str).collect();
            return Err(format!("[source.{name}]: {}", unknown("repo", repo, &known)));
        }
    }
    let sources: Vec<&str> = settings.sources.keys().map(String::as_str).collect();
    for (name, drill) in &settings.drills {
        if !sources.contains(&drill.source.as_str()) {
            let text = unknown("source", &drill.source, &sources);
            return Err(format!("[drill.{name}]: {text}"));
        }
        meaningful(drill, &settings.sources[&drill.source].kind)
            .map_err(|text| format!("[drill.{name}]: {text}"))?;
        for time in [&drill.rto, &drill.rpo].into_iter().flatten() {
            super::duration(time).ok_or_else(|| {
                format!("[drill.{name}]: '{time}' is no time: write 10m, 26h or 2d")
            })?;
        }
    }
    Ok(settings)
}

/// Refuses what a drill would not look at: people would take it for proved.
fn meaningful(drill: &DrillConfig, source: &SourceKind) -> Result<(), String> {
    if drill.rpo.is_some() && drill.newest.is_none() {
        return Err("rpo needs newest, the query that gives the time of the newest row".into());
    }
    let asks = drill.newest.is_some() || !drill.assert.is_empty();
    if asks && drill.level == DrillLevel::Read {
        return Err("assert and newest need level = \"restore\"".into());
    }
    let has_server =
        matches!(source, SourceKind::Postgres(_) | SourceKind::Mysql(_) | SourceKind::Command(_));
    let names_server =
        drill.scratch.is_some() || drill.bin_dir.is_some() || drill.password.is_some();
    if names_server && !has_server {
        return Err("scratch, password and bin_dir are for databases that have servers".into());
    }
    Ok(())
}

fn syntax(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
    let at = line.map_or_else(String::new, |line| format!("line {line}: "));
    format!("{at}{}", error.message())
}

/// The tables of a section, by name.
fn tables(section: &str, value: Value) -> Result<BTreeMap<String, Table>, String> {
    let Value::Table(names) = value else {
        return Err(format!("'{section}' is no section: write [{section}.NAME]"));
    };
    let mut tables = BTreeMap::new();
    for (name, value) in names {
        let Value::Table(table) = value else {
            return Err(format!("'{name}' stands in [{section}] itself: write [{section}.NAME]"));
        };
        tables.insert(name, table);
    }
    Ok(tables)
}

fn source(section: &str, mut table: Table) -> Result<SourceConfig, String> {
    let kind = match table.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err(format!("[{section}]: type must be a text")),
        None => return Err(format!("[{section}]: type is missing: one of {}", KINDS.join(", "))),
    };
    let mut common = Table::new();
    for key in COMMON {
        if let Some(value) = table.remove(key) {
            common.insert(key.to_owned(), value);
        }
    }
    let common: CommonConfig = typed(section, common, &[])?;
    let kind = match kind.as_str() {
        "sqlite" => SourceKind::Sqlite(typed(section, table, &COMMON)?),
        "postgres" => SourceKind::Postgres(Box::new(typed(section, table, &COMMON)?)),
        "mysql" => SourceKind::Mysql(typed(section, table, &COMMON)?),
        "command" => SourceKind::Command(typed(section, table, &COMMON)?),
        "files" => SourceKind::Files(typed(section, table, &COMMON)?),
        other => return Err(format!("[{section}]: {}", unknown("type", other, &KINDS))),
    };
    Ok(SourceConfig { common, kind })
}

/// The options of a section. `also` are keys that are known beside those of `T`.
fn typed<T: DeserializeOwned>(section: &str, table: Table, also: &[&str]) -> Result<T, String> {
    Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        let message = error.message();
        let Some(rest) = message.strip_prefix("unknown field `") else {
            let key = error.to_string();
            let place = key.lines().find_map(|line| line.strip_prefix("in `"));
            let place =
                place.map_or_else(String::new, |key| format!("{}: ", key.trim_end_matches('`')));
            return format!("[{section}]: {place}{message}");
        };
        // What is known stands in backticks behind the one that is not.
        let mut words = rest.split('`').step_by(2);
        let key = words.next().unwrap_or_default().to_owned();
        let mut parts = rest.split('`').skip(1);
        let _ = parts.next();
        let mut known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        known.extend(also);
        format!("[{section}]: {}", unknown("option", &key, &known))
    })
}

fn unknown(what: &str, key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("'{key}' is not known ({what}); is it '{near}'?"),
        None => format!("'{key}' is not known ({what}): {}", known.join(", ")),
    }
}

/// The name that is most like this one, if any is.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|other| (strsim::jaro_winkler(name, other), other));
    scored
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use super::super::{PostgresMode, SecretRef, SqliteCheck};
    use super::*;

    #[test]
    fn a_whole_file_is_understood() {
        let settings = parse(
            r#"
            [repo.main]
            url = "s3://backups/shop"
            password = "file:/etc/restow/password"
            [source.shop]
            type = "postgres"
            dsn = "postgres://backup@db/shop"
            password = "env:SHOP_PASSWORD"
            mode = "dump"
            repo = "main"
            tags = ["nightly"]
            [source.app]
            type = "sqlite"
            path = "/srv/app.db"
            check = "quick"
            [source.ldap]
            type = "command"
            command = ["slapcat"]
            min_bytes = 100
            [retention]
            keep_daily = 7
            "#,
        )
        .unwrap();
        let main = settings.repository(None).unwrap().unwrap();
        assert_eq!(main.password, Some(SecretRef::File("/etc/restow/password".into())));
        let SourceKind::Postgres(shop) = &settings.source("shop").unwrap().kind else { panic!() };
        assert_eq!((shop.mode, shop.jobs, shop.globals), (PostgresMode::Dump, 2, true));
        let SourceKind::Sqlite(app) = &settings.source("app").unwrap().kind else { panic!() };
        assert_eq!(app.check, SqliteCheck::Quick);
        assert_eq!(settings.retention.unwrap().keep_daily, Some(7));
    }

    #[test]
    fn what_is_not_known_is_named_with_what_is_near() {
        let problem = |text: &str| parse(text).unwrap_err();
        let source = "[source.a]\ntype = \"sqlite\"\npath = \"x\"\n";
        assert_eq!(problem("[repos.a]"), "'repos' is not known (the file); is it 'repo'?");
        let text = problem(&format!("{source}chek = \"full\""));
        assert_eq!(text, "[source.a]: 'chek' is not known (option); is it 'check'?");
        let text = problem(&format!("{source}tag = [\"x\"]"));
        assert_eq!(text, "[source.a]: 'tag' is not known (option); is it 'tags'?");
        let text = problem("[source.a]\ntype = \"postgresql\"");
        assert_eq!(text, "[source.a]: 'postgresql' is not known (type); is it 'postgres'?");
        let text = "[source.a]\ntype = \"postgres\"\ndsn = \"x\"\nexclude_tables = [\"a.b\"]";
        let expected = "[source.a]: 'exclude_tables' is not known (option); is it 'exclude_data'?";
        assert_eq!(problem(text), expected);
        let text = problem(&format!("{source}repo = \"mian\"\n[repo.main]\nurl = \"x\""));
        assert_eq!(text, "[source.a]: 'mian' is not known (repo); is it 'main'?");
        assert!(problem("[source.a]\npath = \"x\"").contains("type is missing"));
        assert!(problem("a = = 1").starts_with("line 1: "));
        assert!(problem("[repo]\nurl = \"x\"").contains("[repo.NAME]"));
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_not_shown() {
        let text = "[repo.a]\nurl = \"x\"\npassword = \"hunter2\"";
        let problem = parse(text).unwrap_err();
        assert!(problem.contains("env:NAME") && !problem.contains("hunter2"), "{problem}");
    }
}
