//! Names of tables with `*` and `?` in them.

/// Patterns `SCHEMA.TABLE`, or `TABLE` in any schema.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// It is the very name of a table, whatever letters that has.
    is_name: bool,
}

impl Patterns {
    /// These patterns.
    pub fn new(patterns: &[String]) -> Self {
        let pattern = |text: &String| Pattern { text: text.clone(), is_name: false };
        Self(patterns.iter().map(pattern).collect())
    }

    /// What is the very name of one of these tables means that table alone.
    pub fn among<'a>(mut self, tables: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        for pattern in &mut self.0 {
            pattern.is_name = tables.clone().any(|(schema, table)| pattern.names(schema, table));
        }
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them fits a table.
    pub fn fit(&self, schema: &str, table: &str) -> bool {
        self.0.iter().any(|pattern| pattern.fits(schema, table))
    }

    /// The first that fits no table at all: most likely misspelt.
    pub fn unused<'a>(
        &self,
        tables: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Option<&str> {
        let is_used =
            |pattern: &&Pattern| tables.clone().any(|(schema, table)| pattern.fits(schema, table));
        self.0.iter().find(|pattern| !is_used(pattern)).map(|pattern| pattern.text.as_str())
    }
}

impl Pattern {
    // A name may hold dots itself.
    fn names(&self, schema: &str, table: &str) -> bool {
        self.text == table || self.text == format!("{schema}.{table}")
    }

    fn fits(&self, schema: &str, table: &str) -> bool {
        let (pattern, whole) = (self.text.as_bytes(), format!("{schema}.{table}"));
        let is_like = || is_glob(pattern, whole.as_bytes()) || is_glob(pattern, table.as_bytes());
        self.names(schema, table) || !self.is_name && is_like()
    }
}

/// `*` stands for any letters, `?` for one.
fn is_glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(b'?') => (at, place) = (at + 1, place + 1),
            Some(letter) if *letter == text[place] => (at, place) = (at + 1, place + 1),
            _ => match retry {
                Some((after, from)) => {
                    (at, place) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_shells_have_it() {
        let fit = |pattern: &str, schema: &str, table: &str| {
            Patterns::new(&[pattern.to_owned()]).fit(schema, table)
        };
        assert!(fit("public.*", "public", "a") && !fit("public.*", "other", "a"));
        assert!(fit("orders", "shop", "orders") && !fit("orders", "shop", "orders2"));
        assert!(fit("*.log_????", "x", "log_2024") && !fit("*.log_????", "x", "log_24"));
        assert!(fit("a*b*c", "s", "aXbYbZc") && !fit("a*b*c", "s", "acb"));
        assert!(fit("s.a.b", "s", "a.b"));
    }

    #[test]
    fn the_name_of_a_table_is_no_pattern() {
        let tables = [("s", "w*"), ("s", "wide")];
        let patterns = Patterns::new(&["s.w*".to_owned()]);
        assert!(patterns.fit("s", "wide"));
        let patterns = patterns.among(tables.into_iter());
        assert!(patterns.fit("s", "w*") && !patterns.fit("s", "wide"));
        assert!(Patterns::new(&["w*".into()]).among(tables[1..].iter().copied()).fit("s", "wide"));
    }

    #[test]
    fn what_fits_nothing_is_told() {
        let patterns = Patterns::new(&["s.a".to_owned(), "s.b".to_owned()]);
        assert_eq!(patterns.unused([("s", "a")].into_iter()), Some("s.b"));
        assert_eq!(patterns.unused([("s", "a"), ("s", "b")].into_iter()), None);
    }
}
