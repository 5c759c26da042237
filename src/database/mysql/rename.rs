//! A dump names its databases; where it goes into another, its own statements name that one instead.
//! Bodies of routines, triggers and events stay as they were written.

use std::collections::BTreeSet;

use super::identifier;
use crate::catalogue::name_at;

/// From the databases of a dump to another.
pub struct Rename {
    /// Names in the dump.
    pub sources: BTreeSet<String>,
    /// The name to use instead.
    pub target: String,
    /// It is new: it gets the character set of the old one.
    pub is_made: bool,
}

/// What servers write with the database of a sequence, in defaults of columns and in views.
const SEQUENCES: [&str; 3] = ["nextval", "lastval", "setval"];

impl Rename {
    /// What to put in place of a statement; none where it stays as it is.
    pub fn statement(&self, text: &str, is_body: bool) -> Option<String> {
        let target = identifier(&self.target);
        if let Some(rest) = self.after_name(text, "USE ") {
            return Some(format!("USE {target}{rest}"));
        }
        if let Some(rest) = self.after_name(text, "ALTER DATABASE ") {
            return Some(format!("ALTER DATABASE {target}{rest}"));
        }
        if self.after_name(text, "/*!40000 DROP DATABASE IF EXISTS ").is_some() {
            // The old one stays; of the new one, tables are dropped one by one.
            return Some(String::new());
        }
        if let Some(rest) = self.after_name(text, "CREATE DATABASE /*!32312 IF NOT EXISTS*/ ") {
            let keeps = self.is_made && rest.contains("CHARACTER SET");
            let text = if keeps { format!("ALTER DATABASE {target}{rest}") } else { String::new() };
            return Some(text);
        }
        let is_definition =
            !is_body && !text.starts_with("INSERT ") && !text.starts_with("REPLACE ");
        if is_definition && text.contains("val(`") { self.sequences(text, &target) } else { None }
    }

    /// Sequences of the old database are the new one's.
    fn sequences(&self, text: &str, target: &str) -> Option<String> {
        let (mut out, mut rest, mut is_changed) = (String::new(), text, false);
        while let Some(at) = rest.find(['\'', '"', '`', '(']) {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let Some(arguments) = from.strip_prefix('(') else {
                let len = quoted_len(from);
                out.push_str(&from[..len]);
                rest = &from[len..];
                continue;
            };
            out.push('(');
            rest = arguments;
            let is_sequence = SEQUENCES.iter().any(|name| before.ends_with(name));
            let behind = self.after_name(arguments, "").filter(|_| is_sequence);
            if let Some(behind) = behind.filter(|behind| behind.starts_with('.')) {
                out.push_str(target);
                (rest, is_changed) = (behind, true);
            }
        }
        out.push_str(rest);
        is_changed.then_some(out)
    }

    /// What stands behind the name of one of the databases.
    fn after_name<'a>(&self, text: &'a str, verb: &str) -> Option<&'a str> {
        let (name, rest) = name_at(text.strip_prefix(verb)?)?;
        self.sources.contains(&name).then_some(rest)
    }
}

/// The length of a text or name in quotes. A doubled quote ends one and begins another.
fn quoted_len(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if quote != b'`' => is_escaped = true,
            byte if byte == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename() -> Rename {
        let sources = ["shop".to_owned(), "a`b".to_owned()].into();
        Rename { sources, target: "n`w".into(), is_made: true }
    }

    #[test]
    fn statements_that_name_the_old_database_name_the_new_one() {
        let mut rename = rename();
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(rename.statement("USE `shop`;", false), is("USE `n``w`;"));
        assert_eq!(rename.statement("USE `a``b`;", false), is("USE `n``w`;"));
        assert_eq!(rename.statement("USE shop;", false), is("USE `n``w`;"));
        assert_eq!(rename.statement("USE `other`;", false), None);
        let dropped = "/*!40000 DROP DATABASE IF EXISTS `shop`*/;";
        assert_eq!(rename.statement(dropped, false), is(""));
        assert_eq!(rename.statement("INSERT INTO `shop` VALUES\n;", false), None);
        let alter = "ALTER DATABASE `shop` CHARACTER SET x COLLATE y ;;";
        let altered = "ALTER DATABASE `n``w` CHARACTER SET x COLLATE y ;;";
        assert_eq!(rename.statement(alter, true), is(altered));
        let create =
            "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET x */;";
        let created = "ALTER DATABASE `n``w` /*!40100 DEFAULT CHARACTER SET x */;";
        assert_eq!(rename.statement(create, false), is(created));
        rename.is_made = false;
        assert_eq!(rename.statement(create, false), is(""));
    }

    #[test]
    fn sequences_of_the_old_database_are_the_new_ones() {
        let text = "CREATE TABLE `t` (\n  `shop` int DEFAULT nextval(`shop`.`sq`),\n  `x` text \
            DEFAULT 'it\\'s nextval(`shop`.`sq`)' COMMENT 'a''(',\n  `y` int DEFAULT \
            lastval(`other`.`sq`),\n  `z` int DEFAULT nextval(`a``b`.`sq`)\n);";
        let expected = text
            .replace("DEFAULT nextval(`shop`", "DEFAULT nextval(`n``w`")
            .replace("nextval(`a``b`", "nextval(`n``w`");
        assert_eq!(rename().statement(text, false), Some(expected));
        assert_eq!(rename().statement(text, true), None);
        let rows = "INSERT INTO `t` VALUES (nextval(`shop`.`sq`));";
        assert_eq!(rename().statement(rows, false), None);
    }
}
