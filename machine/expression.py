"""C expressions over the guest's symbols: tokens, a precedence parser, and evaluation to drgn objects.

The language is the part of C that makes sense for looking at memory: names (variables, functions, enumerators),
integer literals, registers (`$eip`), `.`, `->`, `[]`, `* & - ! ~ +`, casts, `sizeof`, arithmetic, shifts, comparisons,
`&&` and `||`. Nothing here writes to the guest. Parsing and evaluating are apart so that a watch parses once and
evaluates at every stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import drgn

from machine.errors import ExpressionError

DEPTH_MAX: Final = 64
"""Deepest nesting accepted: keeps a hostile expression from exhausting Python's stack."""
LENGTH_MAX: Final = 1000
"""Longest expression accepted, in characters, for the same reason (`a[0][0][0]...` nests without parentheses)."""

TYPE_WORDS: Final = frozenset(
    (
        "struct", "union", "enum", "const", "volatile", "unsigned", "signed",
        "char", "short", "int", "long", "void", "_Bool", "bool",
    )
)  # fmt: skip

_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|\d+)(?P<suffix>[uUlL]*)(?![\w.])|(?P<char>'(?:\\.|[^'\\])')"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<register>\$[A-Za-z]\w*)"
    r"|(?P<op>->|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>().\[\]]))"
)

_PRECEDENCE: Final = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `kind` is number, name, register, op or end; `position` counts characters from 0."""

    kind: str
    text: str
    position: int


@dataclass(frozen=True, slots=True)
class Number:
    """An integer literal with its C type."""

    value: int
    type_name: str


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, function or enumerator."""

    name: str


@dataclass(frozen=True, slots=True)
class Register:
    """A register of the selected CPU, without the dollar sign."""

    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    """`op` applied to one operand: one of `* & - ! ~ +` or `sizeof`."""

    op: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """`op` applied to two operands."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Member:
    """`value.name` or `value->name`."""

    value: Node
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """`value[index]`."""

    value: Node
    index: Node


@dataclass(frozen=True, slots=True)
class Cast:
    """`(type_name) value`."""

    type_name: str
    value: Node


@dataclass(frozen=True, slots=True)
class SizeOfType:
    """`sizeof(type_name)`."""

    type_name: str


Node: TypeAlias = Number | Name | Register | Unary | Binary | Member | Index | Cast | SizeOfType


def tokens(text: str) -> list[Token]:
    """The tokens of `text`, ending with one of kind "end". Raises ExpressionError at the first bad character."""
    if len(text) > LENGTH_MAX:
        raise ExpressionError(f"the expression is longer than {LENGTH_MAX} characters")
    found: list[Token] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            bad = text[position:].lstrip()
            raise ExpressionError(f"'{text}': cannot read the expression from '{bad[:20]}' on")
        kind = "number" if match.lastgroup == "suffix" else str(match.lastgroup)
        found.append(Token(kind, match.group().strip(), match.start(kind)))
        position = match.end()
    found.append(Token("end", "", len(text)))
    return found


class Parser:
    """A precedence-climbing parser over one expression.

    Args:
        text: the expression.
        is_type: whether an identifier names a type (a typedef), which alone tells a cast from parentheses.
        long_bits: width of `long`: 32 or 64.
    """

    def __init__(self, text: str, is_type: Callable[[str], bool], *, long_bits: int = 32) -> None:
        self.text = text
        self._long_bits = long_bits
        self._is_type = is_type
        self._tokens = tokens(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        """The whole text as one expression. Raises ExpressionError."""
        if self._peek().kind == "end":
            raise ExpressionError("an expression is missing")
        node = self._binary(1)
        if self._peek().kind != "end":
            raise self._error(f"'{self._peek().text}' does not belong here")
        return node

    def _peek(self, ahead: int = 0) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _take(self) -> Token:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        if self._peek().text != text:
            raise self._error(f"'{text}' is missing")
        self._at += 1

    def _error(self, what: str) -> ExpressionError:
        place = "at the end" if self._peek().kind == "end" else f"at character {self._peek().position + 1}"
        return ExpressionError(f"'{self.text}': {what} {place}")

    def _binary(self, lowest: int) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpressionError(f"the expression is nested deeper than {DEPTH_MAX} levels")
        left = self._unary()
        while self._peek().kind == "op" and _PRECEDENCE.get(self._peek().text, 0) >= lowest:
            op = self._take().text
            left = Binary(op, left, self._binary(_PRECEDENCE[op] + 1))
        self._depth -= 1
        return left

    def _unary(self) -> Node:
        prefixes: list[str | tuple[str]] = []
        while True:
            token = self._peek()
            if token.kind == "op" and token.text in "*&-!~+":
                prefixes.append(self._take().text)
            elif token.text == "&&":
                raise self._error("'&&' needs a value on its left")
            elif token.kind == "name" and token.text == "sizeof":
                self._take()
                if self._type_follows():
                    node: Node = SizeOfType(self._type_in_parentheses())
                    break
                prefixes.append("sizeof")
            elif self._type_follows():
                prefixes.append((self._type_in_parentheses(),))
            else:
                node = self._postfix()
                break
            if len(prefixes) > DEPTH_MAX:
                raise ExpressionError(f"the expression is nested deeper than {DEPTH_MAX} levels")
        for prefix in reversed(prefixes):
            node = Cast(prefix[0], node) if isinstance(prefix, tuple) else Unary(prefix, node)
        return node

    def _type_follows(self) -> bool:
        first = self._peek(1)
        if self._peek().text != "(" or first.kind != "name":
            return False
        return first.text in TYPE_WORDS or self._is_type(first.text)

    def _type_in_parentheses(self) -> str:
        self._expect("(")
        words: list[str] = []
        while self._peek().kind == "name" or self._peek().text == "*":
            words.append(self._take().text)
        self._expect(")")
        return " ".join(words)

    def _postfix(self) -> Node:
        node = self._primary()
        for _ in range(len(self._tokens)):
            if self._peek().text in (".", "->"):
                self._take()
                if self._peek().kind != "name":
                    raise self._error("a member name is missing")
                node = Member(node, self._take().text)
            elif self._peek().text == "[":
                self._take()
                node = Index(node, self._binary(1))
                self._expect("]")
            else:
                break
        return node

    def _primary(self) -> Node:
        token = self._peek()
        if token.kind == "number":
            return _number(self._take().text, self._long_bits)
        if token.kind == "char":
            return Number(_character(self._take().text), "int")
        if token.kind == "name":
            return Name(self._take().text)
        if token.kind == "register":
            return Register(self._take().text[1:].lower())
        if token.text == "(":
            self._take()
            node = self._binary(1)
            self._expect(")")
            return node
        raise self._error("a value is missing" if token.kind == "end" else f"'{token.text}' is no value")


def _number(text: str, long_bits: int) -> Number:
    digits = text.rstrip("uUlL")
    suffix = text[len(digits) :].lower()
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
    try:
        value = int(digits, 8 if octal else 0)
    except ValueError as error:
        raise ExpressionError(f"'{text}' is no number") from error
    # The first type that holds it, as C has it; only hexadecimal and octal try unsigned ones.
    unsigned_too = octal or digits[:2] in ("0x", "0X")
    for name, bits in (("int", 32), ("long", long_bits), ("long long", 64))[suffix.count("l") :]:
        if "u" not in suffix and value < 1 << (bits - 1):
            return Number(value, name)
        if ("u" in suffix or unsigned_too or name == "long long") and value < 1 << bits:
            return Number(value, f"unsigned {name}")
    raise ExpressionError(f"'{text}' does not fit in 64 bits")


def _character(text: str) -> int:
    body = text[1:-1]
    escapes = {"n": 10, "t": 9, "r": 13, "0": 0, "\\": 92, "'": 39}
    if body.startswith("\\"):
        if body[1] not in escapes:
            raise ExpressionError(f"{text} is no character")
        return escapes[body[1]]
    return ord(body)


def registers_of(names: Iterable[str]) -> str:
    """A short list of register names for an error message."""
    return ", ".join(sorted(names)[:8])


class Evaluator:
    """Evaluates nodes over `program` (a drgn.Program) and the `registers` of one CPU (name -> value, lower case).

    Args:
        bounded: refuse indices outside of arrays of fixed size, as one wants where a place is named, not looked at.
    """

    def __init__(self, program: Any, registers: Mapping[str, int], *, bounded: bool = False) -> None:
        self._bounded = bounded
        self._program = program
        self._registers = registers

    def evaluate(self, node: Node) -> Any:
        """A drgn.Object: a reference into guest memory where C has an lvalue, else a value. Raises ExpressionError."""
        try:
            return self._evaluate(node)
        except ExpressionError:
            raise
        except drgn.FaultError as error:
            raise ExpressionError(f"cannot read guest memory at {error.address:#x}") from error
        except ZeroDivisionError as error:
            raise ExpressionError("division by zero") from error
        except Exception as error:  # drgn has many types for what does not fit, and for damaged debug information
            raise ExpressionError(_one_line(error)) from error

    def _int(self, value: int) -> Any:
        return drgn.Object(self._program, "int", value)

    def _evaluate(self, node: Node) -> Any:
        match node:
            case Number(value, type_name):
                return drgn.Object(self._program, type_name, value)
            case Name(name):
                return self._named(name)
            case Register(name):
                return self._register(name)
            case Member(value, name):
                return self._evaluate(value).member_(name)
            case Index(value, index):
                return self._element(self._evaluate(value), int(self._evaluate(index)))
            case Cast(type_name, value):
                return drgn.cast(self._type(type_name), self._evaluate(value))
            case SizeOfType(type_name):
                return drgn.Object(self._program, "unsigned long", drgn.sizeof(self._type(type_name)))
            case Unary(op, operand):
                return self._unary(op, self._evaluate(operand))
            case Binary("&&", left, right):
                return self._int(bool(self._evaluate(left)) and bool(self._evaluate(right)))
            case Binary("||", left, right):
                return self._int(bool(self._evaluate(left)) or bool(self._evaluate(right)))
            case Binary(op, left, right):
                return self._binary(op, self._evaluate(left), self._evaluate(right))

    def _element(self, array: Any, index: int) -> Any:
        kind = array.type_.unaliased()
        # Length 0 or none: a flexible array, whose length the type does not tell.
        if self._bounded and kind.kind == drgn.TypeKind.ARRAY and kind.length and not 0 <= index < kind.length:
            raise ExpressionError(f"index {index} is outside of an array of {kind.length} elements")
        return array[index]

    def _named(self, name: str) -> Any:
        try:
            return self._program[name]
        except KeyError:
            raise ExpressionError(f"the image has no symbol '{name}'") from None

    def _type(self, name: str) -> Any:
        try:
            return self._program.type(name)
        except (LookupError, SyntaxError) as error:
            raise ExpressionError(f"the image has no type '{name}'") from error

    def _register(self, name: str) -> Any:
        """A plain unsigned number; `$pc`, `$sp`, `$fp` and the 32-bit names are views of the 64-bit registers."""
        bits = 8 * self._program.address_size()
        wide = {"pc": "rip", "sp": "rsp", "fp": "rbp", "eflags": "rflags"}.get(name, name)
        if len(wide) == 3 and wide[0] == "e" and "r" + wide[1:] in self._registers:
            wide, bits = "r" + wide[1:], 32
        if wide not in self._registers:
            known = registers_of("e" + key[1:] if bits == 32 and key[:1] == "r" else key for key in self._registers)
            raise ExpressionError(f"no register '${name}'" + (f" (there are {known}, ...)" if known else " here"))
        value = self._registers[wide] & ((1 << bits) - 1)
        return drgn.Object(self._program, "unsigned int" if bits == 32 else "unsigned long", value)

    def _unary(self, op: str, operand: Any) -> Any:
        match op:
            case "*":
                return operand[0]
            case "&":
                return operand.address_of_()
            case "-":
                return -operand
            case "+":
                return +operand
            case "~":
                return ~operand
            case "!":
                return self._int(not bool(operand))
            case _:
                return drgn.Object(self._program, "unsigned long", drgn.sizeof(operand))

    def _binary(self, op: str, left: Any, right: Any) -> Any:
        match op:
            case "+":
                return left + right
            case "-":
                return left - right
            case "*":
                return left * right
            case "/":
                return left / right
            case "%":
                return left % right
            case "<<":
                return left << right
            case ">>":
                return left >> right
            case "&":
                return left & right
            case "|":
                return left | right
            case "^":
                return left ^ right
            case "==":
                return self._int(left == right)
            case "!=":
                return self._int(left != right)
            case "<":
                return self._int(left < right)
            case ">":
                return self._int(left > right)
            case "<=":
                return self._int(left <= right)
            case _:
                return self._int(left >= right)


def _one_line(error: Exception) -> str:
    """The message of a drgn error as one line; KeyError would otherwise quote it."""
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
