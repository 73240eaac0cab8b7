"""The filter's program, run by a small interpreter of our own for both architectures."""

import struct

import pytest

from runyard.host import seccomp

ALLOW, KILL, EPERM, ENOSYS, EAFNOSUPPORT = 0x7FFF0000, 0x80000000, 0x50001, 0x50026, 0x50061
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {"x86_64": seccomp._X86_64, "aarch64": seccomp._AARCH64}
MACHINES = sorted(ARCH)


def run(program: bytes, number: int, *arguments: int, arch: int) -> int:
    data = struct.pack("IIQ6Q", number, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    instructions = list(struct.iter_unpack("HBBI", program))
    position, accumulator = 0, 0
    while True:
        code, jump_true, jump_false, constant = instructions[position]
        position += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("I", data, constant)[0]
            case 0x15:
                position += jump_true if accumulator == constant else jump_false
            case 0x35:
                position += jump_true if accumulator >= constant else jump_false
            case 0x45:
                position += jump_true if accumulator & constant else jump_false
            case 0x06:
                return constant


@pytest.fixture(params=MACHINES)
def call(request):
    program = seccomp.build_filter(request.param)
    numbers = NUMBERS[request.param]

    def call(name, *arguments, arch=None):
        number = numbers.get(name, name)
        return run(program, number, *arguments, arch=arch or ARCH[request.param])

    return call


@pytest.mark.parametrize("name", seccomp._DENIED)
def test_each_listed_call_is_denied(call, name):
    assert call(name) == EPERM


def test_other_calls_are_allowed(call):
    assert call(0) == call(4) == call(9999) == ALLOW


def test_clone_may_make_threads_and_processes_and_no_namespace(call):
    assert call("clone", 0x3D0F00) == call("clone", 17) == ALLOW
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert call("clone", bit | 17) == EPERM
    assert call("clone3") == ENOSYS


def test_sockets_of_ordinary_families_only(call):
    assert [call("socket", family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert [call("socket", family) for family in (0, 17, 40, 44, 38)] == [EAFNOSUPPORT] * 5


def test_a_terminal_cannot_be_fed(call):
    assert call("ioctl", 0, 0x5412) == call("ioctl", 0, 0x541C) == EPERM
    assert call("ioctl", 0, 0x5401) == ALLOW


def test_a_foreign_abi_is_killed(call):
    assert call(0, arch=0x40000003) == KILL


def test_x32_is_killed_on_x86_64():
    program = seccomp.build_filter("x86_64")
    assert run(program, 0x40000000, arch=ARCH["x86_64"]) == KILL


def test_an_architecture_without_a_table_has_no_filter():
    assert not seccomp.is_supported("riscv64")
    with pytest.raises(KeyError):
        seccomp.build_filter("riscv64")
