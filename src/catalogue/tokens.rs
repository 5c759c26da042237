//! The words of one SQL statement of PostgreSQL: names, strings, signs; comments and blanks are left
//! out. Lazy: the rest of a long statement is not looked at.

/// A word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, a bare name or a number.
    Word(String),
    /// A name in double quotes, which are taken off.
    Quoted(String),
    /// A string, its quotes taken off; bodies in dollar quotes are left empty.
    Text(String),
    /// Any other character.
    Sign(char),
}

/// Gives the words of a statement one after the other.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// At the start of `statement`.
    pub fn new(statement: &'a str) -> Self {
        Self { rest: statement }
    }

    /// How many bytes of the statement were not taken yet, blanks before the next word left out.
    pub fn left(&mut self) -> usize {
        self.skip_blanks();
        self.rest.len()
    }

    /// How many bytes stand behind the word that was taken last.
    pub fn behind(&self) -> usize {
        self.rest.len()
    }

    /// The next word; `None` at the end.
    pub fn token(&mut self) -> Option<Token> {
        self.skip_blanks();
        let first = self.rest.chars().next()?;
        if let ('e' | 'E', Some(string)) = (first, self.rest.get(1..))
            && string.starts_with('\'')
        {
            self.rest = string;
            return Some(Token::Text(self.quoted('\'', true)));
        }
        Some(match first {
            '"' => Token::Quoted(self.quoted('"', false)),
            '\'' => Token::Text(self.quoted('\'', false)),
            '$' if self.skip_dollars() => Token::Text(String::new()),
            _ if is_word(first) => Token::Word(self.word()),
            _ => {
                self.rest = &self.rest[first.len_utf8()..];
                Token::Sign(first)
            }
        })
    }

    /// The next word without taking it.
    pub fn peek(&self) -> Option<Token> {
        self.clone().token()
    }

    /// Takes the next word if it is this keyword.
    pub fn accept(&mut self, keyword: &str) -> bool {
        self.accept_token(|token| is_keyword(token, keyword))
    }

    /// Takes the next word if it is this sign.
    pub fn accept_sign(&mut self, sign: char) -> bool {
        self.accept_token(|token| *token == Token::Sign(sign))
    }

    fn accept_token(&mut self, wanted: impl Fn(&Token) -> bool) -> bool {
        let mut ahead = self.clone();
        let found = ahead.token().is_some_and(|token| wanted(&token));
        if found {
            *self = ahead;
        }
        found
    }

    /// Takes the next words if they are these keywords, in this order.
    pub fn accept_all(&mut self, keywords: &[&str]) -> bool {
        let mut ahead = self.clone();
        let found = keywords.iter().all(|keyword| ahead.accept(keyword));
        if found {
            *self = ahead;
        }
        found
    }

    /// Goes behind the next such keyword outside of parentheses, but not behind the statement's end.
    pub fn skip_past(&mut self, keyword: &str) -> bool {
        let mut depth = 0usize;
        while let Some(token) = self.token() {
            match token {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth = depth.saturating_sub(1),
                Token::Sign(';') if depth == 0 => return false,
                _ if depth == 0 && is_keyword(&token, keyword) => return true,
                _ => {}
            }
        }
        false
    }

    /// Goes behind the next semicolon outside of parentheses.
    pub fn skip_statement(&mut self) {
        while !matches!(self.token(), None | Some(Token::Sign(';'))) {}
    }

    /// A name, quoted or not.
    pub fn identifier(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        let (Token::Word(name) | Token::Quoted(name)) = ahead.token()? else { return None };
        *self = ahead;
        Some(name)
    }

    /// A name with the names before it, as `schema.table`.
    pub fn path(&mut self) -> Option<Vec<String>> {
        let mut path = vec![self.identifier()?];
        while self.accept_sign('.') {
            path.push(self.identifier()?);
        }
        Some(path)
    }

    /// The first name of each item of a list in parentheses.
    pub fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        if !self.accept_sign('(') {
            return names;
        }
        while let Some(name) = self.identifier() {
            names.push(name);
            let mut depth = 0usize;
            loop {
                match self.token() {
                    Some(Token::Sign(',')) if depth == 0 => break,
                    Some(Token::Sign('(')) => depth += 1,
                    Some(Token::Sign(')')) if depth > 0 => depth -= 1,
                    None | Some(Token::Sign(')')) => return names,
                    Some(_) => {}
                }
            }
        }
        names
    }

    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let end = match self.rest {
                rest if rest.starts_with("--") => rest.find('\n'),
                rest if rest.starts_with("/*") => rest.find("*/").map(|at| at + 2),
                _ => return,
            };
            self.rest = end.and_then(|end| self.rest.get(end..)).unwrap_or_default();
        }
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c| !is_word(c) && c != '$').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn quoted(&mut self, quote: char, backslashes: bool) -> String {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            if char == '\\' && backslashes {
                out.extend(chars.next().map(|(_, escaped)| escaped));
            } else if char != quote {
                out.push(char);
            } else if self.rest[at + 1..].starts_with(quote) {
                out.push(quote);
                chars.next();
            } else {
                self.rest = &self.rest[at + 1..];
                return out;
            }
        }
        self.rest = "";
        out
    }

    fn skip_dollars(&mut self) -> bool {
        let Some(tag_end) = self.rest[1..].find('$').map(|at| at + 2) else { return false };
        let tag = &self.rest[..tag_end];
        if !tag[1..tag_end - 1].chars().all(is_word) {
            return false;
        }
        let body = &self.rest[tag_end..];
        self.rest = match body.find(tag) {
            Some(at) => &body[at + tag.len()..],
            None => "",
        };
        true
    }
}

/// Whether a word is a bare keyword, in any case.
pub(super) fn is_keyword(token: &Token, keyword: &str) -> bool {
    matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
}

fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_' || !char.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_without_quotes_and_comments() {
        let mut tokens = Tokens::new("a \"b\"\"c\" /* x */ 'd''e' E'f\\'g' -- h\n $i$ j $i$ é.k;");
        let mut found = Vec::new();
        while let Some(token) = tokens.token() {
            found.push(token);
        }
        let word = |text: &str| Token::Word(text.into());
        let text = |text: &str| Token::Text(text.into());
        let quoted = Token::Quoted("b\"c".into());
        let signs = [Token::Sign('.'), word("k"), Token::Sign(';')];
        let mut expected = vec![word("a"), quoted, text("d'e"), text("f'g"), text(""), word("é")];
        expected.extend(signs);
        assert_eq!(found, expected);
    }

    #[test]
    fn open_quotes_end_with_the_text() {
        for text in ["'a", "\"a", "$a$ b", "/* a", "E'\\", "-- x", "$", "a."] {
            let mut tokens = Tokens::new(text);
            let mut count = 0;
            while tokens.token().is_some() {
                count += 1;
            }
            assert!(count <= 2, "{text}");
        }
    }
}
