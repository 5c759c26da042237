//! Names of tables with `*` and `?` in them.

/// Patterns `SCHEMA.TABLE`, or `TABLE` in any schema.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<String>);

impl Patterns {
    /// These patterns.
    pub fn new(patterns: &[String]) -> Self {
        Self(patterns.to_vec())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them fits a table.
    pub fn fit(&self, schema: &str, table: &str) -> bool {
        self.0.iter().any(|pattern| is_match(pattern, schema, table))
    }

    /// The first that fits no table at all: most likely misspelt.
    pub fn unused<'a>(
        &self,
        tables: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> Option<&str> {
        let is_used = |pattern: &&String| {
            tables.clone().any(|(schema, table)| is_match(pattern, schema, table))
        };
        self.0.iter().find(|pattern| !is_used(pattern)).map(String::as_str)
    }
}

fn is_match(pattern: &str, schema: &str, table: &str) -> bool {
    // A name may hold dots itself.
    let whole = format!("{schema}.{table}");
    is_glob(pattern.as_bytes(), whole.as_bytes()) || is_glob(pattern.as_bytes(), table.as_bytes())
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
    fn what_fits_nothing_is_told() {
        let patterns = Patterns::new(&["s.a".to_owned(), "s.b".to_owned()]);
        assert_eq!(patterns.unused([("s", "a")].into_iter()), Some("s.b"));
        assert_eq!(patterns.unused([("s", "a"), ("s", "b")].into_iter()), None);
    }
}
