"""docs/platform.md, line by line: ports, tracepoints, interrupts, start-up, and what goes wrong how."""

import struct

import pytest
from programs import CODE, GDT, IDT, STACK, TSS, Bare, assemble, auto, drain, events, irq, record, run

from machine import _core

APIC = 0xFEE00000


# --- tracepoints, ports, end of a run ---


def test_tracepoints_are_recorded_and_do_not_stop() -> None:
    bare = Bare("nopl 0x52540007(%ebx,%ecx,1); nopl 0x52540008(%edx); nopl 0x52550007(%ebx,%ecx,1); nopl (%eax); hlt")
    for name, value in (("rbx", 0x11), ("rcx", 0x22), ("rdx", 0x33)):
        bare.machine.set_register(0, name, value)
    assert bare.execute(run(5)) == "plan"
    assert bare.events() == [
        {"step": 0, "pc": CODE, "kind": "trace", "phys": 7, "value": 0x11, "addr": 0x22},
        {"step": 1, "pc": CODE + 8, "kind": "trace", "phys": 8, "value": 0x33},
        {"step": 4, "pc": bare.register("rip") - 1, "kind": "halt"},
    ]


@pytest.mark.parametrize("exact", [False, True])
def test_stop_at_a_tracepoint(exact: bool) -> None:
    bare = Bare("nopl 0x52540007(%ebx,%ecx,1); nopl 0x52540008(%ebx,%ecx,1); nop; hlt")
    bare.machine.stop_at_trace = 8
    assert bare.machine.execute(run(3), exact=exact) == ("trace", 0, 2)
    assert bare.machine.execute(run(3), index=0, done=2, exact=exact) == ("plan", 1, 0)
    assert bare.machine.step == 3


def test_a_tracepoint_at_the_end_of_its_record_moves_on() -> None:
    bare = Bare("nopl 0x52540007(%ebx,%ecx,1); nop; hlt")
    bare.machine.stop_at_trace = 7
    assert bare.machine.execute(run(1) + run(1), exact=True) == ("trace", 1, 0)


def test_choice_port() -> None:
    bare = Bare("mov $0x510,%dx; mov $3,%eax; out %eax,%dx; in %dx,%eax; hlt")
    assert bare.execute(auto()) == "choice"
    assert bare.machine.waiting(0) == "choice"
    assert bare.execute(run(1)) == "plan"
    assert bare.machine.step == 3
    assert bare.execute(record(_core.CHOICE, 3), exact=True) == "diverged"
    assert bare.execute(record(_core.CHOICE, 2), exact=True) == "plan"
    assert bare.execute(auto()) == "idle"
    assert bare.register("rax") == 2
    assert bare.events("port_out", "choice", "port_in") == [
        {"step": 2, "pc": CODE + 9, "kind": "port_out", "addr": 0x510, "value": 3, "size": 4},
        {"step": 3, "pc": CODE + 10, "kind": "choice", "addr": 3, "value": 2},
        {"step": 4, "pc": CODE + 10, "kind": "port_in", "addr": 0x510, "value": 2, "size": 4},
    ]


def test_a_choice_among_nothing_is_no_question() -> None:
    bare = Bare("mov $0x510,%dx; xor %eax,%eax; out %eax,%dx; hlt")
    assert bare.execute(auto()) == "idle"


def test_exit_ends_everything() -> None:
    bare = Bare("mov $42,%eax; out %eax,$0xf4; nop; nop", cpus=2)
    assert bare.execute(auto()) == "exit"
    assert (bare.machine.exit_status, bare.machine.step) == (42, 2)
    assert [bare.machine.waiting(cpu) for cpu in (0, 1)] == ["off", "off"]
    assert bare.execute(run(1)) == "exit"
    assert bare.execute(run(1), exact=True) == "diverged"
    assert bare.machine.step == 2
    assert bare.events() == [
        {"step": 1, "pc": CODE + 5, "kind": "port_out", "addr": 0xF4, "value": 42, "size": 4},
        {"step": 1, "pc": CODE + 5, "kind": "exit", "value": 42},
    ]


def test_only_32_bits_reach_the_exit_port() -> None:
    bare = Bare("mov $42,%eax; out %al,$0xf4; out %ax,$0xf4; hlt")
    assert bare.execute(auto()) == "idle"


def test_console() -> None:
    bare = Bare("mov $'h',%al; out %al,$0xe9; mov $'i',%al; out %al,$0xe9; hlt")
    bare.execute(auto())
    assert bare.machine.console_take() == b"hi"
    assert bare.machine.console_take() == b""


def test_nobody_answers_other_ports() -> None:
    bare = Bare("in $0x60,%al; in $0x60,%ax; mov %eax,%ebx; in $0x60,%eax; hlt")
    bare.execute(auto())
    assert (bare.register("rbx"), bare.register("rax")) == (0xFFFF, 0xFFFFFFFF)


def test_holes_read_as_ones_and_swallow_writes() -> None:
    bare = Bare("mov 0x40000000,%eax; movl $5,0x40000000; mov 0x40000000,%ebx; hlt")
    bare.execute(auto())
    assert (bare.register("rax"), bare.register("rbx")) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert [(row["kind"], row["info"]) for row in bare.events("load", "store")] == [
        ("load", _core.EVENT_DEVICE),
        ("store", _core.EVENT_DEVICE | _core.EVENT_DRAINED),
        ("load", _core.EVENT_DEVICE),
    ]


# --- interrupts ---

TIMER = f"""
    movl $0x1ff, {APIC + 0xF0:#x}
    movl $0x40, {APIC + 0x320:#x}
    movl $1000, {APIC + 0x380:#x}
"""


def test_the_timer_fires_only_when_armed_unmasked_and_open() -> None:
    bare = Bare(
        f"movl $0x10040,{APIC + 0x320:#x}; movl $7,{APIC + 0x380:#x}; sti; nop; movl $0x40,{APIC + 0x320:#x};"
        f"movl $0,{APIC + 0x380:#x}; movl $9,{APIC + 0x380:#x}; cli; sti; nop; nop; hlt"
    )
    bare.gate(0x40, CODE + 0x800)
    open_after = []
    for step in range(12):
        open_after.append(bare.machine.can_interrupt(0, 0x40))
        assert bare.execute(run(1), exact=True) == "plan", step
    # masked, masked, closed, shadow, masked | unmasked, disarmed, armed, cli, shadow, open, open
    assert open_after == [False] * 5 + [True, False, True, False, False, True, True]
    assert bare.machine.can_interrupt(0, 0x40)  # halted
    assert not bare.machine.can_interrupt(0, 0x41)
    assert bare.execute(irq(0x41), exact=True) == "diverged"
    assert bare.execute(irq(0x40), exact=True) == "plan"
    assert (bare.register("rip"), bare.machine.waiting(0)) == (CODE + 0x800, "")
    assert bare.events("interrupt")[0]["info"] == 0x40
    assert not bare.machine.can_interrupt(0, 0x40)  # IF is off and the vector in service


def test_the_default_schedule_ticks_when_all_are_idle() -> None:
    bare = Bare(TIMER + "sti; 1: hlt; inc %ebx; cmp $3,%ebx; jne 1b; cli; hlt")
    handler = CODE + 0x800
    bare.machine.write(handler, assemble(f"movl $0,{APIC + 0xB0:#x}; inc %ecx; iret", handler))
    bare.gate(0x40, handler)
    assert bare.execute(auto()) == "idle"
    assert (bare.register("rbx"), bare.register("rcx")) == (3, 3)


def test_priorities_of_the_apic() -> None:
    bare = Bare("sti; nop; " + "nop; " * 40)
    for vector in (0x41, 0x48, 0x51):
        bare.gate(vector, CODE + 0x20, kind=0x8F)  # trap gates leave IF on
    bare.machine.write(CODE + 0x800, assemble(f"movl $0x40051,{APIC + 0x300:#x}", CODE + 0x800))
    for vector in (0x41, 0x48):
        bare.machine.set_register(0, "rip", CODE + 0x800)
        bare.machine.write(CODE + 0x800, assemble(f"movl $0x400{vector:02x},{APIC + 0x300:#x}", CODE + 0x800))
        bare.execute(run(1))
    bare.machine.set_register(0, "rip", CODE)
    bare.execute(run(2))
    assert [bare.machine.can_interrupt(0, v) for v in (0x41, 0x48, 0x51)] == [True, True, False]
    assert bare.execute(irq(0x48), exact=True) == "plan"
    assert not bare.machine.can_interrupt(0, 0x41)  # same class as the one in service
    back = bare.register("rip")
    bare.machine.set_register(0, "rip", CODE + 0x900)
    bare.machine.write(CODE + 0x900, assemble(f"movl $0x50,{APIC + 0x80:#x}; movl $0,{APIC + 0xB0:#x}", CODE + 0x900))
    bare.execute(run(2))
    assert not bare.machine.can_interrupt(0, 0x41)  # the task priority is above
    bare.machine.write(CODE + 0x90A, assemble(f"movl $0x30,{APIC + 0x80:#x}", CODE + 0x90A))
    bare.machine.set_register(0, "rip", CODE + 0x90A)
    bare.execute(run(1))
    assert bare.machine.can_interrupt(0, 0x41)
    bare.machine.set_register(0, "rip", back)


@pytest.mark.parametrize(
    ("icr_high", "icr_low", "reached"),
    [
        (0x02000000, 0x00000050, [2]),
        (0x00000000, 0x00000050, [0]),
        (0x07000000, 0x00000050, []),
        (0, 0x00040050, [0]),
        (0, 0x00080050, [0, 1, 2, 3]),
        (0, 0x000C0050, [1, 2, 3]),
    ],
    ids=["one", "own number", "nobody", "self", "all", "all but self"],
)
def test_fixed_ipis(icr_high: int, icr_low: int, reached: list[int]) -> None:
    bare = Bare(f"movl ${icr_high},{APIC + 0x310:#x}; movl ${icr_low},{APIC + 0x300:#x}; hlt", cpus=4)
    bare.execute(run(2))
    assert [(row.get("addr", 0), row["info"], row["value"]) for row in bare.events("ipi")] == [
        (cpu, 0x50, icr_low) for cpu in reached
    ]
    for cpu in range(4):
        bare.machine.set_register(cpu, "rflags", 0x202)
        starts = bare.machine.waiting(cpu) == ""
        assert bare.machine.can_interrupt(cpu, 0x50) == (cpu in reached and starts)


def test_start_up() -> None:
    bare = Bare(f"movl $0x01000000,{APIC + 0x310:#x}; movl $0x615,{APIC + 0x300:#x}; hlt", cpus=3)
    bare.machine.write(0x15000, b"\xf4")
    assert [bare.machine.waiting(cpu) for cpu in range(3)] == ["", "start", "start"]
    bare.execute(run(2))
    assert [bare.machine.waiting(cpu) for cpu in range(3)] == ["", "", "start"]
    state = bare.machine.registers(1)
    names = ("rip", "rsi", "rflags", "cr0", "cs", "ds", "rax", "rsp")
    assert [state[name] for name in names] == [0x15000, 0x10000, 2, 0x11, 0x10, 0x18, 0, 0]
    assert bare.events("ipi", "start") == [
        {"step": 1, "pc": CODE + 10, "kind": "ipi", "addr": 1, "value": 0x615, "info": 0x15},
        {"step": 1, "pc": CODE + 10, "kind": "start", "addr": 0x15000, "cpu": 1},
    ]
    before = bare.machine.registers(1)
    bare.machine.set_register(0, "rip", CODE + 10)
    bare.execute(run(1))  # a second one changes nothing
    assert bare.machine.registers(1) == before


def test_an_event_of_a_start_names_the_sender_after_a_restore_too() -> None:
    bare = Bare(f"movl $0x01000000,{APIC + 0x310:#x}; movl $0x615,{APIC + 0x300:#x}; hlt", cpus=2)
    bare.machine.write(0x15000, b"\x90\x90\xf4")
    start = bare.machine.snapshot()
    bare.execute(run(2), run(2, cpu=1))
    first = bare.events()
    bare.machine.restore(start)
    bare.machine.events_clear()
    bare.execute(run(2), run(2, cpu=1))
    assert bare.events() == first


def test_a_pending_ipi_comes_before_the_next_instruction() -> None:
    """In the default schedule: to itself at once, and as soon as interrupts are open."""
    text = f"sti; nop; movl $0x40050,{APIC + 0x300:#x}; inc %ebx; cli; movl $0x40051,{APIC + 0x300:#x}; inc %ecx;"
    text += "sti; inc %edx; inc %edx; inc %edx; cli; hlt"
    bare = Bare(text)
    handler = CODE + 0x800
    bare.machine.write(
        handler, assemble(f"push %ebx; push %edx; movl $0,{APIC + 0xB0:#x}; pop %eax; pop %edi; iret", handler)
    )
    bare.gate(0x50, handler)
    bare.gate(0x51, handler)
    assert bare.execute(auto()) == "idle"
    interrupted = [row["pc"] for row in bare.events("interrupt")]
    assert interrupted == [CODE + 12, CODE + 12 + 1 + 1 + 10 + 1 + 1 + 1]  # at INC EBX; one INC EDX after STI
    assert (bare.register("rax"), bare.register("rdi"), bare.register("rdx")) == (1, 1, 3)


def test_a_self_ipi_cuts_no_run_short() -> None:
    for exact in (False, True):
        bare = Bare(f"cli; movl $0x40050,{APIC + 0x300:#x}; inc %ebx; inc %ebx; hlt")
        assert bare.machine.execute(run(4), exact=exact) == ("plan", 1, 0)
        assert bare.register("rbx") == 2
        assert bare.machine.choices_take() == run(4)


def test_shadows() -> None:
    """After STI that opens, MOV SS and POP SS one instruction runs first; after an STI that changes nothing, none."""
    bare = Bare(TIMER + "sti; nop; sti; mov %ss,%ax; mov %eax,%ss; nop; push %ss; pop %ss; nop; nop")
    bare.gate(0x40, CODE + 0x800)
    bare.execute(run(4))
    opened = []
    for _ in range(9):
        opened.append(bare.machine.can_interrupt(0, 0x40))
        bare.execute(run(1))
    #        after sti  nop   sti   mov   mov ss nop  push  pop ss nop
    assert opened == [False, True, True, True, False, True, True, False, True]


def test_a_fault_ends_the_shadow() -> None:
    bare = Bare(TIMER + "sti; ud2")
    bare.gate(6, CODE + 0x800, kind=0x8F)
    bare.gate(0x40, CODE + 0x800)
    bare.execute(run(5))
    assert bare.register("rip") == CODE + 0x800
    assert bare.machine.can_interrupt(0, 0x40)


def test_halt_wakes_up_behind_hlt() -> None:
    bare = Bare(TIMER + "sti; hlt; inc %ebx; hlt")
    bare.machine.write(CODE + 0x800, b"\xcf")
    bare.gate(0x40, CODE + 0x800)
    bare.execute(run(10))
    assert (bare.machine.waiting(0), bare.register("halted")) == ("halt", 1)
    assert bare.execute(run(1), exact=True) == "diverged"
    bare.execute(irq(0x40), run(2))
    assert bare.register("rbx") == 1


# --- exceptions ---


@pytest.mark.parametrize(
    ("code", "reported"),
    [
        ("0f0b", 0x0B0F),
        ("0fff112233445566", 0x665544332211FF0F),
        ("f09011223344556677", 0x66554433221190F0),
        ("f0c700112233445566", 0x554433221100C7F0),
        ("8cf8112233445566", 0x665544332211F88C),
        ("8ec8112233445566", 0x665544332211C88E),
        ("0f20c81122334455", 0x5544332211C8200F),
    ],
)
def test_undefined_opcodes_report_their_bytes(code: str, reported: int) -> None:
    bare = Bare()
    bare.machine.write(CODE, bytes.fromhex(code))
    bare.gate(6, CODE + 0x100)
    bare.execute(run(1))
    fault = bare.events("fault")[0]
    mask = (1 << 8 * min(8, len(code) // 2)) - 1
    assert (fault["info"], int(fault["addr"]) & mask, fault["pc"]) == (6, reported, CODE)
    assert bare.register("rip") == CODE + 0x100


def frame(bare: Bare, count: int) -> list[int]:
    return [bare.word(bare.register("rsp") + 4 * i) for i in range(count)]


def test_frames_without_change_of_privilege() -> None:
    bare = Bare("stc; ud2")
    bare.gate(6, CODE + 0x100)
    bare.execute(run(2))
    assert frame(bare, 3) == [CODE + 1, 0x10, 0x10003]  # RF is set in the frame of a fault
    assert bare.register("rsp") == STACK - 12
    bare = Bare("stc; int $0x30")
    bare.gate(0x30, CODE + 0x100, kind=0x8F)
    bare.execute(run(2))
    assert frame(bare, 3) == [CODE + 3, 0x10, 3]
    bare = Bare("mov $0x50,%eax; mov %eax,%ds")
    bare.gate(13, CODE + 0x100)
    bare.execute(run(2))
    assert frame(bare, 4) == [0x50, CODE + 5, 0x10, 0x10002]


USER = "pushl $0x2b; pushl $0x8000; pushl $0x3202; pushl $0x23; pushl $1f; iret; 1:"


def test_to_the_user_and_back() -> None:
    bare = Bare("mov $0x30,%eax; ltr %ax;" + USER + "stc; int $0x30; hlt")
    handler = CODE + 0x100
    bare.machine.write(handler, assemble("mov %esp,%ebx; inc %ecx; iret", handler))
    bare.gate(0x30, handler, kind=0xEE)
    bare.execute(run(9))
    state = bare.machine.registers(0)
    assert [state[name] for name in ("cpl", "cs", "ss", "rsp", "rflags")] == [3, 0x23, 0x2B, 0x8000, 0x3203]
    assert [state[name] for name in ("ds", "es", "fs", "gs")] == [0, 0, 0, 0]  # the kernel's are taken away
    back = state["rip"] + 2
    bare.execute(run(1))
    state = bare.machine.registers(0)
    assert [state[name] for name in ("cpl", "cs", "ss", "rsp")] == [0, 0x10, 0x18, STACK - 20]
    assert state["rflags"] == 0x3003  # interrupt gate
    assert frame(bare, 5) == [back, 0x23, 0x3203, 0x8000, 0x2B]
    bare.execute(run(3))
    assert (bare.register("cpl"), bare.register("rip"), bare.register("rflags")) == (3, back, 0x3203)
    assert bare.events("iret")[-1]["addr"] == back
    bare.gate(13, handler + 0x80)
    bare.execute(run(1))  # HLT
    assert (bare.events("fault")[-1]["info"], bare.register("cpl")) == (13, 0)


def test_software_interrupts_need_the_privilege_of_the_gate() -> None:
    bare = Bare("mov $0x30,%eax; ltr %ax;" + USER + "int $0x31")
    bare.gate(0x31, CODE + 0x100)
    bare.gate(13, CODE + 0x200)
    bare.execute(run(9))
    assert bare.register("rip") == CODE + 0x200
    assert frame(bare, 1) == [0x31 * 8 + 2]


def test_errors_while_delivering_have_the_external_bit() -> None:
    bare = Bare("ud2")
    bare.gate(6, CODE + 0x100, selector=0x58)
    bare.gate(13, CODE + 0x200)
    bare.execute(run(1))
    assert frame(bare, 1) == [0x59]
    bare = Bare("ud2")
    bare.gate(6, CODE + 0x100, kind=0x0E)  # not present
    bare.gate(11, CODE + 0x200)
    bare.execute(run(1))
    assert frame(bare, 1) == [6 * 8 + 3]
    bare = Bare("int $0x31")
    bare.gate(0x31, CODE + 0x100, selector=0x58)
    bare.gate(13, CODE + 0x200)
    bare.execute(run(1))
    assert frame(bare, 1) == [0x58]  # the program's own doing


def test_double_fault() -> None:
    bare = Bare("mov $0x50,%eax; mov %eax,%ds")
    bare.gate(8, CODE + 0x300)
    bare.execute(run(2))
    assert bare.register("rip") == CODE + 0x300
    assert [(row["info"], row.get("value", 0)) for row in bare.events("fault")] == [(13, 0x50), (8, 0)]
    assert frame(bare, 3) == [0, CODE + 5, 0x10]


def test_triple_fault() -> None:
    bare = Bare("mov $0x50,%eax; mov %eax,%ds", cpus=2)
    assert bare.execute(run(5)) == "shutdown"
    assert [row["kind"] for row in bare.events("fault", "shutdown")] == ["fault", "fault", "shutdown"]
    assert bare.register("rip") == CODE + 5
    assert (bare.machine.step, bare.machine.waiting(1)) == (2, "off")
    assert bare.execute(run(1)) == "shutdown"


def test_a_benign_pair_is_handled_one_after_the_other() -> None:
    bare = Bare("ud2")
    bare.gate(13, CODE + 0x300)
    bare.execute(run(1))
    assert [row["info"] for row in bare.events("fault")] == [6, 13]
    assert frame(bare, 2) == [6 * 8 + 3, CODE]


def test_a_handler_that_faults_at_once_does_not_overflow_the_store_buffer() -> None:
    for store_buffer in (1, 8, 56):
        bare = Bare("ud2", store_buffer=store_buffer)
        bare.gate(6, CODE)
        bare.machine.set_register(0, "rsp", 0x8F001)
        assert bare.execute(run(2000, hold=True)) == "plan"
        assert len(bare.machine.store_buffer_entries(0)) <= store_buffer
        assert bare.register("rsp") == 0x8F001 - 12 * 2000


def test_accessed_bits_do_not_overflow_the_store_buffer() -> None:
    text = "".join(f"mov ${0x1000 + 8 * i:#x},%eax; mov %eax,%ds;" for i in range(120))
    bare = Bare(text, store_buffer=56)
    bare.machine.write(GDT + 0x1000, struct.pack("<II", 0xFFFF, 0xCF9200) * 120)
    bare.machine.set_register(0, "gdt_base", 0x40000)
    bare.machine.set_register(0, "gdt_limit", 0xFFFF)
    bare.machine.write(0x41000, struct.pack("<II", 0xFFFF, 0xCF9200) * 120)
    assert bare.execute(run(240, hold=True)) == "plan"
    assert len(bare.machine.store_buffer_entries(0)) == 56
    bare.machine.state_load(bare.machine.state_save())


def test_nested_enter_fills_the_buffer_within_its_slots() -> None:
    bare = Bare("mov $0x8f7fd,%ebp; 1: enter $0,$31; jmp 1b", store_buffer=56)
    bare.machine.set_register(0, "rsp", 0x8F7FD)
    assert bare.execute(run(400, hold=True)) == "plan"
    saved = bare.machine.state_save()
    before = bare.machine.store_buffer_entries(0)
    bare.machine.state_load(saved)
    assert bare.machine.store_buffer_entries(0) == before


def test_a_task_segment_too_small_for_a_stack() -> None:
    bare = Bare("mov $0x30,%eax; ltr %ax;" + USER + "int $0x30")
    bare.gate(0x30, CODE + 0x100, kind=0xEE)
    bare.machine.write(GDT + 0x30, bytes(8))
    bare.machine.write(GDT + 0x30, struct.pack("<II", TSS << 16 | 8, 0x8900))
    assert bare.execute(run(20)) == "shutdown"
    assert [(row["info"], row.get("value", 0)) for row in bare.events("fault")] == [(10, 0x30), (8, 0)]


# --- code that changes ---


def test_self_modifying_code() -> None:
    bare = Bare("movb $0x41,1f; 1: .byte 0x90; movb $0x43,2f; jmp 2f; 2: .byte 0x90; hlt")  # inc ecx, inc ebx
    bare.execute(auto())
    assert (bare.register("rcx"), bare.register("rbx")) == (1, 1)


def test_a_loop_that_rewrites_its_body() -> None:
    bare = Bare("mov $5,%ecx; 1: incl 2f+1; 2: mov $10,%eax; add %eax,%ebx; loop 1b; hlt")
    bare.execute(auto())
    assert bare.register("rbx") == 11 + 12 + 13 + 14 + 15


def test_held_stores_to_own_code_are_never_overtaken() -> None:
    bare = Bare("movb $0x41,1f; nop; 1: .byte 0x90; hlt")
    assert bare.execute(run(2, hold=True), exact=True) == "plan"
    assert bare.execute(run(1, hold=True), exact=True) == "blocked"
    assert bare.execute(drain(), run(1), exact=True) == "plan"
    assert bare.register("rcx") == 1


START_OTHER = f"movl $0xc0600 + ({CODE + 0x1000:#x} >> 12),{APIC + 0x300:#x};"


def test_code_written_by_another_cpu() -> None:
    bare = Bare(START_OTHER + f"movb $0x41,{CODE + 0x1000:#x}; hlt", cpus=2)
    bare.machine.write(CODE + 0x1000, assemble("1: inc %ebx; jmp 1b", CODE + 0x1000))
    bare.execute(run(1), run(6, cpu=1), run(1, hold=True), run(2, cpu=1))
    assert (bare.register("rbx", 1), bare.register("rcx", 1)) == (4, 0)
    bare.execute(drain(), run(4, cpu=1))
    assert (bare.register("rbx", 1), bare.register("rcx", 1)) == (4, 2)


def test_an_instruction_over_two_pages_follows_both() -> None:
    bare = Bare(f"1: jmp {CODE + 0x1FFD:#x}")
    place = CODE + 0x1FFD
    bare.machine.write(place, assemble(f"mov $0x11223344,%eax; jmp {CODE:#x}", place))
    bare.execute(run(3))
    assert bare.register("rax") == 0x11223344
    bare.machine.write(CODE + 0x2000, b"\x99")
    bare.execute(run(3))
    assert bare.register("rax") == 0x11993344
    bare.machine.write(CODE + 0x1FFE, b"\x77")
    bare.execute(run(3))
    assert bare.register("rax") == 0x11993377


def test_code_restored_is_decoded_again() -> None:
    bare = Bare("inc %eax; hlt")
    start = bare.machine.snapshot()
    bare.execute(run(1))
    bare.machine.write(CODE, b"\x48")  # dec eax
    changed = bare.machine.snapshot()
    for snapshot, expected in ((changed, 0xFFFFFFFF), (start, 1)):
        bare.machine.restore(snapshot)
        bare.machine.set_register(0, "rip", CODE)
        bare.machine.set_register(0, "rax", 0)
        bare.execute(run(1))
        assert bare.register("rax") == expected


def test_a_code_segment_that_ends_within_a_page() -> None:
    """The limit holds for code that has been running in the page for a while as well."""
    for restored in (False, True):
        bare = Bare(f"ljmp $0x38,${CODE + 0x40:#x}")
        limit = CODE + 0x4F
        bare.machine.write(GDT + 0x38, struct.pack("<HHBBBB", limit & 0xFFFF, 0, 0, 0x9B, 0x40 | limit >> 16, 0))
        bare.machine.write(CODE + 0x40, b"\x90" * 64)
        bare.gate(13, CODE + 0x300)
        bare.machine.set_register(0, "rip", CODE + 0x40)
        bare.execute(run(64))  # decoded through the flat segment
        bare.machine.set_register(0, "rip", CODE)
        bare.execute(run(9))
        if restored:
            bare.machine.restore(bare.machine.snapshot())
        bare.execute(run(9))
        assert bare.register("rip") == CODE + 0x300
        assert frame(bare, 2) == [0, CODE + 0x50]


# --- the default schedule ---


def test_the_default_schedule_goes_on_from_a_snapshot_as_before() -> None:
    loop = "1: inc %ebx; pause; jmp 1b"
    bare = Bare(START_OTHER + loop, cpus=3)
    bare.machine.write(CODE + 0x1000, assemble(loop, CODE + 0x1000))
    for cut in range(3, 40, 4):
        bare.execute(auto(cut))
        here = bare.machine.snapshot()
        ends = []
        for _ in range(2):
            bare.machine.choices_take()
            bare.execute(auto(50))
            ends.append((bare.machine.state_hash(), bare.machine.choices_take()))
            bare.machine.restore(here)
        assert ends[0] == ends[1]


def test_in_auto_a_spinning_cpu_lets_the_next_one_run() -> None:
    text = START_OTHER + "1: pause; cmpl $0,0x8000; je 1b; mov 0x8000,%eax; hlt"
    bare = Bare(text, cpus=2)
    bare.machine.write(CODE + 0x1000, assemble("movl $7,0x8000; hlt", CODE + 0x1000))
    assert bare.execute(auto()) == "idle"
    assert bare.register("rax") == 7


def test_auto_drains_what_is_left() -> None:
    bare = Bare("movl $7,0x8000; hlt")
    bare.execute(run(2, hold=True))
    assert bare.word(0x8000) == 0
    assert bare.execute(auto()) == "idle"
    assert bare.word(0x8000) == 7
    assert bare.events("store", "drain") == [
        {"step": 0, "pc": CODE, "kind": "store", "addr": 0x8000, "phys": 0x8000, "value": 7, "size": 4},
        {"step": 2, "pc": CODE, "kind": "drain", "addr": 0x8000, "phys": 0x8000, "value": 7, "size": 4},
    ]


def test_serialising_instructions_wait_for_the_buffer() -> None:
    waits = [
        "mfence",
        "lock incl 0x8100",
        "xchg %eax,0x8100",
        "in $0x60,%al",
        "out %al,$0xe9",
        "cpuid",
        "iret",
        "wbinvd",
    ]
    waits += ["mov %cr3,%eax; mov %eax,%cr3", "invlpg 0x8000", "lgdt 0x8100", "mov $0x30,%eax; ltr %ax"]
    for text in waits:
        bare = Bare("movl $7,0x8000;" + text)
        before = text.count(";") + 1
        assert bare.execute(run(before, hold=True), exact=True) == "plan", text
        assert bare.execute(run(1, hold=True), exact=True) == "blocked", text
        step = bare.machine.step
        assert bare.execute(drain(), exact=True) == "plan", text
        bare.execute(run(1, hold=True))
        assert bare.machine.step == step + 2, text
    for text in ("lfence", "sfence", "mov 0x8000,%eax", "incl 0x8000", "pause", "hlt", "rdtsc", "cli", "popf"):
        bare = Bare("movl $7,0x8000;" + text)
        assert bare.execute(run(2, hold=True), exact=True) == "plan", text
        assert bare.word(0x8000) == 0, text


def test_a_tentative_run_drains_by_itself() -> None:
    bare = Bare("movl $1,0x8000; movl $2,0x8004; movl $3,0x8008; mfence; hlt", store_buffer=2)
    assert bare.machine.execute(run(7, hold=True)) == ("plan", 1, 0)
    assert bare.machine.step == 7
    assert bare.machine.choices_take() == record(_core.RUN, 7, flags=_core.HOLD | _core.ROOM)
    assert [row["kind"] for row in bare.events()] == ["store", "store", "drain", "store", "drain", "drain", "fence"]


def test_machines_do_not_share_snapshots() -> None:
    first, second = Bare("nop"), Bare("nop")
    snapshot = first.machine.snapshot()
    with pytest.raises(ValueError, match="another machine"):
        second.machine.restore(snapshot)


def test_interrupt_table_entries_are_implicit_loads() -> None:
    bare = Bare("int3")
    bare.gate(3, CODE + 0x100)
    bare.execute(run(1))
    rows = events(bare.machine)
    assert [row["kind"] for row in rows] == ["soft_interrupt", "load", "load", "store", "store", "store"]
    gate_load, descriptor_load, *frame_stores = rows[1:]
    assert (gate_load["addr"], gate_load["size"], gate_load["info"]) == (IDT + 24, 8, _core.EVENT_IMPLICIT)
    assert (descriptor_load["addr"], descriptor_load["size"]) == (GDT + 0x10, 8)
    assert [(row["addr"], row["value"]) for row in frame_stores] == [
        (STACK - 4, 2),
        (STACK - 8, 0x10),
        (STACK - 12, CODE + 1),
    ]
    assert {row["info"] for row in frame_stores} == {_core.EVENT_IMPLICIT | _core.EVENT_DRAINED}


def test_a_null_selector_keeps_its_rpl_on_the_way_to_the_user() -> None:
    bare = Bare("mov $3,%eax; mov %eax,%gs;" + USER + "nop")
    bare.execute(run(8))
    assert [bare.register(name) for name in ("cpl", "gs", "fs")] == [3, 3, 0]
