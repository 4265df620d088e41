"""A pickle's instructions, followed without running any: what it would build, and what it would call.

Python's pickle is a program. torch's files use a small part of it: dictionaries, numbers, texts, and calls of torch's
functions that put a tensor on a storage. Those instructions are carried out here on descriptions: a global name is a
`Name`, a call is a `Call` of one, a storage is what its persistent id says. Nothing is imported and nothing is called.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STEPS = 400_000  # instructions of one file: Stable Diffusion's with its optimizer has 150 000
_NAME = 100  # characters of a global's name that are kept
_LONG = 16  # bytes of the largest whole number


class PickleError(ValueError):
    """A clause that says why these bytes are no pickle, or none that is read here."""


@dataclass(frozen=True, slots=True)
class Name:
    """A global: `module.name`, of which nothing is known."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Call:
    """A call that unpickling would make; `state` is what it would set on the result."""

    what: Any
    arguments: Any
    state: Any = None
    items: list[Any] = field(default_factory=list)  # pairs, of what is a mapping (an OrderedDict)


@dataclass(frozen=True, slots=True)
class Persistent:
    """What stands outside the pickle, by its id: in torch's files a storage."""

    pid: Any


@dataclass
class Pickle:
    """The value, what unpickling would call, what it only names, and where in the bytes the pickle ends."""

    value: Any
    calls: list[str]
    names: list[str]
    end: int


_MARK = object()
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_EMPTY: dict[bytes, Callable[[], Any]] = {b"}": dict, b"]": list, b")": tuple, b"\x8f": list}  # a set is its members
# Opcode -> struct format of its number, which is the value.
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
# Opcode -> bytes of the length before a text or bytes.
_TEXTS = {b"X": 4, b"\x8c": 1, b"\x8d": 8, b"T": 4, b"U": 1}
_BYTES = {b"B": 4, b"C": 1, b"\x8e": 8, b"\x96": 8}
_GETS = {b"h": 1, b"j": 4}
_PUTS = {b"q": 1, b"r": 4}


def read_pickle(data: bytes, start: int = 0) -> Pickle:
    """Follow a pickle from `start`; PickleError where it is none, is cut off, or has more steps than are followed."""
    return _Machine(data, start).run()


class _Machine:
    """The pickle machine, on descriptions."""

    def __init__(self, data: bytes, start: int) -> None:
        self.data, self.at = data, start
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.called: dict[str, None] = {}
        self.named: dict[str, None] = {}

    def run(self) -> Pickle:
        for _ in range(STEPS):
            op = self.take(1)
            if op == b".":
                value = self.pop()
                return Pickle(value, list(self.called), [n for n in self.named if n not in self.called], self.at)
            try:
                self.step(op)
            except (struct.error, TypeError, AttributeError, UnicodeDecodeError) as error:
                raise PickleError(f"its pickle has an instruction that can't be followed at byte {self.at}") from error
        raise PickleError(f"its pickle has more than the {STEPS} instructions that are followed")

    def step(self, op: bytes) -> None:
        push = self.stack.append
        if op in _NUMBERS:
            push(struct.unpack(_NUMBERS[op], self.take(struct.calcsize(_NUMBERS[op])))[0])
        elif op in _TEXTS:
            push(self.take(self.number(_TEXTS[op])).decode("utf-8", "surrogatepass"))
        elif op in _BYTES:
            push(self.take(self.number(_BYTES[op])))
        elif op in _CONSTANTS:
            push(_CONSTANTS[op])
        elif op in _EMPTY:
            push(_EMPTY[op]())
        elif op == b"(":
            push(_MARK)
        elif op in _GETS or op == b"g":
            key = self.number(_GETS[op]) if op in _GETS else int(self.line())
            if key not in self.memo:
                raise PickleError(f"its pickle uses a value before it is there, at byte {self.at}")
            push(self.memo[key])
        elif op in _PUTS or op in (b"p", b"\x94"):
            number = len(self.memo) if op == b"\x94" else self.number(_PUTS[op]) if op in _PUTS else int(self.line())
            self.memo[number] = self.top()
        elif op in (b"\x85", b"\x86", b"\x87"):
            count = op[0] - 0x84
            push(tuple(reversed([self.pop() for _ in range(count)])))
        elif op in _HANDLERS:
            _HANDLERS[op](self)
        else:
            raise PickleError(f"its pickle has an instruction {op!r} that isn't read, at byte {self.at - 1}")

    # -- bytes

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise PickleError("its pickle is cut off")
        part, self.at = self.data[self.at : end], end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 4096)
        if end < 0:
            raise PickleError("its pickle is cut off, or has a line that is too long")
        part, self.at = self.data[self.at : end], end + 1
        return part.decode("utf-8")

    # -- stack

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError(f"its pickle takes what isn't there, at byte {self.at}")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError(f"its pickle takes what isn't there, at byte {self.at}")
        return self.stack[-1]

    def marked(self) -> list[Any]:
        """What stands above the last mark, which goes too."""
        place = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if place is None:
            raise PickleError(f"its pickle takes what isn't there, at byte {self.at}")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    # -- what a pickle would import, call and set

    def name(self, module: str, name: str) -> Name:
        found = Name(module[:_NAME], name[:_NAME])
        self.named[str(found)] = None
        return found

    def call(self, what: Any, arguments: Any) -> Call:
        # Of the result of a call nothing but that is known, and written out it could be of any length.
        self.called[str(what) if isinstance(what, Name) else "the result of a call"] = None
        return Call(what, arguments)

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if not isinstance(target, Call):  # torch never sets anything on a plain value or a global
            self.called["__setstate__ of a plain value"] = None
            return
        target.state = state

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        if len(pairs) % 2:
            raise PickleError(f"its pickle sets a key without a value, at byte {self.at}")
        if isinstance(target, dict):
            for i in range(0, len(pairs), 2):
                target[_hashable(pairs[i])] = pairs[i + 1]
        elif isinstance(target, Call):
            target.items += pairs
        else:
            raise PickleError(f"its pickle sets items of what has none, at byte {self.at}")

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target += values
        elif isinstance(target, Call):
            target.items += values
        else:
            raise PickleError(f"its pickle appends to what is no list, at byte {self.at}")

    def global_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.name(str(module), str(name)))

    def new_object(self, *, named: bool) -> None:
        keywords = self.pop() if named else None
        arguments, what = self.pop(), self.pop()
        self.stack.append(self.call(what, (arguments, keywords) if keywords else arguments))

    def reduce(self) -> None:
        arguments, what = self.pop(), self.pop()
        self.stack.append(self.call(what, arguments))

    def instance(self) -> None:
        module, name = self.line(), self.line()
        self.stack.append(self.call(self.name(module, name), tuple(self.marked())))

    def old_object(self) -> None:
        what, *arguments = self.marked() or [None]
        self.stack.append(self.call(what, tuple(arguments)))

    def long(self, size: int) -> None:
        length = self.number(size)
        if length > _LONG:
            raise PickleError(f"its pickle has a number of {length} bytes")
        self.stack.append(int.from_bytes(self.take(length), "little", signed=True))

    def decimal(self) -> None:
        text = self.line()
        known = {"00": False, "01": True}
        self.stack.append(known[text] if text in known else _decimal(text.rstrip("L")))


def _decimal(text: str) -> int:
    if len(text) > 40 or not text.lstrip("-").isdigit():
        raise PickleError("its pickle has a number that isn't one")
    return int(text)


def _hashable(value: Any) -> Any:
    """A key as it is where it can be one; a description that is equal to nothing else otherwise."""
    return value if isinstance(value, (str, bytes, int, float, Name, Call, type(None))) else Call("key", value)


def _float(machine: _Machine) -> None:
    try:
        machine.stack.append(float(machine.line()))
    except ValueError as error:
        raise PickleError("its pickle has a number that isn't one") from error


# Opcodes that are neither plain values nor the memo; extension codes and out-of-band buffers aren't in torch's files.
_HANDLERS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.take(1),  # PROTO
    b"\x95": lambda m: m.take(8),  # FRAME
    b"0": lambda m: m.stack.pop() if m.stack else m.pop(),
    b"1": lambda m: m.marked(),
    b"2": lambda m: m.stack.append(m.top()),
    b"c": lambda m: m.stack.append(m.name(m.line(), m.line())),
    b"\x93": _Machine.global_from_stack,
    b"R": _Machine.reduce,
    b"\x81": lambda m: m.new_object(named=False),
    b"\x92": lambda m: m.new_object(named=True),
    b"b": _Machine.build,
    b"i": _Machine.instance,
    b"o": _Machine.old_object,
    b"Q": lambda m: m.stack.append(Persistent(m.pop())),
    b"P": lambda m: m.stack.append(Persistent(m.line())),
    b"t": lambda m: m.stack.append(tuple(m.marked())),
    b"d": lambda m: m.stack.append(_pairs(m.marked())),
    b"l": lambda m: m.stack.append(m.marked()),
    b"\x90": lambda m: m.extend(m.marked()),
    b"\x91": lambda m: m.stack.append(frozenset(map(_hashable, m.marked()))),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.marked()),
    b"s": lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    b"u": lambda m: m.set_items(m.marked()),
    b"\x8a": lambda m: m.long(1),
    b"\x8b": lambda m: m.long(4),
    b"I": _Machine.decimal,
    b"L": _Machine.decimal,
    b"F": _float,
    b"V": lambda m: m.stack.append(m.line()),
    b"S": lambda m: m.stack.append(m.line().strip("'\"")),
}


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return {_hashable(values[i]): values[i + 1] for i in range(0, len(values) - 1, 2)}
