//! What a template may say, judged on its syntax tree when the connector is saved.
//!
//! Rendering a template tells what is wrong only on the path it takes, and a search through its text takes a
//! bar or a quote of the plain text around it for its own. The tree has neither fault.

use std::collections::{BTreeSet, HashSet};

use minijinja::machinery::ast::{BinOpKind, CallArg, CallType, Expr, Stmt, UnaryOpKind};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

pub const FILTERS: [&str; 10] = [
    "default", "int", "float", "length", "lower", "upper", "trim", "first", "last", "string",
];
pub const TESTS: [&str; 5] = ["defined", "undefined", "none", "string", "number"];
/// Methods of text and objects as Python has them, and those of a moment.
pub const METHODS: [&str; 15] = [
    "get",
    "items",
    "keys",
    "values",
    "split",
    "strip",
    "lstrip",
    "rstrip",
    "lower",
    "upper",
    "startswith",
    "endswith",
    "strftime",
    "isoformat",
    "timestamp",
];

/// Words and signs of one expression or statement, statements, and brackets within brackets. The tree of an expression
/// may be as deep as it has signs (`a.b.c`, `1+1+1`), and whoever goes through a tree goes deeper into the stack with
/// each level; the end of the stack is the end of the whole server. More: a thread's 2 MB are not enough. Fewer: real
/// manifests, with expressions of a hundred, do not fit.
const MOST_TOKENS: usize = 500;
const MOST_STATEMENTS: usize = 100;
const DEEPEST: usize = 30;

/// Refuses what is no template, or one whose tree would be too deep, before there is a tree.
fn check_size(source: &str) -> Result<(), &'static str> {
    let (mut tokens, mut statements, mut open) = (0, 0, 0_usize);
    for token in tokenize(source, false, SyntaxConfig::default()) {
        tokens += 1;
        match token.map_err(|_| "is not valid")?.0 {
            Token::TemplateData(_) | Token::VariableStart => tokens = 0,
            Token::BlockStart => {
                statements += 1;
                tokens = 0;
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => open += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                open = open.saturating_sub(1);
            }
            _ => {}
        }
        if tokens > MOST_TOKENS || statements > MOST_STATEMENTS || open > DEEPEST {
            return Err("is too long or nested too deep");
        }
    }
    Ok(())
}

/// What a template uses.
#[derive(Clone, Default)]
pub struct Uses {
    /// Every name, of values and of macros.
    pub names: HashSet<String>,
    /// Names of which more is looked at than single keys that stand in the source.
    pub whole: HashSet<String>,
    /// Keys of `config` that stand in the source.
    pub keys: BTreeSet<String>,
    /// The template is one expression with nothing around it.
    pub single: bool,
}

impl Uses {
    /// Reads a template; the error says what of it is not supported.
    pub fn of(source: &str) -> Result<Uses, String> {
        check_size(source)?;
        let tree = parse(source, "", SyntaxConfig::default()).map_err(|_| "is not valid")?;
        let mut uses = Uses::default();
        if let Stmt::Template(template) = &tree {
            uses.single = matches!(template.children.as_slice(), [Stmt::EmitExpr(_)]);
            uses.statements(&template.children)?;
        }
        Ok(uses)
    }

    fn statements(&mut self, statements: &[Stmt]) -> Result<(), String> {
        statements.iter().try_for_each(|statement| {
            let word = match statement {
                Stmt::EmitRaw(_) => return Ok(()),
                Stmt::EmitExpr(emit) => return self.expression(&emit.expr),
                Stmt::IfCond(condition) => {
                    self.expression(&condition.expr)?;
                    self.statements(&condition.true_body)?;
                    return self.statements(&condition.false_body);
                }
                Stmt::ForLoop(_) => "for",
                Stmt::Set(_) | Stmt::SetBlock(_) => "set",
                Stmt::WithBlock(_) => "with",
                Stmt::FilterBlock(_) => "filter",
                _ => "other than if",
            };
            Err(format!(
                "uses the statement \"{word}\", which is not supported"
            ))
        })
    }

    fn expressions<'a>(
        &mut self,
        expressions: impl IntoIterator<Item = &'a Expr<'a>>,
    ) -> Result<(), String> {
        expressions
            .into_iter()
            .try_for_each(|expression| self.expression(expression))
    }

    fn expression(&mut self, expression: &Expr) -> Result<(), String> {
        match expression {
            Expr::Var(name) => {
                self.names.insert(name.id.to_owned());
                self.whole.insert(name.id.to_owned());
                Ok(())
            }
            Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                if !slice.step.as_ref().is_none_or(is_step) {
                    return Err("has a slice whose step is not a small number".to_owned());
                }
                self.expression(&slice.expr)?;
                self.expressions([&slice.start, &slice.stop].into_iter().flatten())
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                let sides = [&operation.left, &operation.right];
                let repeats = matches!(operation.op, BinOpKind::Mul | BinOpKind::Pow);
                if repeats && !sides.into_iter().all(is_number) {
                    let what = "multiplies a value that may not be a number; add \"| int\" to it";
                    return Err(what.to_owned());
                }
                self.expressions(sides)
            }
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr)?;
                self.expressions(comparison.ops.iter().map(|operation| &operation.expr))
            }
            Expr::IfExpr(choice) => {
                self.expressions([&choice.test_expr, &choice.true_expr])?;
                self.expressions(&choice.false_expr)
            }
            Expr::Filter(filter) => {
                known("filter", filter.name, &FILTERS)?;
                self.expressions(&filter.expr)?;
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                known("test", test.name, &TESTS)?;
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            Expr::GetAttr(look_up) => self.look_up(&look_up.expr, Some(look_up.name)),
            Expr::GetItem(look_up) => match &look_up.subscript_expr {
                Expr::Const(key) => self.look_up(&look_up.expr, key.value.as_str()),
                subscript => self.expressions([&look_up.expr, subscript]),
            },
            Expr::Call(call) => {
                match call.identify_call() {
                    CallType::Function(name) => {
                        self.names.insert(name.to_owned());
                    }
                    CallType::Method(of, name) => {
                        known("method", name, &METHODS)?;
                        match call.args.first() {
                            Some(CallArg::Pos(Expr::Const(key))) if name == "get" => {
                                self.look_up(of, key.value.as_str())?;
                            }
                            _ => self.expression(of)?,
                        }
                    }
                    _ => {
                        return Err(
                            "calls a value like a function, which is not supported".to_owned()
                        );
                    }
                }
                self.arguments(&call.args)
            }
            Expr::List(list) => self.expressions(&list.items),
            Expr::Tuple(tuple) => self.expressions(&tuple.items),
            Expr::Map(map) => self.expressions(map.keys.iter().chain(&map.values)),
        }
    }

    /// Notes that the template reads one key of `of`, and nothing else of it.
    fn look_up(&mut self, of: &Expr, key: Option<&str>) -> Result<(), String> {
        match of {
            Expr::Var(name) => {
                self.names.insert(name.id.to_owned());
                if name.id == "config" {
                    self.keys.extend(key.map(str::to_owned));
                }
                Ok(())
            }
            other => self.expression(other),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg]) -> Result<(), String> {
        self.expressions(arguments.iter().map(|argument| match argument {
            CallArg::Pos(value)
            | CallArg::Kwarg(_, value)
            | CallArg::PosSplat(value)
            | CallArg::KwargSplat(value) => value,
        }))
    }
}

/// Whether an expression is a number whatever the values are. Text or a list that is multiplied is repeated, and
/// a repeated list grows to any size after the fuel was counted.
fn is_number(expression: &Expr) -> bool {
    match expression {
        Expr::Const(literal) => literal.value.is_number(),
        Expr::UnaryOp(operation) => is_number(&operation.expr),
        Expr::BinOp(operation) => {
            let is_arithmetic = matches!(
                operation.op,
                BinOpKind::Add
                    | BinOpKind::Sub
                    | BinOpKind::Mul
                    | BinOpKind::Div
                    | BinOpKind::FloorDiv
                    | BinOpKind::Rem
                    | BinOpKind::Pow
            );
            is_arithmetic && is_number(&operation.left) && is_number(&operation.right)
        }
        Expr::Filter(filter) => matches!(filter.name, "int" | "float" | "length"),
        _ => false,
    }
}

/// Whether an expression is a number that can be negated: the library panics at the least of all.
fn is_step(expression: &Expr) -> bool {
    match expression {
        Expr::Const(literal) => literal
            .value
            .as_i64()
            .is_some_and(|step| step.unsigned_abs() < 1_000_000),
        Expr::UnaryOp(operation) => {
            matches!(operation.op, UnaryOpKind::Neg) && is_step(&operation.expr)
        }
        _ => false,
    }
}

fn known(kind: &str, name: &str, all: &[&str]) -> Result<(), String> {
    if all.contains(&name) {
        Ok(())
    } else {
        Err(format!(
            "uses the {kind} \"{name}\", which is not supported"
        ))
    }
}
