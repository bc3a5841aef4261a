"""Guards, rates and measures as text: parsed against a whitelist, evaluated on numbers or whole arrays of markings."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import Distribution, make_distribution

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": np.minimum, "max": np.maximum, "abs": np.abs}
_LONGEST = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A parsed expression; `names` are the places (and parameters) that it reads."""

    text: str
    names: frozenset[str]
    tree: ast.expr

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The value with each name taken from `values`: a number, or an array if those are arrays."""
        return _evaluate(self.tree, values)

    def __str__(self) -> str:
        return self.text


def parse_expression(text: str | float) -> Expression:
    """The expression in `text`; ModelError names the first thing that is not allowed in it."""
    written = str(text)
    if len(written) > _LONGEST:
        raise ModelError(f"the expression is longer than {_LONGEST} characters")
    try:
        tree = ast.parse(written.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(f"cannot read the expression {written!r}: {error}") from error
    names = _check(tree, written)
    return Expression(text=written.strip(), names=frozenset(names), tree=tree)


def bind(expression: Expression, params: Mapping[str, float]) -> Expression:
    """The same expression with the parameters replaced by their values."""
    used = {name: params[name] for name in expression.names if name in params}
    if not used:
        return expression
    tree = _Binder(used).visit(ast.parse(expression.text, mode="eval").body)
    text = ast.unparse(tree)
    return Expression(text=text, names=expression.names - set(used), tree=_Folder().visit(tree))


def inequalities(expression: Expression) -> list[tuple[dict[str, float], float]] | None:
    """A guard as `sum(weight * place) < bound`, all of which must hold; None if it is not of that kind."""
    tree = expression.tree
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    found: list[tuple[dict[str, float], float]] = []
    for part in parts:
        if isinstance(part, ast.Constant):
            found += [] if part.value else [({}, -1.0)]
            continue
        if not isinstance(part, ast.Compare):
            return None
        sides = [_linear(side) for side in (part.left, *part.comparators)]
        for (left, right), op in zip(pairwise(sides), part.ops, strict=True):
            if left is None or right is None or isinstance(op, ast.NotEq):
                return None
            weights = {name: left.get(name, 0.0) - right.get(name, 0.0) for name in {*left, *right}}
            bound = -weights.pop("", 0.0)
            if isinstance(op, ast.Lt | ast.LtE | ast.Eq):
                found.append((weights, bound if isinstance(op, ast.Lt) else math.nextafter(bound, math.inf)))
            if isinstance(op, ast.Gt | ast.GtE | ast.Eq):
                over = {name: -weight for name, weight in weights.items()}
                found.append((over, -bound if isinstance(op, ast.Gt) else math.nextafter(-bound, math.inf)))
    return found


def _linear(node: ast.expr) -> dict[str, float] | None:  # noqa: PLR0911 - one return for each kind of node
    """The weight of each name in a sum, that of the constant under the empty name; None for anything else."""
    match node:
        case ast.Constant(value=value):
            return {"": float(value)}  # type: ignore[arg-type]
        case ast.Name(id=name):
            return {name: 1.0}
        case ast.UnaryOp(op=ast.USub(), operand=part):
            inner = _linear(part)
            return inner and {name: -weight for name, weight in inner.items()}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            one, other = _linear(left), _linear(right)
            if one is None or other is None:
                return None
            sign = 1.0 if isinstance(op, ast.Add) else -1.0
            return {name: one.get(name, 0.0) + sign * other.get(name, 0.0) for name in {*one, *other}}
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = _linear(left), _linear(right)
            if one is None or other is None:
                return None
            factor, rest = (one, other) if set(one) == {""} else (other, one)
            return {name: factor[""] * weight for name, weight in rest.items()} if set(factor) == {""} else None
    return None


class _Binder(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, float]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(self.values[node.id]) if node.id in self.values else node


class _Folder(ast.NodeTransformer):
    """Works out once what reads no places: simulations evaluate a guard a million times."""

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if isinstance(node, ast.BoolOp):
            return self._joined(node)
        if isinstance(node, ast.BinOp | ast.Compare | ast.Call | ast.UnaryOp) and not any(
            isinstance(part, ast.Name) and part.id not in _FUNCTIONS for part in ast.walk(node)
        ):
            try:
                value = _evaluate(node, {})
            except (ZeroDivisionError, OverflowError, TypeError, ValueError):
                return node
            return ast.Constant(value.item() if isinstance(value, np.generic) else value)
        return node

    def _joined(self, node: ast.BoolOp) -> ast.expr:
        """Without the parts that decide nothing; the one that decides all."""
        deciding = isinstance(node.op, ast.Or)
        left = []
        for part in node.values:
            if not isinstance(part, ast.Constant):
                left.append(part)
            elif bool(part.value) is deciding:
                return ast.Constant(deciding)
        if len(left) > 1:
            return ast.BoolOp(op=node.op, values=left)
        return left[0] if left else ast.Constant(not deciding)


def _check(node: ast.AST, text: str) -> set[str]:  # noqa: PLR0911 - one return for each kind of node
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return set()
        case ast.Name(id=name):
            return {name}
        case ast.BoolOp(values=parts):
            return set().union(*(_check(part, text) for part in parts))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not(), operand=part):
            return _check(part, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            if isinstance(op, ast.Pow) and not isinstance(right, ast.Constant):
                raise ModelError(f"in {text!r}: an exponent must be a number")
            return _check(left, text) | _check(right, text)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            return _check(left, text).union(*(_check(other, text) for other in others))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS and args:
            return set().union(*(_check(arg, text) for arg in args))
    raise ModelError(
        f"in {text!r}: {ast.unparse(node)!r} is not allowed; use names, numbers, + - * / // % **, comparisons, "
        f"and, or, not, {', '.join(_FUNCTIONS)}"
    )


def _evaluate(node: ast.expr, values: Mapping[str, Any]) -> Any:  # noqa: C901, PLR0911 - one return for each kind of node
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.BoolOp(op=op, values=parts):
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            result = _evaluate(parts[0], values)
            for part in parts[1:]:
                result = join(result, _evaluate(part, values))
            return result
        case ast.UnaryOp(op=op, operand=part):
            value = _evaluate(part, values)
            if isinstance(op, ast.Not):
                return np.logical_not(value)
            return -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=operation, right=right):
            return _BINARY[type(operation)](_evaluate(left, values), _evaluate(right, values))
        case ast.Compare(left=left, ops=ops, comparators=others):
            result, before = True, _evaluate(left, values)
            for comparison, other in zip(ops, others, strict=True):
                after = _evaluate(other, values)
                result = np.logical_and(result, _COMPARE[type(comparison)](before, after))
                before = after
            return result
        case ast.Call(func=ast.Name(id=name), args=args):
            result = _evaluate(args[0], values)
            for arg in args[1:]:
                result = _FUNCTIONS[name](result, _evaluate(arg, values))
            return abs(result) if name == "abs" else result
    raise AssertionError(ast.dump(node))


def parse_delay(text: str, params: Mapping[str, float]) -> Distribution | Expression:
    """The distribution in `text`, or the rate expression of an `exponential(...)` that reads places."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ModelError(f"cannot read the delay {text!r}: {error}; write it like erlang(13, 2.088)") from error
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)):
        raise ModelError(f"the delay {text!r} is not of the form name(value, ...)")
    if tree.func.id == "exponential" and len(tree.args) + len(tree.keywords) == 1:
        given = tree.args[0] if tree.args else tree.keywords[0].value
        rate = bind(parse_expression(ast.unparse(given)), params)
        if rate.names and not (tree.keywords and tree.keywords[0].arg != "rate"):
            return rate
    made = _delay(tree, params, text)
    if not isinstance(made, Distribution):
        raise ModelError(f"the delay {text!r} is not a distribution")
    return made


def _delay(node: ast.expr, params: Mapping[str, float], text: str) -> object:
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return tuple(_delay(part, params, text) for part in parts)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name not in _FUNCTIONS:
            named = {str(k.arg): _delay(k.value, params, text) for k in keywords}
            return make_distribution(name, [_delay(arg, params, text) for arg in args], named)
    expression = bind(parse_expression(ast.unparse(node)), params)
    if expression.names:
        unknown = ", ".join(sorted(expression.names))
        raise ModelError(f"in {text!r}: {unknown} is not a parameter; only an exponential rate may depend on places")
    value = expression({})
    return float(value) if not isinstance(value, int) else value
