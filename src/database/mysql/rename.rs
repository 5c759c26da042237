//! A dump names its databases; where it goes into another, those lines name that one instead. They are
//! lines of the dump program's own: rows are never at the start of one with such words.

use std::collections::BTreeSet;

use super::identifier;

/// From the databases of a dump to another.
pub struct Rename {
    /// Names in the dump.
    pub sources: BTreeSet<String>,
    /// The name to use instead.
    pub target: String,
    /// It is new: it gets the character set of the old one.
    pub is_made: bool,
}

impl Rename {
    /// What to put in place of a line; none where it stays as it is.
    pub fn line(&self, line: &[u8]) -> Option<Vec<u8>> {
        let is_candidate = [b"USE ".as_slice(), b"CREATE DATABASE ", b"ALTER DATABASE "]
            .iter()
            .any(|verb| line.starts_with(verb));
        if !is_candidate {
            return None;
        }
        let line = std::str::from_utf8(line).ok()?;
        let target = identifier(&self.target);
        if let Some(rest) = self.after_name(line, "USE ") {
            return rest.trim_end().eq(";").then(|| format!("USE {target};\n").into_bytes());
        }
        if let Some(rest) = self.after_name(line, "ALTER DATABASE ") {
            return Some(format!("ALTER DATABASE {target}{rest}").into_bytes());
        }
        let rest = self.after_name(line, "CREATE DATABASE /*!32312 IF NOT EXISTS*/ ")?;
        let keeps = self.is_made && rest.contains("CHARACTER SET");
        Some(if keeps { format!("ALTER DATABASE {target}{rest}").into_bytes() } else { Vec::new() })
    }

    /// What stands behind the name of one of the databases.
    fn after_name<'a>(&self, line: &'a str, verb: &str) -> Option<&'a str> {
        let rest = line.strip_prefix(verb)?;
        let mut names = self.sources.iter().map(|name| identifier(name));
        names.find_map(|name| rest.strip_prefix(&name).filter(|rest| !rest.starts_with('`')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_the_old_database_name_the_new_one() {
        let sources = ["shop".to_owned(), "a`b".to_owned()].into();
        let mut rename = Rename { sources, target: "n`w".into(), is_made: true };
        let edited = |rename: &Rename, line: &str| {
            rename.line(line.as_bytes()).map(|line| String::from_utf8(line).unwrap())
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(edited(&rename, "USE `shop`;\n"), is("USE `n``w`;\n"));
        assert_eq!(edited(&rename, "USE `a``b`;\n"), is("USE `n``w`;\n"));
        assert_eq!(edited(&rename, "USE `other`;\n"), None);
        assert_eq!(edited(&rename, "INSERT INTO `shop` VALUES\n"), None);
        let alter = "ALTER DATABASE `shop` CHARACTER SET x COLLATE y ;;\n";
        let altered = "ALTER DATABASE `n``w` CHARACTER SET x COLLATE y ;;\n";
        assert_eq!(edited(&rename, alter), is(altered));
        let create = "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop` /*!40100 DEFAULT CHARACTER SET x */;\n";
        let created = "ALTER DATABASE `n``w` /*!40100 DEFAULT CHARACTER SET x */;\n";
        assert_eq!(edited(&rename, create), is(created));
        rename.is_made = false;
        assert_eq!(edited(&rename, create), is(""));
    }
}
