"""Change one thing in a module's source: an operator, a constant, a condition, an argument, a statement, a word of SQL.

Left out are docstrings, texts of messages, logging and annotations; caches, which change the speed alone; and what is
declared for mypy or checked at run time (`frozen=True`, `zip(strict=True)`), which no correct caller notices.
"""

import ast
import difflib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any, cast

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
}
_IS_SQL = re.compile(r"\b(SELECT|FROM|WHERE|AND|INSERT|UPDATE|DELETE|EXISTS|BETWEEN|SET)\b")
_SQL = (
    (r"(?<!INSERT )\bOR\b", "AND"),
    (r"\bAND\b(?! :latest)", "OR"),
    (r" OR IGNORE", ""),
    (r"\bNOT IN\b", "IN"),
    (r"(?<!NOT )\bIN \(", "NOT IN ("),
    (r"\bNOT (?=EXISTS|\()", ""),
    (r"(?<!NOT )\bEXISTS\b", "NOT EXISTS"),
    (r"\bIS NOT\b", "IS"),
    (r"!=", "="),
    (r"((?:WHERE|AND|OR|ON|WHEN) \(?[\w.]+) = ", r"\1 != "),
    (r" (>|<) ", r" \1= "),
    (r" (>|<)= ", r" \1 "),
    (r"\bDISTINCT ", ""),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"'label', (?=')", ""),
    (r", '\w+'(?=[,)])", ""),
    (r" LIMIT (\?|:\w+)", ""),
    (r" DESC\b", ""),
    (r"(ORDER BY (?:\w+\.)?\w+)\b(?! DESC|\()", r"\1 DESC"),
    (r" - 1\b", " + 1"),
)
_CACHES = ("cache", "lru_cache")
_GONE = ast.Pass()  # stands for an element that is removed from its list


@dataclass(frozen=True)
class Change:
    """A change of a tree: its number in the order of all changes, and the lines and the function that it is in."""

    number: int
    lines: range
    function: range  # lines of the innermost function, its decorators and defaults included; empty outside of functions


@dataclass(frozen=True)
class _Place:
    """A field of a node, or an element of a field that is a list."""

    parent: ast.AST
    field: str
    index: int | None

    @property
    def node(self) -> ast.AST:
        found: Any = getattr(self.parent, self.field)
        return cast(ast.AST, found if self.index is None else found[self.index])

    def put(self, new: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new


def changes(tree: ast.Module) -> Iterator[Change]:
    """Apply the changes of a tree, one at a time: each is in place until the next is asked for."""
    number = 0
    for place, lines, function in _places(tree, range(0), range(0), _left_out(tree)):
        node = place.node
        for new in _alternatives(place):
            place.put(new)
            yield Change(number, lines, function)
            place.put(node)
            number += 1


def mutate(source: str, number: int) -> str:
    """Return the source with the change of this number, without comments."""
    tree = ast.parse(source)
    next(change for change in changes(tree) if change.number == number)
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and _GONE in value:
                setattr(node, field, [one for one in value if one is not _GONE])
    return ast.unparse(ast.fix_missing_locations(tree))


def difference(source: str, mutant: str) -> str:
    """Return the lines that differ between a source and its mutant, in one line of text."""
    before, after = (ast.unparse(ast.parse(text)).splitlines() for text in (source, mutant))
    found = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    return "  ".join(f"{line[0]} {line[1:].strip()}" for line in found if not line.startswith("@@"))


def functions_of(source: str, path: str) -> dict[str, CodeType]:
    """Return the compiled functions and methods of a source by their qualified names."""
    found, to_do = {}, [compile(source, path, "exec")]
    while to_do:
        for one in to_do.pop().co_consts:
            if isinstance(one, CodeType) and _is_function(one):
                found[one.co_qualname] = one
            elif isinstance(one, CodeType):
                to_do.append(one)
    return found


def is_within_functions(source: str, mutant: str) -> bool:
    """Return whether a change leaves what runs when the module is imported as it was."""
    before, after = (_imported(compile(ast.unparse(ast.parse(text)), "", "exec")) for text in (source, mutant))
    return before == after


def _imported(code: CodeType) -> tuple[object, ...]:
    inner = [
        one if not isinstance(one, CodeType) else one.co_qualname if _is_function(one) else _imported(one)
        for one in code.co_consts
    ]
    return code.co_code, code.co_names, [(type(one), one) for one in inner]


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_NEWLOCALS and code.co_flags & inspect.CO_OPTIMIZED)


def _lines_of(node: Any) -> range:
    """Return the lines of a node."""
    return range(node.lineno, node.end_lineno + 1)


def _places(
    parent: ast.AST, lines: range, function: range, left_out: set[ast.AST]
) -> Iterator[tuple[_Place, range, range]]:
    for field, value in ast.iter_fields(parent):
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or node in left_out:
                continue
            inner = _lines_of(node) if hasattr(node, "lineno") else lines
            whole = inner if isinstance(node, ast.FunctionDef) else function
            yield _Place(parent, field, index), inner, whole
            yield from _places(node, inner, whole, left_out)


def _left_out(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes that are not changed, nor anything within them."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() | ast.Call(func=ast.Attribute(value=ast.Name(id="_LOG")))):
                found.add(node)  # docstrings and logging
            case ast.Subscript(value=ast.Name(id="Literal")) | ast.keyword(arg="strict" | "frozen"):
                found.add(node)
            case ast.Raise() | ast.Call(func=ast.Name(id="Message" | "later" | "check_finite")):
                found.update(one for one in ast.walk(node) if isinstance(one, ast.Constant) and type(one.value) is str)
            case ast.FunctionDef(returns=returns, decorator_list=decorators):
                found.update([returns] if returns else [])
                found.update(one for one in decorators if ast.unparse(one).split("(")[0] in _CACHES)
            case ast.arg(annotation=ast.AST() as annotation) | ast.AnnAssign(annotation=annotation):
                found.add(annotation)
    return found


def _alternatives(place: _Place) -> Iterator[ast.AST]:
    """Yield what the node in this place may be changed to."""
    node = place.node
    if place.field in ("test", "ifs") and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
        yield ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]
    if place.field == "decorator_list":
        yield _GONE
    yield from (operator() for operator in _OPERATORS.get(type(node), ()))
    match node:
        case ast.Constant(value=value):
            yield from (ast.Constant(other) for other in _constants(value))
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Call(func=func, args=[first, second, *rest], keywords=keywords) if _is_ordered(node):
            yield ast.Call(func, [second, first, *rest], keywords)
        case ast.keyword(arg=str()):
            yield _GONE
        case ast.Slice(lower=lower, upper=upper, step=step):
            yield from [ast.Slice(None, upper, step)] if lower else []
            yield from [ast.Slice(lower, None, step)] if upper else []


def _is_ordered(call: ast.Call) -> bool:
    first, second = (ast.dump(one) for one in call.args[:2])
    return first != second and ast.unparse(call.func) not in ("max", "min")


def _constants(value: object) -> Iterator[str | int | float]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case float():
            yield 2 * value or 1.0
        case str() if _IS_SQL.search(value):
            for pattern, new in _SQL:
                for found in re.finditer(pattern, value):
                    yield value[: found.start()] + found.expand(new) + value[found.end() :]
        case str():
            yield f"{value}XX"
