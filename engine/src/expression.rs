//! CEL expressions over an event: checked once, then evaluated within known bounds.
//!
//! CEL has no loops but those over a list, and no side effects; what it lacks is a limit on work.
//! That is laid here, at load: the size of the source and its nesting, the steps it can take at
//! worst ([`Expression::steps_max`]), and at evaluation how much of a record it can see
//! ([`ITEMS_MAX`], [`TEXT_BYTES_MAX`]). Where a record holds more, or a key is missing, or two
//! values do not go together, the answer is [`NoAnswer`], never a panic.

mod document;
mod steps;

use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelString};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, Env, IdedExpr};

use self::document::{Document, write_json};
use crate::json::RawObject;

pub use self::document::{ITEMS_MAX, TEXT_BYTES_MAX};

/// Bytes of one expression's source: a screenful; more is a program, and CEL is not for those.
pub const SOURCE_BYTES_MAX: usize = 4 << 10;

/// Levels of nesting: the parser recurses, and this many fit the smallest stack it runs on, a
/// test thread's 2 MiB, with a build that is not optimised.
const DEPTH_MAX: u16 = 24;

/// Steps that one expression may take at worst. A step is some 50 ns, so this is 5 ms.
pub const STEPS_MAX: u64 = 100_000;

/// The standard functions and those on texts; the rest of CEL's libraries is not declared.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    env.add_extension(cel::extensions::strings)
        .expect("the standard functions have none of the texts' names");
    Arc::new(env)
});

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expression {
    ast: Arc<IdedExpr>,
    steps_max: u64,
    /// Those of the declared variables that it reads.
    reads: Vec<&'static str>,
}

/// What an expression may name.
#[derive(Debug, Clone, Copy)]
pub struct Declared {
    /// Texts and truth values.
    pub scalars: &'static [&'static str],
    /// JSON objects.
    pub documents: &'static [&'static str],
}

/// What a name stands for in one evaluation.
#[derive(Debug, Clone, Copy)]
pub enum Variable<'a> {
    /// A text.
    Text(&'a str),
    /// A truth value.
    Bool(bool),
    /// A JSON object, read where it lies.
    Document(RawObject<'a>),
}

/// An expression that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ExpressionError {
    /// What is wrong, for the person who wrote it.
    pub detail: String,
    /// Line and column inside the expression, from 1, when one place is at fault.
    pub at: Option<(u32, u32)>,
}

/// The record has no answer to an expression: a key is missing, types do not go together, or
/// there is more than an expression may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the expression has no value for this record")]
pub struct NoAnswer;

/// The names of one evaluation with what they stand for; a name left out is missing.
pub type Variables<'a> = [(&'static str, Variable<'a>)];

impl Expression {
    /// Parses and bounds `source`.
    ///
    /// # Errors
    /// [`ExpressionError`]: not CEL, unknown names, or too much work at worst.
    pub fn compile(source: &str, declared: Declared) -> Result<Self, ExpressionError> {
        if source.len() > SOURCE_BYTES_MAX {
            let detail = format!("an expression has at most {SOURCE_BYTES_MAX} bytes");
            return Err(ExpressionError { detail, at: None });
        }
        let parser = ENVIRONMENT.parser().max_recursion_depth(DEPTH_MAX);
        let (ast, places) = parser
            .parse_with_source_info(source)
            .map_err(|errors| not_cel(&errors))?;
        let counted = steps::count(&ast, declared).map_err(|defect| ExpressionError {
            at: places
                .offset_for(defect.node)
                .map(|(start, _)| place_of(source, start)),
            detail: defect.detail,
        })?;
        if counted.steps > STEPS_MAX {
            let detail = format!(
                "may take {} steps, at most {STEPS_MAX} are allowed: take fields of the record \
                 and further loops out of the loop",
                counted.steps
            );
            return Err(ExpressionError { detail, at: None });
        }
        Ok(Self {
            ast: Arc::new(ast),
            steps_max: counted.steps,
            reads: counted.reads,
        })
    }

    /// Steps it can take at worst.
    pub fn steps_max(&self) -> u64 {
        self.steps_max
    }

    /// Whether it reads the variable `name`.
    pub fn reads(&self, name: &str) -> bool {
        self.reads.contains(&name)
    }

    /// Whether it is true; without an answer it is not.
    pub fn holds(&self, variables: &Variables<'_>) -> bool {
        let resolver = Resolver(variables);
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.set_variable_resolver(&resolver);
        let value = cel::Value::resolve_val(&self.ast, &context);
        value.is_ok_and(|value| {
            value
                .downcast_ref::<CelBool>()
                .is_some_and(|truth| *truth.inner())
        })
    }

    /// Appends its value as JSON.
    ///
    /// # Errors
    /// [`NoAnswer`]; `out` is as it was.
    pub fn write_value(
        &self,
        variables: &Variables<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), NoAnswer> {
        let resolver = Resolver(variables);
        let mut context = Context::with_env(ENVIRONMENT.clone());
        context.set_variable_resolver(&resolver);
        let value = cel::Value::resolve_val(&self.ast, &context).map_err(|_| NoAnswer)?;
        let before = out.len();
        write_json(value.as_ref(), out).inspect_err(|_| out.truncate(before))
    }
}

struct Resolver<'a>(&'a Variables<'a>);

impl VariableResolver for Resolver<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let (_, variable) = self.0.iter().find(|(known, _)| *known == name)?;
        Some(match *variable {
            Variable::Text(text) => CowVal::owned(CelString::from(text)),
            Variable::Bool(truth) => CowVal::owned(CelBool::from(truth)),
            Variable::Document(object) => CowVal::owned(Document(object)),
        })
    }
}

fn not_cel(errors: &cel::ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else {
        let detail = "is not CEL".to_owned();
        return ExpressionError { detail, at: None };
    };
    let (line, column) = first.pos;
    let at = u32::try_from(line).ok().zip(u32::try_from(column).ok());
    ExpressionError {
        detail: format!("is not CEL: {}", first.msg),
        at: at.filter(|&(line, column)| line > 0 && column > 0),
    }
}

/// Line and column, from 1, of a character of `source`.
fn place_of(source: &str, offset: u32) -> (u32, u32) {
    let before = source.chars().take(offset as usize);
    before.fold((1, 1), |(line, column), character| match character {
        '\n' => (line + 1, 1),
        _ => (line, column + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: Declared = Declared {
        scalars: &["operation", "linked"],
        documents: &["data", "before"],
    };

    fn compile(source: &str) -> Result<Expression, ExpressionError> {
        Expression::compile(source, DECLARED)
    }

    fn holds(source: &str, data: &str) -> bool {
        let expression = compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        expression.holds(&[
            ("operation", Variable::Text("UPDATE")),
            ("linked", Variable::Bool(true)),
            (
                "data",
                Variable::Document(RawObject::new(data).expect("tests give objects")),
            ),
        ])
    }

    #[test]
    fn fields_are_compared_as_they_are() {
        let data = r#"{"status":"active","n":3,"big":18446744073709551615,"x":1.5,"ok":true,
            "none":null,"tags":["a","b"],"address":{"city":"Paris"}}"#;
        for source in [
            r#"operation == "UPDATE" && linked"#,
            r#"data.status == "active""#,
            "data.n > 2 && data.n < 3.5 && data.x == 1.5",
            "data.big == 18446744073709551615u",
            "data.ok && data.none == null",
            r#""a" in data.tags && !("c" in data.tags)"#,
            r#"data.tags.exists(t, t.startsWith("b")) && data.tags.all(t, size(t) == 1)"#,
            r#"data.address.city == "Paris" && data.address == {"city": "Paris"}"#,
            r#"data["status"].upperAscii() == "ACTIVE""#,
            r#"has(data.status) && !has(data.absent) && "status" in data"#,
            "size(data) == 8",
        ] {
            assert!(holds(source, data), "{source}");
        }
        assert!(!holds(r#"data.status != "active""#, data));
    }

    #[test]
    fn what_is_missing_or_does_not_go_together_does_not_hold() {
        for source in [
            r#"data.status != "active""#,
            "data.a.b == 1",
            "before.x == 1",
            "data.n + 1 == 2",
            "data.n",
            "data.n / 0 == 1",
            "has(before.x)",
        ] {
            assert!(!holds(source, r#"{"n":"text"}"#), "{source}");
        }
        assert!(holds(
            r#"data.status == "x" || data.n == "text""#,
            r#"{"n":"text"}"#
        ));
    }

    #[test]
    fn an_expression_sees_no_more_than_its_bounds() {
        let wide = |count: usize| format!("{{\"l\":[{}]}}", vec!["1"; count].join(","));
        assert!(holds("size(data.l) > 10", &wide(ITEMS_MAX - 1)));
        assert!(!holds("size(data.l) > 10", &wide(ITEMS_MAX + 1)));
        let long = |bytes: usize| format!("{{\"t\":\"{}\"}}", "x".repeat(bytes));
        assert!(holds("size(data.t) > 10", &long(TEXT_BYTES_MAX)));
        assert!(!holds("size(data.t) > 10", &long(TEXT_BYTES_MAX + 1)));
    }

    fn check_refused(source: &str, detail: &str, at: Option<(u32, u32)>) {
        let error = compile(source).expect_err(source);
        assert!(error.detail.contains(detail), "{source}: {error}");
        assert_eq!(error.at, at, "{source}: {error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        check_refused("data.status ==", "is not CEL", Some((1, 15)));
        check_refused("true &&\n  datta.x == 1", "`datta`", Some((2, 3)));
        check_refused("now() > 1", "`now`", Some((1, 4)));
        check_refused("data.x.matches('a')", "`matches`", Some((1, 15)));
    }

    #[test]
    fn work_without_bound_is_refused() {
        for source in [
            "data.a.exists(x, data.b.exists(y, x == y))",
            "data.a.exists(x, x in data.b)",
            "data.a.map(x, data.t + data.t).size() > 1",
            "(data.a + data.b).exists(x, x == 1)",
        ] {
            assert!(compile(source).is_err(), "{source}");
        }
        assert!(compile(&"!".repeat(SOURCE_BYTES_MAX + 1)).is_err());
        let deep = |levels: usize| format!("{}true{}", "(".repeat(levels), ")".repeat(levels));
        assert!(compile(&deep(10)).is_ok());
        assert!(compile(&deep(1_000)).is_err());
        let flat = vec![r#"data.status == "x""#; 80].join(" || ");
        assert!(compile(&flat).is_ok());
    }

    #[test]
    fn a_value_is_written_as_json() {
        for (source, expected) in [
            (r#"data.first + " " + data.last"#, Some(r#""Ada L\"""#)),
            ("data.n", Some("3")),
            ("[data.n, 1.5, true, null]", Some("[3,1.5,true,null]")),
            (r#"{"b": 1, "a": data.n}"#, Some(r#"{"a":3,"b":1}"#)),
            ("data.n == 3 ? data.first : null", Some(r#""Ada""#)),
            ("data", None),
            ("data.absent", None),
            ("1.0 / 0.0", None),
        ] {
            let expression = compile(source).expect(source);
            let mut out = Vec::new();
            let data = RawObject::new(r#"{"first":"Ada","last":"L\"","n":3}"#);
            let data = Variable::Document(data.expect("an object"));
            let written = expression.write_value(&[("data", data)], &mut out);
            let text = String::from_utf8(out).expect("JSON is UTF-8");
            assert_eq!(
                written.is_ok().then_some(text.as_str()),
                expected,
                "{source}"
            );
        }
    }

    #[test]
    fn any_text_is_compiled_or_refused() {
        for source in [
            "",
            " ",
            "\u{0}",
            "'",
            "\"",
            "a.b.c.d",
            "[",
            "{}",
            "x{y: 1}",
            "{1: 2}",
            "data.`a`",
            "data.?a",
            "1u",
            "b'x'",
            "r'\\'",
            "data[",
            "has(data)",
            "has(1)",
            "data.all()",
            "data.all(1, 2)",
            "?",
            ":",
            "data ? data",
            "@result",
            "\u{202e}",
        ] {
            let _either = compile(source);
        }
    }
}
