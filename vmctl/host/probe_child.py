"""Runs 64-bit code on /dev/kvm and prints, as JSON, what came of it.

A program of its own (`python -I probe_child.py [DEVICE [CASE…]]`), because a guest that never exits
never returns from KVM_RUN: whoever starts it ends it at a deadline. Standard library only.

There is no boot code: the vCPU is put into long mode through its registers, on identity-mapped
pages. Each case answers with `out 0xe9, al` and halts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import mmap
import os
import signal
import struct
import sys
import time

KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
KVM_SET_CPUID2 = 0x4008AE90
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_SET_REGS = 0x4090AE82

EXIT_IO, EXIT_HLT, EXIT_SHUTDOWN, EXIT_FAIL_ENTRY, EXIT_INTERNAL_ERROR = 2, 5, 8, 9, 17
EXIT_NAMES = {6: "access to memory that is not there", EXIT_SHUTDOWN: "triple fault"}

MEMORY = 2 << 20
PML4, PDPT, PD, GDT, IDT, CODE, IDT_POINTER, SCRATCH, STACK = (
    0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x8000, 0x9000, 0x1F000,
)  # fmt: skip
TSS_ADDRESS = 0xFFFBD000  # three unused pages below 4 GiB; Intel without unrestricted guest asks
PORT = 0xE9
ANSWER = 0x5A

CPU_BUDGET = 0.4
"""Seconds of processor time for one case; a working KVM needs a few milliseconds."""
WALL_BUDGET = 3.0
"""Seconds of wall time for one case: the last resort on a stalled host."""
SLOW = 0.1
"""Seconds for 1e6 turns of the loop beyond which instructions are emulated one by one.

Hardware takes 0.3 to 10 ms (10 ms is AMD-V emulated by TCG), an instruction emulator over 1000.
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """A piece of guest code that answers ANSWER; `limit` is processor time in seconds, 0 = any."""

    name: str
    code: bytes
    limit: float = 0.0


CASES = (
    Case(
        "long-mode",
        bytes.fromhex("48b80077665544332211")  # mov rax, 0x1122334455667700
        + bytes.fromhex("4989c1 49c1e920")  # mov r9, rax; shr r9, 32
        + bytes.fromhex("8d405a 4c89cb 80f344")  # lea eax, [rax+0x5a]; mov rbx, r9; xor bl, 0x44
        + bytes.fromhex("00d8 e6e9 f4"),  # add al, bl; out 0xe9, al; hlt
    ),
    Case(
        "sse",
        bytes.fromhex("b82d000000 66480f6ec0")  # mov eax, 0x2d; movq xmm0, rax
        + bytes.fromhex("660fefc9 660fd4c8 660fd4c8")  # pxor xmm1, xmm1; paddq xmm1, xmm0 (twice)
        + bytes.fromhex("66480f7ec8 e6e9 f4"),  # movq rax, xmm1; out; hlt
    ),
    Case(
        "cmpxchg16b",
        bytes.fromhex("bf00900000 31c0 31d2")  # mov edi, SCRATCH; rdx:rax = 0
        + bytes.fromhex("bb5a000000 31c9")  # rcx:rbx = 0x5a
        + bytes.fromhex(
            "f0480fc70f 8a07 e6e9 f4"
        ),  # lock cmpxchg16b [rdi]; mov al, [rdi]; out; hlt
    ),
    Case(
        "exception",
        bytes.fromhex("bf00800000 0f011f")  # mov edi, IDT_POINTER; lidt [rdi]
        + bytes.fromhex("31c0 cc")  # xor eax, eax; int3
        + bytes.fromhex("ffc0 e6e9 f4")  # inc eax; out; hlt
        + bytes.fromhex("b859000000 48cf"),  # the handler, HANDLER bytes in: mov eax, 0x59; iretq
    ),
    Case(
        "loop",
        bytes.fromhex("b940420f00 ffc9 75fc")  # mov ecx, 1000000; 1: dec ecx; jnz 1b
        + bytes.fromhex("b05a e6e9 f4"),  # mov al, 0x5a; out; hlt
        SLOW,
    ),
)
HANDLER = 16
SPIN = Case("spin", bytes.fromhex("ebfe"))  # jmp to itself: never answers; only when asked for

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
_libc.ioctl.restype = ctypes.c_int


def ioctl(descriptor: int, request: int, argument: int | ctypes.Array[ctypes.c_char] = 0) -> int:
    """Ask the kernel, with a number or a buffer (fcntl refuses numbers > INT_MAX) or OSError."""
    number = argument if isinstance(argument, int) else ctypes.addressof(argument)
    result = int(_libc.ioctl(descriptor, request, number))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Guest:
    """A virtual machine with 2 MiB of memory; every case gets a vCPU of its own."""

    def __init__(self, device: str) -> None:
        self.kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self.api = ioctl(self.kvm, KVM_GET_API_VERSION)
        self.vm = ioctl(self.kvm, KVM_CREATE_VM)
        ioctl(self.vm, KVM_SET_TSS_ADDR, TSS_ADDRESS)
        self.memory = mmap.mmap(-1, MEMORY)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        region = struct.pack("<IIQQQ", 0, 0, 0, MEMORY, start)
        ioctl(self.vm, KVM_SET_USER_MEMORY_REGION, ctypes.create_string_buffer(region))
        self.run_size = ioctl(self.kvm, KVM_GET_VCPU_MMAP_SIZE)
        self.cpuid = self._supported_cpuid()
        self.vcpus = 0

    def _supported_cpuid(self) -> ctypes.Array[ctypes.c_char]:
        entries = 256
        buffer = ctypes.create_string_buffer(struct.pack("<II", entries, 0), 8 + 40 * entries)
        ioctl(self.kvm, KVM_GET_SUPPORTED_CPUID, buffer)
        return buffer

    def load(self, code: bytes) -> None:
        """Clear the memory and lay out page tables, descriptor tables and `code`."""
        memory = self.memory
        memory[:] = bytes(MEMORY)
        struct.pack_into("<Q", memory, PML4, PDPT | 3)
        struct.pack_into("<Q", memory, PDPT, PD | 3)
        struct.pack_into("<Q", memory, PD, 0x83)  # one page of 2 MiB: present, writable
        struct.pack_into("<QQQ", memory, GDT, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
        handler = CODE + HANDLER
        gate = struct.pack("<HHBBHII", handler & 0xFFFF, 8, 0, 0x8E, handler >> 16, 0, 0)
        memory[IDT + 3 * 16 : IDT + 4 * 16] = gate
        struct.pack_into("<HQ", memory, IDT_POINTER, 32 * 16 - 1, IDT)
        memory[CODE : CODE + len(code)] = code

    def vcpu(self) -> tuple[int, mmap.mmap]:
        """Return a new vCPU in long mode at CODE, and its kvm_run page."""
        descriptor = ioctl(self.vm, KVM_CREATE_VCPU, self.vcpus)
        self.vcpus += 1
        ioctl(descriptor, KVM_SET_CPUID2, self.cpuid)
        sregs = ctypes.create_string_buffer(0x138)
        ioctl(descriptor, KVM_GET_SREGS, sregs)
        struct.pack_into("<24s", sregs, 0, _segment(8, 11, long_mode=True))
        for index in range(1, 6):  # ds es fs gs ss
            struct.pack_into("<24s", sregs, index * 24, _segment(16, 3, long_mode=False))
        struct.pack_into("<QH", sregs, 192, GDT, 23)
        struct.pack_into("<QQQQ", sregs, 224, 0x80050033, 0, PML4, 0x620)  # cr0 cr2 cr3 cr4
        struct.pack_into("<Q", sregs, 264, 0x500)  # efer: long mode enabled and active
        ioctl(descriptor, KVM_SET_SREGS, sregs)
        registers = [0] * 18
        registers[6], registers[16], registers[17] = STACK, CODE, 2  # rsp, rip, rflags
        ioctl(
            descriptor, KVM_SET_REGS, ctypes.create_string_buffer(struct.pack("<18Q", *registers))
        )
        return descriptor, mmap.mmap(descriptor, self.run_size)


def _segment(selector: int, kind: int, *, long_mode: bool) -> bytes:
    """Return a flat kvm_segment."""
    flags = (kind, 1, 0, 0 if long_mode else 1, 1, 1 if long_mode else 0, 1, 0, 0, 0)
    return struct.pack("<QIH10B", 0, 0xFFFFFFFF, selector, *flags)


def answer(descriptor: int, page: mmap.mmap) -> str:
    """Run until the guest has answered; return '' for the right answer, else what happened."""
    outcome = "halted without an answer"
    for _ in range(8):
        ioctl(descriptor, KVM_RUN)
        (reason,) = struct.unpack_from("<I", page, 8)
        if reason == EXIT_HLT:
            return outcome
        if reason != EXIT_IO:
            return _explain(reason, page)
        _direction, _size, port, _count, offset = struct.unpack_from("<BBHIQ", page, 32)
        value = page[offset]
        right = (port, value) == (PORT, ANSWER)
        outcome = "" if right else f"wrong answer {value:#04x} at port {port:#x}"
    return "too many exits"


def _explain(reason: int, page: mmap.mmap) -> str:
    """Say in words why KVM_RUN returned; see struct kvm_run in linux/kvm.h."""
    if reason == EXIT_FAIL_ENTRY:
        (code,) = struct.unpack_from("<Q", page, 32)
        return f"entry failed, hardware error {code:#x}"
    if reason == EXIT_INTERNAL_ERROR:
        suberror, count = struct.unpack_from("<II", page, 32)
        text = f"KVM internal error, suberror {suberror}"
        if suberror == 1 and count >= 3:
            length = min(page[48], 15)
            text += ": cannot emulate " + page[49 : 49 + length].hex(" ")
        return text
    return EXIT_NAMES.get(reason, f"unexpected exit {reason}")


def _interrupt(_number: int, _frame: object) -> None:
    """Do nothing: that the signal came makes KVM_RUN return with EINTR, which is enough."""


def attempt(guest: Guest, case: Case) -> dict[str, object]:
    """Run one case under its timers and return what came of it."""
    started = time.thread_time()
    try:
        # The timers repeat: one that fires just before KVM_RUN is entered would be lost.
        signal.setitimer(signal.ITIMER_PROF, CPU_BUDGET, 0.1)
        signal.setitimer(signal.ITIMER_REAL, WALL_BUDGET, 0.1)
        try:
            guest.load(case.code)
            descriptor, page = guest.vcpu()
            # Time of the processor, not of the clock: a busy host must not look like a slow KVM.
            started = time.thread_time()
            outcome = answer(descriptor, page)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except InterruptedError:
        outcome = "did not end in time"
    except OSError as problem:
        outcome = f"{problem.strerror} (errno {problem.errno})"
    took = time.thread_time() - started
    if not outcome and case.limit and took > case.limit:
        outcome = f"took {took * 1000:.0f} ms, hardware takes under 10"
    return {
        "name": case.name,
        "passed": not outcome,
        "milliseconds": round(took * 1000, 3),
        "detail": outcome,
    }


def report(device: str, names: list[str]) -> dict[str, object]:
    """Return what the probe found; never raises for a host that is odd."""
    started = time.monotonic()
    wanted = [case for case in (*CASES, SPIN) if case.name in names] if names else list(CASES)
    found: list[dict[str, object]] = []
    error = ""
    try:
        guest = Guest(device)
    except OSError as problem:
        error = f"{device}: {problem.strerror} (errno {problem.errno})"
    else:
        found = [attempt(guest, case) for case in wanted]
    return {"cases": found, "seconds": round(time.monotonic() - started, 3), "error": error}


def main(argv: list[str]) -> None:
    """Probe the device named first (default /dev/kvm) with the cases named next (default all)."""
    signal.signal(signal.SIGPROF, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    device = argv[0] if argv else "/dev/kvm"
    sys.stdout.write(json.dumps(report(device, argv[1:])) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
