"""How instructions and operands may be written, and what results call them."""

from __future__ import annotations

import pytest

from recorder.litmus import LitmusError, assemble, judge, parse


def states(text: str, model: str = "tso") -> list[dict[str, int]]:
    verdict = judge(assemble([parse(text, "t.litmus")])[0], model)
    return [dict(zip(verdict.locations, state.values, strict=True)) for state in verdict.states]


def one(arch: str, init: str, code: str) -> dict[str, int]:
    """The only final state of a single thread; instructions are separated by `;`."""
    found = states(f"{arch} t\n{{ {init} }}\n P0 ;\n {code} ;\n")
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("init", "code", "expected"),
    [
        ("x=5", "MOV EAX,[x]", {"0:EAX": 5}),
        ("x=5", "mov %eax,[x] ; mov [x],%eax", {"0:EAX": 0, "x": 0}),  # %: AT&T order
        ("x=5", "movl (x),%eax", {"0:EAX": 5}),
        ("x=5", "movl x,%eax ; movl $-1,x", {"0:EAX": 5, "x": -1}),
        ("x=5; 0:EAX=x", "MOV EBX,[EAX] ; MOV [EAX],$6", {"0:EBX": 5, "x": 6}),
        ("x=5", "MOV [x],6", {"x": 6}),
        ("x=5", "MOV BYTE PTR [x],$255 ; MOV WORD PTR [x+2],$1", {"x": 0x100FF}),
        ("x=5", "MOVB [x+1],$1", {"x": 0x105}),
        ("x=5; y=7", "MOV EAX,$1 ; LOCK XADD [x],EAX ; lock dec [y]", {"0:EAX": 5, "x": 6, "y": 6}),
        ("x=5; y=7", "XCHG [x],EAX ; XCHG EBX,[y]", {"0:EAX": 5, "0:EBX": 7, "x": 0, "y": 0}),
        ("x=5", "MOV EAX,$5 ; MOV EBX,$9 ; LOCK ; CMPXCHG [x],EBX", {"x": 9, "0:EAX": 5}),
        ("x=5", "CMP [x],$5 ; CMOVC EAX,[x] ; SETNB [y] ; JE L ; MOV [x],$1 ; L: NOP", {"x": 5, "y": 1, "0:EAX": 0}),
        ("x=5", "JMP L ; MOV [x],$1 ; L:", {"x": 5}),
        ("x=5", "MOV ECX,$3 ; L: INC [x] ; DEC ECX ; JNE L", {"x": 8, "0:ECX": 0}),
        ("x=5", "JGT L ; L: JLT M ; M: ret ; MOV [x],$1", {"x": 5}),
        ("x=5", "SHL [x],$2 ; MOV ECX,$1 ; SHR [x],CL ; NOT [y] ; NEG [z]", {"x": 10, "y": -1, "z": 0}),
        ("x=0x1ff", "MOVZX EAX,BYTE PTR [x] ; MOVSX EBX,BYTE PTR [x]", {"0:EAX": 255, "0:EBX": -1}),
        ("x=0x1ff", "movzbl (x),%eax ; movsbl (x),%ebx ; movzx %al,%ecx", {"0:EAX": 255, "0:EBX": -1, "0:ECX": 255}),
        ("int t[3]={1,2,3}; 0:EAX=t; 0:ECX=2", "MOV EBX,[EAX+ECX*4] ; MOV EDX,[EAX+4]", {"0:EBX": 3, "0:EDX": 2}),
        ("int t[3]={1,2,3}; 0:eax=2", "movl t(,%eax,4),%ebx ; movl t+4,%ecx", {"0:EBX": 3, "0:ECX": 2, "t[2]": 3}),
        ("int64_t x=-2", "MOV EBX,$1 ; MOV EAX,$-2 ; MOV EDX,$-1 ; LOCK CMPXCHG8B [x]", {"x": 1, "0:EAX": -2}),
        ("x=5", "PUSH [x] ; POP EAX ; PUSH EAX ; POP [y]", {"0:EAX": 5, "y": 5}),
        ("int16_t x=-3", "MOVW AX,[x]", {"0:EAX": 0xFFFD, "x": -3}),
        ("int *p=&x; x=3", "MOV EAX,[p] ; MOV EBX,[EAX]", {"0:EBX": 3}),
        ("x=1", "BTS [x],$4 ; LOCK BTR [x],$0 ; MFENCE ; LFENCE ; SFENCE ; PAUSE", {"x": 16}),
        ("x=7; 0:EAX=3; 0:EDI=x; 0:ECX=1", "REP STOSD ; ENTER $8,$0 ; MOV [EBP-4],$9 ; LEAVE", {"x": 3, "0:EBP": 0}),
        ("x=2", "IMUL EAX,[x],$3 ; MOV EBX,$-1 ; SHLD [x],EBX,$4", {"0:EAX": 6, "x": 0x2F}),
        ("x=1; 0:EAX=65", "BTS [x],EAX", None),  # reaches 8 bytes behind x, in x's cache line
        ("", "MOV EAX,$x ; MOV [EAX],$3", {"x": 3}),
        ("int8_t t[4]={1,2,3,4}; 0:ESI=t; 0:EDI=u; int8_t u[4]; 0:ECX=4", "REP MOVSB", {"u[3]": 4, "0:ECX": 0}),
    ],
)
def test_x86(init: str, code: str, expected: dict[str, int] | None) -> None:
    state = one("X86", init, code)
    for label, value in (expected or {}).items():
        assert state[label] == value, label


@pytest.mark.parametrize(
    ("init", "code", "expected"),
    [
        ("uint64_t x=-1", "movl (x),%eax ; movq (x),%rbx", {"0:rax": 0xFFFFFFFF, "0:rbx": -1, "x": -1}),
        ("", "movq $0x1122334455667788,%rax ; movq %rax,(x)", {"x": 0x1122334455667788}),
        ("uint64_t x; 0:RBX=0x202020202020202", "MOVQ %RBX,(x)", {"x": 0x202020202020202, "0:rbx": 0x202020202020202}),
        ("int64_t t[2]={1,-1}; 0:rax=t; 0:rbx=1", "movq 0(%rax,%ebx,8),%rcx", {"0:rcx": -1}),
        ("int x=5; int y=6", "movl x(%rip),%eax ; movl $7,y(%rip) ; incl x+0(%rip)", {"0:rax": 5, "y": 7, "x": 6}),
        ("int t[2]={1,2}", "movl t+4(%rip),%eax ; leaq t(%rip),%rdx ; addl $1,(%rdx)", {"0:rax": 2, "t[0]": 2}),
        ("x=3; 0:r8=x", "movl (%r8),%r9d ; movb $1,1(%r8) ; xorl %r10d,%r10d", {"0:r9": 3, "x": 0x103, "0:r10": 0}),
        ("x=5", "movl $9,%ebx ; movl $5,%eax ; lock cmpxchg (x),%ebx", {"x": 9}),
        ("x=5", "cmpl $6,(x) ; cmovc %eax,(x) ; cmovcl (x),%ecx", {"0:rax": 5, "0:rcx": 5}),
        ("0:rax=1", "and %eax,%eax ; endbr64", {"0:rax": 1}),
        ("__int128 x=1", "movl $1,%eax ; movl $2,%ebx ; movl $3,%ecx ; lock cmpxchg16b (x)", {"x": (3 << 64) + 2}),
        ("", "movl $5,%eax ; movnti %eax,(x) ; movl $7,%ecx ; movntiq %rcx,(y)", {"x": 5, "y": 7}),
        ("x=-2", "movslq (x),%rax ; movzwl (x),%ebx ; movsbq (x),%rcx", {"0:rax": -2, "0:rbx": 0xFFFE, "0:rcx": -2}),
        ("", "pushq $5 ; popq %rax ; movb $1,%ah ; movb $2,%sil", {"0:rax": 0x105, "0:rsi": 2}),
        ("uint64_t x = 7", "lock negq (x) ; lock notq (x) ; lock btsq $40,(x)", {"x": (1 << 40) + 6}),
        ("", "mov $1,(x) ; inc (x)", {"x": 2}),
        ("", "leaq x(%rip),%rcx ; movslq (x),%rax ; movzbq (y),%rbx ; movl $-1,(%rcx)", {"x": -1, "y": 0}),
        ("", "movq $-1,(x) ; movb $1,(y)", {"x": -1, "y": 1}),
        ("x=2", "movl $64,%eax ; xchgl (x),%eax ; xchgl %eax,(y)", {"x": 64, "y": 2}),
        (
            "",
            "mov (y),%eax ; cmp $1,%eax ; je L0 ; L1: ; mov %eax,(P1_r0) ; ret ; L0: ; movl $1,(x) ; jmp L1",
            {"P1_r0": 0},
        ),
    ],
)
def test_x86_64(init: str, code: str, expected: dict[str, int]) -> None:
    state = one("X86_64", init, code)
    for label, value in expected.items():
        assert state[label] == value, label


def test_locations_are_sorted_and_leave_out_addresses() -> None:
    text = """X86 t
{ z=0; int a[2]; 1:EDI=z; 1:EDX=4; }
 P0          | P1            ;
 MOV EBX,[z] | MOV [EDI],$1  ;
 MOV EAX,[z] | MOV EAX,[EDI] ;
"""
    verdict = judge(assemble([parse(text, "t")])[0])
    assert verdict.locations == ("0:EAX", "0:EBX", "1:EAX", "1:EDX", "a[0]", "a[1]", "z")
    named = judge(assemble([parse(text + "exists 1:EDI=z /\\ 0:ESI=0", "t")])[0])
    assert named.locations[3:6] == ("1:EDI", "1:EDX", "a[0]") or "1:EDI" in named.locations
    assert named.allowed


def test_threads_go_by_their_names() -> None:
    text = "X86 t\n{ }\n P1 | P0 ;\n MOV EAX,$1 | MOV EAX,$2 ;\nexists 0:EAX=2 /\\ 1:EAX=1"
    verdict = judge(assemble([parse(text, "t")])[0])
    assert verdict.locations == ("0:EAX", "1:EAX")
    assert [state.values for state in verdict.states] == [(2, 1)]
    assert verdict.allowed


def test_an_undeclared_register_is_an_int() -> None:
    """As in herd: after a 32-bit write -1 and 4294967295 are the same; a quadword is compared whole."""
    for condition, allowed in (("0:rax=-1", True), ("0:rax=4294967295", True), ("0:rbx=-1", False), ("0:ebx=-1", True)):
        text = f"X86_64 t\n{{ }}\n P0 ;\n movl $-1,%eax ;\n movq $0xffffffff,%rbx ;\nexists {condition}"
        assert judge(assemble([parse(text, "t")])[0]).allowed == allowed
    text = "X86_64 t\n{ uint64_t 0:rax; }\n P0 ;\n movl $-1,%eax ;\nexists 0:rax=-1"
    assert not judge(assemble([parse(text, "t")])[0]).allowed


def test_an_unaligned_store_within_a_line_is_whole() -> None:
    text = """X86 t
{ int64_t x; 0:EAX=0x01020304; }
 P0            | P1            ;
 MOV [x+1],EAX | MOV EBX,[x+1] ;
"""
    assert {state["1:EBX"] for state in states(text)} == {0, 0x01020304}


def test_a_store_over_two_lines_is_two() -> None:
    text = """X86 t
{ int8_t x[128]; 0:EAX=0x01020304; }
 P0             | P1             ;
 MOV [x+62],EAX | MOV EBX,[x+62] ;
"""
    seen = {state["1:EBX"] for state in states(text)}
    assert seen == {0, 0x0304, 0x01020000, 0x01020304}
    assert {state["1:EBX"] for state in states(text, "sc")} == seen
    assert {state["1:EBX"] for state in states(text, "up")} == {0, 0x01020304}


def test_a_load_over_two_lines_is_two() -> None:
    """The lower bytes are loaded first: both stores may come in between, or the first alone, never the second alone."""
    text = """X86 t
{ int8_t x[128]; }
 P0             | P1                     ;
 MOV EAX,[x+62] | MOV BYTE PTR [x+63],1  ;
                | MOV BYTE PTR [x+64],2  ;
"""
    seen = {state["0:EAX"] for state in states(text)}
    assert seen == {0, 0x100, 0x20000, 0x20100}
    assert {state["0:EAX"] for state in states(text, "up")} == {0, 0x100, 0x20100}


def test_the_two_loads_of_cmps_are_two() -> None:
    """[ESI] is loaded first; in between P1 may store to both. Only then is it the smaller one."""
    text = """X86 t
{ 0:ESI=x; 0:EDI=y; }
 P0        | P1          ;
 CMPSD     | MOV [x],$1  ;
 SETE AL   | MOV [y],$1  ;
 SETB AH   |             ;
"""
    equal, above, below = 1, 0, 0x100
    for model in ("tso", "sc"):
        assert {state["0:EAX"] for state in states(text, model)} == {equal, above, below}
    assert {state["0:EAX"] for state in states(text, "up")} == {equal, above}


def test_store_buffer_capacity_limits_nothing() -> None:
    """All stores of a thread may be held at once; beyond what a CPU can hold outcomes are missing, and we say so."""
    for count, complete in ((50, True), (60, False)):
        rows = "".join(f" MOV [x],${number} | ;\n" for number in range(1, count + 1))
        text = f"X86 t\n{{ }}\n P0 | P1 ;\n{rows} MOV EAX,[y] | MOV [y],$1 ;\n | MFENCE ;\n | MOV EAX,[x] ;\n"
        verdict = judge(assemble([parse(text + "exists 0:EAX=0 /\\ 1:EAX=0", "t")])[0])
        assert verdict.allowed == complete
        assert (not verdict.cut) == complete


def test_endless_loops_end() -> None:
    """A spin loop comes back to states already seen; a counting one runs into the limit."""
    spin = "X86 t\n{ }\n P0 | P1 ;\n L: CMP [x],$0 | MOV [x],$1 ;\n JE L | ;\nforall x=1"
    assert [state["x"] for state in states(spin)] == [1]
    forever = "X86 t\n{ }\n P0 | P1 ;\n L: JMP L | MOV [x],$1 ;\n"
    assert states(forever) == []
    counting = assemble([parse("X86 t\n{ }\n P0 ;\n L: INC [x] ;\n JMP L ;\n", "t")])[0]
    verdict = judge(counting, states_max=500)
    assert verdict.cut == "more than 500 states"
    assert not verdict.json()["complete"]


def test_stray_accesses_are_errors_not_outcomes() -> None:
    for code in ("MOV EAX,[x+65536]", "MOV [x-4],$1", "BTS [x],EBX"):
        text = f"X86 t\n{{ 0:EBX=0x100000; }}\n P0 ;\n NOP ;\n {code} ;\n"
        with pytest.raises(LitmusError, match=r"t.litmus:5: P0: .* touches address 0x[0-9a-f]+, where no variable"):
            states(text)


def test_long_runs_stay_cheap() -> None:
    """Thousands of steps in a row cost thousands of steps, not their square."""
    text = "X86 t\n{ int16_t x=5000; }\n P0 | P1 ;\n L: LOCK DECW [x] | NOP ;\n JNE L | ;\n"
    assert states(text, "up") == [{"x": 0}]
    verdict = judge(assemble([parse(text, "t")])[0])
    assert [state.values for state in verdict.states] == [(0,)]
    assert verdict.exploration.states > 5_000


@pytest.mark.parametrize(
    "code",
    [
        "lss (x),%eax",
        "movl %eax,%cr0",
        "popf",
        "cli",
        "int $3",
        "rdmsr",
        "ljmp $1,$2",
        "in $1,%al",
        "sidt (x)",
        "call L",
        "monitor",
    ],
)
def test_what_means_nothing_in_a_litmus_test_is_refused(code: str) -> None:
    """Whatever reads or changes state that is neither general registers nor the test's memory."""
    with pytest.raises(LitmusError, match=r"t:4: "):
        assemble([parse(f"X86 t\n{{ x=0; 0:EAX=0; }}\n P0 ;\n {code} ;\n L: mov $1,%eax ;\n", "t")])


def test_widths_of_undeclared_variables() -> None:
    """An int, unless some access is wider; taking an address or extending a byte is no access of that width."""
    text = "X86_64 t\n{ }\n P0 ;\n leaq x(%rip),%rax ;\n movzbq (y),%rbx ;\n lock cmpxchg8b (z) ;\n incq (w) ;\n"
    slots = assemble([parse(text, "t")])[0].layout.slots
    assert {name: slot.size_bytes for name, slot in slots.items()} == {"x": 4, "y": 4, "z": 8, "w": 8}
