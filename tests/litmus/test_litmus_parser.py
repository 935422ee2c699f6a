"""Reading litmus files: what herd accepts, and hostile ones."""

from __future__ import annotations

import random

import pytest

from recorder.litmus import LitmusError, LitmusTest, assemble, judge, parse
from recorder.litmus.bundled import FOLDER
from recorder.litmus.program import AddressOf

GOOD = """X86_64 SB "doc" (* a (* nested *) comment *)
Generator=by hand
Orig=PodWR Fre
{ int x; uint64_t y = 1; x=2; 0:rdi=x; int64_t t[2] = {1, -1}; uint64_t P1:rbx = 0x10; }
 P0          | P1            ;
 movl $1,(x) | L: movl (y),%eax ;
             | lock; incl (x)   ;
             | M: ; (* a label alone *)
locations [x; 0:rdi; t[1];]
filter x=1 \\/ true
exists (1:rax=0 /\\ x=1) <<
anything
"""


def states(text: str, model: str = "tso") -> list[dict[str, int]]:
    verdict = judge(assemble([parse(text, "t.litmus")])[0], model)
    return [dict(zip(verdict.locations, state.values, strict=True)) for state in verdict.states]


def one(code: str, init: str = "int x; int y", arch: str = "X86_64", end: str = "") -> dict[str, int]:
    """The only final state of a single thread; instructions separated by `;`."""
    found = states(f"{arch} t\n{{ {init} }}\n P0 ;\n {code} ;\n{end}")
    assert len(found) == 1
    return found[0]


def test_all_parts() -> None:
    test = parse(GOOD, "good.litmus")
    assert (test.name, test.bits, test.info) == ("SB", 64, {"Generator": "by hand", "Orig": "PodWR Fre"})
    assert test.variables["x"].values == [2]
    assert test.variables["x"].declared
    assert (test.variables["y"].size_bytes, test.variables["y"].values) == (8, [1])
    assert (test.variables["t"].size_bytes, test.variables["t"].values) == (8, [1, -1])
    assert [(s.thread, s.register, s.value, s.size_bytes) for s in test.registers] == [
        (0, "rdi", AddressOf("x"), 0),
        (1, "rbx", 16, 8),
    ]
    assert [[cell.text for cell in thread] for thread in test.threads] == [
        ["movl $1,(x)"],
        ["movl (y),%eax", "lock incl (x)", ""],
    ]
    assert test.threads[1][0].labels == ("L",)
    assert [cell.line for cell in test.threads[1]] == [6, 7, 8]
    assert test.condition.text == "exists (1:rax=0 /\\ x=1)"
    assert len(test.locations) == 3


def test_header_forms() -> None:
    body = "{ }\nP0 ;\nmovl $1,(x) ;\n"
    assert parse("X86_64 A+B[1].x\n" + body, "f").name == "A+B[1].x"
    assert parse('\n\nX86_64 A\n"a long\ncomment"\n' + body, "f").name == "A"
    assert parse("X86_64 --\n" + body, "dir/file.litmus").name == "file"
    assert parse("X86_64 a\r\n" + body.replace("\n", "\r\n"), "f").name == "a"
    assert parse("X86 a\nsome text (* *) here\n" + body, "f").bits == 32


def test_no_condition_means_all_states() -> None:
    verdict = judge(assemble([parse("X86 t\n{ }\nP0 ;\nMOV [x],$1 ;\n", "f")])[0])
    assert verdict.allowed
    assert [state.values for state in verdict.states] == [(1,)]


@pytest.mark.parametrize(
    ("condition", "positive"),
    [
        ("exists (0:EAX=0 /\\ 1:EAX=0)", 1),
        ("exists 0:EAX=0 /\\ 1:EAX=0 \\/ 0:EAX=1", 3),
        ("exists (not (x=1))", 0),
        ("exists ~(x=2) /\\ y!=0", 4),
        ("exists x=1 => 0:EAX=1", 2),
        ("exists 0:EAX=0 => 1:EAX=1 => x=2", 3),  # to the right: only 0, 1 fails
        ("exists 0:EAX=1:EAX", 2),
        ("exists 0:EAX<>P1:eax", 2),
        ("exists [x]=[y]", 4),
        ("exists x=y", 0),  # a name on the right is an address
        ("exists 0:al=0x1", 2),
        ("exists x=-4294967295", 4),  # equal in the size of x
        ("final true", 4),
        ("~exists (0:EAX=0)", 2),
        ("not exists (0:EAX=0)", 2),
        ("forall false", 0),
        ("filter 0:EAX=0 exists 1:EAX=0", 1),
    ],
)
def test_conditions(condition: str, positive: int) -> None:
    text = f"X86 SB\n{{ }}\nP0 | P1 ;\nMOV [x],$1 | MOV [y],$1 ;\nMOV EAX,[y] | MOV EAX,[x] ;\n{condition}\n"
    verdict = judge(assemble([parse(text, "f")])[0])
    assert verdict.positive_count == positive


@pytest.mark.parametrize(
    ("line", "message", "text"),
    [
        (1, "first line", ""),
        (1, "architecture 'PPC'", "PPC t\n{ }\nP0 ;\n lwz r1,0(r2) ;\n"),
        (1, "no initial state", "X86 t\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "never closed", "X86 t\n{ x=0;\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "comment", "X86 t\n(* { }\nP0 ;\n"),
        (2, "unknown type 'quux'", "X86 t\n{ quux x; }\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "no register", "X86 t\n{ 0:RAX=1; }\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "does not fit", "X86 t\n{ int8_t x=256; }\nP0 ;\n MOV [x],$1 ;\n"),
        (3, "unexpected character", "X86 t\n{ x=0;\n ` }\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "has 2 cells, not 1", "X86 t\n{ int x[2]={1}; }\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "1 to 1024 cells", "X86 t\n{ int x[99999999]; }\nP0 ;\n MOV [x],$1 ;\n"),
        (2, "no program", "X86 t\n{ }\n"),
        (3, "expected a thread's name", "X86 t\n{ }\n MOV [x],$1 ;\n"),
        (3, "same name", "X86 t\n{ }\nP0 | P0 ;\n"),
        (3, "at most 8 CPUs", "X86 t\n{ }\n" + " | ".join(f"P{i}" for i in range(9)) + " ;\n"),
        (4, "2 columns for 1 threads", "X86 t\n{ }\nP0 ;\n MOV [x],$1 | MOV [x],$2 ;\n"),
        (4, "no such label", "X86 t\n{ }\nP0 ;\n JMP L ;\n"),
        (5, "stands twice", "X86 t\n{ }\nP0 ;\n L: NOP ;\n L: NOP ;\n"),
        (4, "no such instruction", "X86 t\n{ }\nP0 ;\n FROB [x],$1 ;\n"),
        (4, "is no instruction", "X86 t\n{ }\nP0 ;\n .incbin $1 ;\n"),
        (4, "neither constant", 'X86 t\n{ }\nP0 ;\n MOV [x],"a" ;\n'),
        (4, "symbolic registers", "X86_64 t\n{ }\nP0 ;\n movl $1,%foo ;\n"),
        (4, "segments", "X86_64 t\n{ }\nP0 ;\n movl $1,%fs:(x) ;\n"),
        (4, "indirect", "X86_64 t\n{ }\nP0 ;\n movl *%rax,%ebx ;\n"),
        (4, "calls", "X86_64 t\n{ }\nP0 ;\n call L ;\n"),
        (4, "always locked", "X86_64 t\n{ }\nP0 ;\n uxch %eax,(x) ;\n"),
        (4, "privileged", "X86_64 t\n{ }\nP0 ;\n hlt ;\n"),
        (4, "number of the step", "X86_64 t\n{ }\nP0 ;\n rdtsc ;\n"),
        (4, "touches address 0x5000", "X86 t\n{ }\nP0 ;\n MOV [EAX+0x5000],$1 ;\n"),
        (4, "no number longer", "X86 t\n{ }\nP0 ;\n MOV [x],$" + "9" * 5000 + " ;\n"),
        (4, "shortened", "X86_64 t\n{ }\nP0 ;\n movb $300,(x) ;\n"),
        (4, "a row that never ends", "X86 t\n{ }\nP0 | P1 ;\n" + "NOP | lock;" * 2000),
        (5, "nothing may follow", "X86 t\n{ }\nP0 ;\n NOP ;\nexists 0:EAX=" + "9" * 5000),
        (5, "#DE", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\n DIV ECX ;\n"),
        (4, "the machine does not have", "X86 t\n{ }\nP0 ;\n RDRAND EAX ;\n"),
        (5, "there is no thread P7", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists 7:EAX=1\n"),
        (5, "no variable 'q'", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists q=1\n"),
        (5, "no variable 'q'", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nlocations [q;]\n"),
        (5, "no register", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists 0:foo=1\n"),
        (5, "expected '='", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists x\n"),
        (5, "expected ')'", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists (x=1\n"),
        (6, "nothing may follow", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists (x=1)\nexists (x=2)\n"),
        (5, "deeper than", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists " + "(" * 5000 + "x=1" + ")" * 5000),
        (5, "faults are not supported", "X86 t\n{ }\nP0 ;\n MOV [x],$1 ;\nexists fault(P0)\n"),
    ],
)
def test_bad_files(line: int, message: str, text: str) -> None:
    """One line with the place, for whatever is wrong."""
    with pytest.raises(LitmusError) as caught:
        judge(assemble([parse(text, "bad.litmus")])[0])
    assert str(caught.value).startswith(f"bad.litmus:{line}: ")
    assert message in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files(seed: int) -> None:
    """Whatever one does to a file, it is read or refused with a line; nothing else happens."""
    r = random.Random(seed)
    texts = [path.read_text() for path in sorted(FOLDER.glob("*/*.litmus"))]
    good: list[LitmusTest] = []
    errors: list[str] = []
    for _ in range(60):
        text = r.choice(texts)
        for _ in range(r.randint(1, 4)):
            at, length = r.randrange(len(text)), r.choice((1, 1, 3, 20))
            piece = r.choice(
                ("", r.choice("{}()[];|:=~$%\\/*\"'#\n\0é"), "(*", "P9", "-1", "exists", text[at : at + 9] * 2)
            )
            text = text[:at] + piece + text[at + length :]
        try:
            good.append(parse(text, "damaged.litmus"))
        except LitmusError as error:
            errors.append(str(error))
    for test in good[:3]:
        try:
            assemble([test])
        except LitmusError as error:
            errors.append(str(error))
    assert errors
    assert all(error.startswith("damaged.litmus:") for error in errors)
