//! What single statements and comments of mariadb-dump and mysqldump say: names, columns, keys,
//! places in the binary log.

use super::Position;

/// What a comment opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heading {
    Table(String),
    Rows(String),
    /// The database that all below belongs to.
    Database(String),
    /// A view, a sequence, routines, events.
    Other,
}

/// Reads a comment line that stands before an object. A name with a line break goes on in the next
/// line: it is empty here, and the statements below tell it.
pub(super) fn heading(line: &str) -> Option<Heading> {
    let line = line.strip_prefix("-- ")?;
    let whole = |text: &str| match is_open(text) {
        true => Some(String::new()),
        false => Some(name_at(text)?.0),
    };
    if let Some(name) = line.strip_prefix("Table structure for table ") {
        return Some(Heading::Table(whole(name)?));
    }
    if let Some(name) = line.strip_prefix("Dumping data for table ") {
        return Some(Heading::Rows(whole(name)?));
    }
    if let Some(name) = line.strip_prefix("Current Database: ") {
        return Some(Heading::Database(whole(name)?));
    }
    let others = [
        "Temporary table structure for ",
        "Temporary view structure for ",
        "Final view structure for ",
        "Sequence structure for ",
        "Dumping routines for ",
        "Dumping events for ",
    ];
    others.iter().any(|other| line.starts_with(other)).then_some(Heading::Other)
}

/// Whether a backquote is open at the end of a line.
pub(super) fn is_open(line: &str) -> bool {
    line.matches('`').count() % 2 == 1
}

/// The database that a statement goes into, or makes.
pub(super) fn database_of(statement: &str) -> Option<String> {
    let name = match statement.strip_prefix("USE ") {
        Some(name) => name,
        None => {
            let rest = statement.strip_prefix("CREATE DATABASE ")?;
            &rest[rest.find('`')?..]
        }
    };
    Some(name_at(name.trim_start())?.0)
}

/// A name at the start of `text`, in backquotes or bare, and what follows.
pub fn name_at(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('`') else {
        let end = text.find([' ', '(', ';', ',', '\n']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (part, behind) = rest.split_once('`')?;
        name.push_str(part);
        match behind.strip_prefix('`') {
            Some(more) => rest = more,
            None => return Some((name, behind)),
        }
        name.push('`');
    }
}

/// The name behind `CREATE TABLE`, `LOCK TABLES`, `INSERT INTO`, …
pub(super) fn name_after(statement: &str, keywords: &str) -> Option<String> {
    // A table of another name before it would be in quotes, which no keyword is.
    let end = statement.find('`').unwrap_or(statement.len());
    let start = statement[..end].rfind(keywords)? + keywords.len();
    Some(name_at(statement[start..].trim_start())?.0)
}

/// The columns that an `INSERT` lists.
pub(super) fn insert_columns(statement: &str) -> Vec<String> {
    let listed = || {
        let table = statement.split_once(" INTO ")?.1;
        let (_, rest) = name_at(table)?;
        Some(names(rest.trim_start().strip_prefix('(')?))
    };
    listed().unwrap_or_default()
}

fn names(mut list: &str) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((name, rest)) =
        list.trim_start().strip_prefix('`').and(name_at(list.trim_start()))
    {
        names.push(name);
        // The length of a prefix or an order may follow, in parentheses or as a word.
        let mut depth = 0usize;
        let next = rest.char_indices().find(|(_, char)| {
            match char {
                '(' => depth += 1,
                ')' if depth > 0 => depth -= 1,
                ',' | ')' if depth == 0 => return true,
                _ => {}
            }
            false
        });
        match next {
            Some((at, ',')) => list = &rest[at + 1..],
            _ => break,
        }
    }
    names
}

/// The columns and the primary key of a `CREATE TABLE`, which the server writes a line each.
pub(super) fn table_columns(statement: &str) -> (Vec<String>, Vec<String>) {
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    for line in statement.lines().skip(1).map(str::trim_start) {
        if line.starts_with('`') {
            columns.extend(name_at(line).map(|(name, _)| name));
        } else if let Some(list) = line.strip_prefix("PRIMARY KEY (") {
            key = names(list);
        }
    }
    (columns, key)
}

/// A definition without the counter of the table, which rows move.
pub(super) fn without_counter(statement: &str) -> String {
    let end = statement.rfind("\n)").unwrap_or(0);
    let (body, options) = statement.split_at(end);
    let Some((before, after)) = options.split_once(" AUTO_INCREMENT=") else {
        return statement.to_owned();
    };
    let after = after.trim_start_matches(|char: char| char.is_ascii_digit());
    [body, before, after].concat()
}

/// The accounts that views, triggers and routines run as.
pub(super) fn definer(statement: &str) -> Option<String> {
    let (user, rest) = name_at(statement.split_once("DEFINER=")?.1)?;
    let (host, _) = name_at(rest.strip_prefix('@')?)?;
    Some(format!("{user}@{host}"))
}

/// Takes up places in the binary log that a line or statement tells.
pub(super) fn note_position(text: &str, position: &mut Position) {
    let upper = text.to_ascii_uppercase();
    let value = |key: &str| {
        let at = upper.find(key)? + key.len();
        Some(text[at..].trim_start().strip_prefix('=')?.trim_start())
    };
    let file = value("MASTER_LOG_FILE").or_else(|| value("SOURCE_LOG_FILE"));
    let place = value("MASTER_LOG_POS").or_else(|| value("SOURCE_LOG_POS"));
    if let Some(file) = file.and_then(quoted) {
        position.binlog_file = file;
    }
    if let Some(place) = place {
        let end = place.find(|char: char| !char.is_ascii_digit()).unwrap_or(place.len());
        position.binlog_position = place[..end].parse().unwrap_or_default();
    }
    let gtid = value("GTID_SLAVE_POS").or_else(|| value("GTID_PURGED"));
    // MySQL writes /*!80000 '+'*/ before the set.
    let gtid = gtid.map(|set| set.split_once("*/").map_or(set, |(_, set)| set).trim_start());
    if let Some(gtid) = gtid.and_then(quoted) {
        let parts = gtid.split_whitespace();
        position.gtid = parts.collect::<String>().trim_start_matches('+').to_owned();
    }
}

fn quoted(text: &str) -> Option<String> {
    Some(text.strip_prefix('\'')?.split_once('\'')?.0.to_owned())
}

/// The version of a program in `-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for …`.
pub(super) fn tool(line: &str) -> Option<String> {
    let (program, rest) = match line.strip_prefix("-- MariaDB dump ") {
        Some(rest) => ("mariadb-dump", rest),
        None => ("mysqldump", line.strip_prefix("-- MySQL dump ")?),
    };
    let named = rest.split(',').next().unwrap_or(rest).trim();
    let version = match named.split_once("Distrib ") {
        Some((_, version)) => version,
        None => named.split_once('-').map_or(named, |(_, version)| version),
    };
    let version = version.strip_suffix("-MariaDB").unwrap_or(version);
    Some(format!("{program} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_backquotes() {
        assert_eq!(name_at("`a``b` x"), Some(("a`b".to_owned(), " x")));
        assert_eq!(name_at("`a"), None);
        assert_eq!(heading("-- Table structure for table `t`"), Some(Heading::Table("t".into())));
        let into = "INSERT INTO `a` (`b`, `c)`) VALUES (1,2);";
        assert_eq!(name_after(into, " INTO "), Some("a".to_owned()));
        assert_eq!(insert_columns(into), ["b", "c)"]);
        assert!(insert_columns("INSERT INTO `a` VALUES (1)").is_empty());
    }

    #[test]
    fn columns_and_key_come_from_the_definition() {
        let text = "CREATE TABLE `t` (\n  `a` int,\n  `b``` text COMMENT '`x',\n  \
            PRIMARY KEY (`a`,`b```(10) DESC),\n  KEY `k` (`a`)\n) ENGINE=InnoDB \
            AUTO_INCREMENT=12 DEFAULT CHARSET=utf8mb4;";
        let (columns, key) = table_columns(text);
        assert_eq!((columns, key), (vec!["a".into(), "b`".into()], vec!["a".into(), "b`".into()]));
        assert!(without_counter(text).ends_with("ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;"));
    }

    #[test]
    fn places_in_the_binary_log_are_read() {
        let mut position = Position::default();
        note_position(
            "-- CHANGE MASTER TO MASTER_LOG_FILE='b.1', MASTER_LOG_POS=42;",
            &mut position,
        );
        note_position("-- SET GLOBAL gtid_slave_pos='0-7-23';", &mut position);
        assert_eq!((position.binlog_file.as_str(), position.binlog_position), ("b.1", 42));
        assert_eq!(position.gtid, "0-7-23");
        let text = "CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='c', SOURCE_LOG_POS=7;";
        note_position(text, &mut position);
        let text = "SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'a:1-5,\nb:1';";
        note_position(text, &mut position);
        assert_eq!((position.binlog_file.as_str(), position.binlog_position), ("c", 7));
        assert_eq!(position.gtid, "a:1-5,b:1");
    }

    #[test]
    fn programs_are_named_with_their_versions() {
        let line = "-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)";
        assert_eq!(tool(line).as_deref(), Some("mariadb-dump 10.11.6"));
        let line = "-- MariaDB dump 10.19-11.4.2-MariaDB, for debian-linux-gnu (x86_64)";
        assert_eq!(tool(line).as_deref(), Some("mariadb-dump 11.4.2"));
        let line = "-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)";
        assert_eq!(tool(line).as_deref(), Some("mysqldump 8.0.36"));
    }
}
