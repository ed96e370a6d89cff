//! How many steps an expression can take at worst, and which names it uses.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, operators};

use super::{Declared, ITEMS_MAX};

/// Nodes of one expression after its macros are expanded: far over what a person reads.
const NODES_MAX: usize = 500;

/// Reading a field of a record: its text is scanned and at most [`ITEMS_MAX`] values are built.
const READ_STEPS: u64 = ITEMS_MAX as u64;

/// A function that reads or writes texts of some kilobytes.
const TEXT_STEPS: u64 = 20;

/// Functions beside the operators that may be called. What makes texts grow by more than their
/// sum (`replace`, `join`, `format`), or lists from texts (`split`), is not among them, nor are
/// regular expressions, which this build of CEL leaves out.
const FUNCTIONS: [&str; 17] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "type",
    "dyn",
    "lowerAscii",
    "upperAscii",
    "trim",
    "substring",
    "indexOf",
    "charAt",
];

/// What [`count`] finds.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) steps: u64,
    pub(super) reads: Vec<&'static str>,
}

/// A node that is not allowed.
#[derive(Debug)]
pub(super) struct Defect {
    pub(super) node: u64,
    pub(super) detail: String,
}

/// Walks the expression once.
pub(super) fn count(ast: &IdedExpr, declared: Declared) -> Result<Counted, Defect> {
    let mut counter = Counter {
        declared,
        bound: Vec::new(),
        reads: Vec::new(),
        nodes: 0,
    };
    let steps = counter.steps(ast)?;
    Ok(Counted {
        steps,
        reads: counter.reads,
    })
}

struct Counter<'e> {
    declared: Declared,
    /// Names that loops around this place bind.
    bound: Vec<&'e str>,
    reads: Vec<&'static str>,
    nodes: usize,
}

impl<'e> Counter<'e> {
    fn steps(&mut self, node: &'e IdedExpr) -> Result<u64, Defect> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(defect(node, format!("has more than {NODES_MAX} parts")));
        }
        match &node.expr {
            Expr::Literal(_) => Ok(1),
            Expr::Ident(name) => self.name(node, name),
            Expr::Select(select) => Ok(self.steps(&select.operand)?.saturating_add(1)),
            Expr::Call(call) => self.call(node, call),
            Expr::List(list) => self.sum(list.elements.iter()),
            Expr::Map(map) => {
                let mut steps = 1_u64;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err(defect(node, "messages are not available"));
                    };
                    let parts = self.sum([&entry.key, &entry.value].into_iter())?;
                    steps = steps.saturating_add(parts);
                }
                Ok(steps)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) => Err(defect(node, "messages are not available")),
            Expr::Unspecified => Err(defect(node, "is not CEL")),
        }
    }

    fn name(&mut self, node: &IdedExpr, name: &'e str) -> Result<u64, Defect> {
        if self.bound.contains(&name) {
            return Ok(1);
        }
        let named = |known: &&&'static str| **known == name;
        if let Some(document) = self.declared.documents.iter().find(named) {
            self.reads.push(document);
            return Ok(READ_STEPS);
        }
        if let Some(scalar) = self.declared.scalars.iter().find(named) {
            self.reads.push(scalar);
            return Ok(1);
        }
        let known = [self.declared.scalars, self.declared.documents]
            .concat()
            .join(", ");
        let detail = format!("`{name}` is not known here; known are {known}");
        Err(defect(node, detail))
    }

    fn call(&mut self, node: &IdedExpr, call: &'e CallExpr) -> Result<u64, Defect> {
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !is_operator && !FUNCTIONS.contains(&name) {
            let known = FUNCTIONS.join(", ");
            let detail = format!("the function `{name}` is not available; available are {known}");
            return Err(defect(node, detail));
        }
        let own = match name {
            operators::IN => match call.args.get(1).map(|list| &list.expr) {
                Some(Expr::List(list)) => list.elements.len() as u64,
                _ => ITEMS_MAX as u64,
            },
            operators::ADD => TEXT_STEPS,
            _ if is_operator => 1,
            _ => TEXT_STEPS,
        };
        let target = call.target.as_deref();
        let parts = self.sum(target.into_iter().chain(&call.args))?;
        Ok(own.saturating_add(parts))
    }

    fn comprehension(&mut self, comprehension: &'e ComprehensionExpr) -> Result<u64, Defect> {
        let range = &comprehension.iter_range;
        let items = match &range.expr {
            Expr::List(list) => list.elements.len() as u64,
            Expr::Comprehension(_) => ITEMS_MAX as u64,
            _ if is_path(range) => ITEMS_MAX as u64,
            _ => {
                let detail = "a loop runs over a field, a list of values or another loop's result";
                return Err(defect(range, detail));
            }
        };
        let outside = self.sum([range, &comprehension.accu_init].into_iter())?;
        let bound = self.bound.len();
        self.bound.push(&comprehension.accu_var);
        let result = self.steps(&comprehension.result)?;
        self.bound.push(&comprehension.iter_var);
        self.bound.extend(comprehension.iter_var2.as_deref());
        let turn = self.sum([&comprehension.loop_cond, &comprehension.loop_step].into_iter())?;
        self.bound.truncate(bound);
        Ok(outside
            .saturating_add(result)
            .saturating_add(items.saturating_mul(turn)))
    }

    fn sum(&mut self, nodes: impl Iterator<Item = &'e IdedExpr>) -> Result<u64, Defect> {
        let mut steps = 1_u64;
        for node in nodes {
            steps = steps.saturating_add(self.steps(node)?);
        }
        Ok(steps)
    }
}

/// Whether it is a name with members and indices: nothing that makes a list longer.
fn is_path(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => is_path(&select.operand),
        Expr::Call(call) => {
            call.func_name == operators::INDEX && call.args.first().is_some_and(is_path)
        }
        _ => false,
    }
}

fn defect(node: &IdedExpr, detail: impl Into<String>) -> Defect {
    Defect {
        node: node.id,
        detail: detail.into(),
    }
}
