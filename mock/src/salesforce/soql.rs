//! The part of SOQL that integrations poll with: `SELECT .. FROM .. WHERE .. AND .. ORDER BY ..
//! LIMIT ..`.

use std::cmp::Ordering;

use serde_json::Value;

use crate::crm::fold;
use crate::stamp;

/// A query, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    /// Empty for `COUNT()`.
    pub(super) fields: Vec<String>,
    pub(super) object: String,
    /// All of them hold.
    pub(super) conditions: Vec<Condition>,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) field: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) field: String,
    pub(super) descending: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    Compare(Comparison, Value),
    In(Vec<Value>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where the text stops being a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut tokens = Tokens::of(text)?;
        tokens.keyword("SELECT")?;
        let fields = tokens.fields()?;
        tokens.keyword("FROM")?;
        let mut query = Self {
            fields,
            object: tokens.word()?,
            conditions: Vec::new(),
            order: Vec::new(),
            limit: None,
        };
        if tokens.take("WHERE") {
            query.conditions.push(tokens.condition()?);
            while tokens.take("AND") {
                query.conditions.push(tokens.condition()?);
            }
        }
        if tokens.take("ORDER") {
            tokens.keyword("BY")?;
            query.order = tokens.order()?;
        }
        if tokens.take("LIMIT") {
            let count = tokens.word()?;
            let count = count.parse().map_err(|_| Malformed(count))?;
            query.limit = Some(count);
        }
        match tokens.next() {
            None => Ok(query),
            Some(more) => Err(Malformed(more.text().to_owned())),
        }
    }
}

impl Condition {
    /// Whether a field's value meets it.
    pub(super) fn holds(&self, value: &Value) -> bool {
        match &self.test {
            Test::In(values) => values.iter().any(|one| equal(value, one)),
            Test::Compare(Comparison::Equal, other) => equal(value, other),
            Test::Compare(Comparison::NotEqual, other) => !equal(value, other),
            Test::Compare(comparison, other) => {
                if value.is_null() || other.is_null() {
                    return false;
                }
                let order = compare(value, other);
                match comparison {
                    Comparison::Less => order.is_lt(),
                    Comparison::LessOrEqual => order.is_le(),
                    Comparison::Greater => order.is_gt(),
                    _ => order.is_ge(),
                }
            }
        }
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    if one.is_null() || other.is_null() {
        return one.is_null() && other.is_null();
    }
    compare(one, other).is_eq()
}

/// Nulls first, instants by time, numbers by size, the rest as text without case.
pub(super) fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64(), other.as_f64());
            one.partial_cmp(&other).unwrap_or(Ordering::Equal)
        }
        (Value::String(one), Value::String(other)) => {
            match (stamp::parse(one), stamp::parse(other)) {
                (Some(one), Some(other)) => one.cmp(&other),
                _ => fold(one).cmp(&fold(other)),
            }
        }
        (one, other) => one.to_string().cmp(&other.to_string()),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(String),
}

impl Token {
    fn text(&self) -> &str {
        let (Self::Word(text) | Self::Quoted(text) | Self::Sign(text)) = self;
        text
    }
}

struct Tokens {
    left: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Tokens {
    fn of(text: &str) -> Result<Self, Malformed> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c.is_whitespace() {
                continue;
            }
            if c == '\'' {
                let mut quoted = String::new();
                loop {
                    match chars.next() {
                        None => return Err(Malformed(quoted)),
                        Some('\'') => break,
                        Some('\\') => quoted.extend(chars.next()),
                        Some(c) => quoted.push(c),
                    }
                }
                tokens.push(Token::Quoted(quoted));
            } else if "(),=<>!".contains(c) {
                let mut sign = String::from(c);
                if "<>!".contains(c)
                    && let Some(more) = chars.next_if(|next| "=>".contains(*next))
                {
                    sign.push(more);
                }
                tokens.push(Token::Sign(sign));
            } else {
                let mut word = String::from(c);
                let part = |next: &char| !next.is_whitespace() && !"(),=<>!'".contains(*next);
                while let Some(more) = chars.next_if(part) {
                    word.push(more);
                }
                tokens.push(Token::Word(word));
            }
        }
        Ok(Self {
            left: tokens.into_iter().peekable(),
        })
    }

    fn next(&mut self) -> Option<Token> {
        self.left.next()
    }

    /// Takes this keyword or sign if it is next.
    fn take(&mut self, expected: &str) -> bool {
        let is_it = |token: &Token| {
            !matches!(token, Token::Quoted(_)) && token.text().eq_ignore_ascii_case(expected)
        };
        self.left.next_if(is_it).is_some()
    }

    fn keyword(&mut self, expected: &str) -> Result<(), Malformed> {
        if self.take(expected) {
            return Ok(());
        }
        Err(self.unexpected())
    }

    fn word(&mut self) -> Result<String, Malformed> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(other) => Err(Malformed(other.text().to_owned())),
            None => Err(Malformed("<EOF>".to_owned())),
        }
    }

    fn unexpected(&mut self) -> Malformed {
        let next = self.next();
        Malformed(next.map_or_else(|| "<EOF>".to_owned(), |token| token.text().to_owned()))
    }

    fn fields(&mut self) -> Result<Vec<String>, Malformed> {
        let first = self.word()?;
        if first.eq_ignore_ascii_case("COUNT") && self.take("(") {
            self.keyword(")")?;
            return Ok(Vec::new());
        }
        let mut fields = vec![first];
        while self.take(",") {
            fields.push(self.word()?);
        }
        Ok(fields)
    }

    fn condition(&mut self) -> Result<Condition, Malformed> {
        let field = self.word()?;
        if self.take("IN") {
            self.keyword("(")?;
            let mut values = vec![self.literal()?];
            while self.take(",") {
                values.push(self.literal()?);
            }
            self.keyword(")")?;
            let test = Test::In(values);
            return Ok(Condition { field, test });
        }
        let signs = [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::Greater),
            (">=", Comparison::GreaterOrEqual),
        ];
        let sign = signs.into_iter().find(|(sign, _)| self.take(sign));
        let (_, comparison) = sign.ok_or_else(|| self.unexpected())?;
        let test = Test::Compare(comparison, self.literal()?);
        Ok(Condition { field, test })
    }

    /// A text in quotes, or a bare number, instant, `true`, `false`, `null`.
    fn literal(&mut self) -> Result<Value, Malformed> {
        match self.next() {
            Some(Token::Quoted(text)) => Ok(text.into()),
            Some(Token::Word(word)) if stamp::parse(&word).is_some() => Ok(word.into()),
            Some(Token::Word(word)) => {
                serde_json::from_str(&word.to_lowercase()).map_err(|_| Malformed(word))
            }
            Some(Token::Sign(sign)) => Err(Malformed(sign)),
            None => Err(Malformed("<EOF>".to_owned())),
        }
    }

    fn order(&mut self) -> Result<Vec<Order>, Malformed> {
        let mut order = Vec::new();
        loop {
            let field = self.word()?;
            let descending = self.take("DESC");
            if !descending {
                self.take("ASC");
            }
            order.push(Order { field, descending });
            if !self.take(",") {
                return Ok(order);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_polling_query_is_read() {
        let text = "SELECT Id, Email FROM Contact WHERE SystemModstamp >= \
                    2026-01-01T00:00:00.000Z AND IsDeleted = false ORDER BY SystemModstamp, Id \
                    DESC LIMIT 5";
        let query = Query::parse(text).unwrap();
        assert_eq!(query.fields, ["Id", "Email"]);
        assert_eq!(query.object, "Contact");
        assert_eq!(query.limit, Some(5));
        assert_eq!(query.order.len(), 2);
        assert!(query.order[1].descending && !query.order[0].descending);
        let since = &query.conditions[0];
        assert!(since.holds(&json!("2026-01-01T00:00:00.000+0000")));
        assert!(!since.holds(&json!("2025-12-31T23:59:59.000+0000")));
        assert!(query.conditions[1].holds(&json!(false)));
    }

    #[test]
    fn values_are_compared_as_their_kind_asks() {
        let holds = |condition: &str, value: Value| {
            let query = format!("select Id from Contact where F {condition}");
            Query::parse(&query).unwrap().conditions[0].holds(&value)
        };
        assert!(holds("= 'O\\'Hara'", json!("o'hara")));
        assert!(holds("in ('a', 'b')", json!("B")));
        assert!(holds("> 9", json!(10)));
        assert!(holds("= null", Value::Null));
        assert!(holds("!= null", json!("a")));
        assert!(!holds("< 9", Value::Null));
    }

    #[test]
    fn what_is_no_such_query_is_refused_where_it_stops() {
        for (text, at) in [
            ("SELECT Id", "<EOF>"),
            ("SELECT FROM Contact", "Contact"),
            ("SELECT Id FROM Contact WHERE A LIKE 'x'", "LIKE"),
            ("SELECT Id FROM Contact WHERE A = 'x", "x"),
            ("SELECT Id FROM Contact GROUP BY A", "GROUP"),
            ("DELETE FROM Contact", "DELETE"),
        ] {
            assert_eq!(Query::parse(text), Err(Malformed(at.to_owned())), "{text}");
        }
        assert!(
            Query::parse("SELECT COUNT() FROM Contact")
                .unwrap()
                .fields
                .is_empty()
        );
    }
}
