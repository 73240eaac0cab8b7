"""The system call filter of a sandbox, as the bytes that bubblewrap's `--seccomp` takes.

A deny-list: ordinary programs (git, compilers, interpreters) run; what reaches into the kernel from a place where
it has no business does not. A foreign ABI (i386, x32) is killed, because its numbers mean other calls. Assembled
here, without libseccomp: the program is short and the same for all. (chroot is left to the kernel's own check: only
root in an image has the right, and package managers use it.) Denied calls say EPERM; `clone3` says ENOSYS,
because its flags lie in memory, where a filter cannot look: the C libraries then fall back to `clone`.
"""

from __future__ import annotations

import errno
import platform
import struct

_LD_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_X32_BIT = 0x40000000

NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET (TIME is of no use to clone)
_AF_ALLOWED = (1, 2, 10, 16)  # UNIX, INET, INET6, NETLINK
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_DENIED = (
    "mount umount2 pivot_root setns unshare bpf perf_event_open userfaultfd keyctl add_key request_key"
    " io_uring_setup io_uring_enter io_uring_register kexec_load kexec_file_load init_module finit_module"
    " delete_module open_by_handle_at name_to_handle_at swapon swapoff reboot settimeofday clock_settime"
    " clock_adjtime adjtimex quotactl quotactl_fd fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr"
    " acct syslog sethostname setdomainname vhangup lookup_dcookie process_madvise fanotify_init"
    " pidfd_getfd kcmp statmount listmount open_tree_attr"
).split()

# From the kernel's syscall tables; absent where the architecture does not have the call.
_X86_64 = {
    "socket": 41, "clone": 56, "ioctl": 16, "clone3": 435, "socketpair": 53,
    "mount": 165, "umount2": 166, "pivot_root": 155, "setns": 308, "unshare": 272, "bpf": 321,
    "perf_event_open": 298, "userfaultfd": 323, "keyctl": 250, "add_key": 248, "request_key": 249,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "kexec_load": 246,
    "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "open_by_handle_at": 304, "name_to_handle_at": 303, "swapon": 167, "swapoff": 168, "reboot": 169,
    "settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305, "adjtimex": 159, "quotactl": 179,
    "quotactl_fd": 443, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "move_mount": 429,
    "open_tree": 428, "mount_setattr": 442, "acct": 163, "syslog": 103, "sethostname": 170,
    "setdomainname": 171, "vhangup": 153, "lookup_dcookie": 212, "process_madvise": 440, "fanotify_init": 300,
    "pidfd_getfd": 438, "kcmp": 312, "statmount": 457, "listmount": 458, "open_tree_attr": 467,
}  # fmt: skip
_AARCH64 = {
    "socket": 198, "clone": 220, "ioctl": 29, "clone3": 435, "socketpair": 199,
    "mount": 40, "umount2": 39, "pivot_root": 41, "setns": 268, "unshare": 97, "bpf": 280,
    "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219, "add_key": 217, "request_key": 218,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "kexec_load": 104,
    "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
    "open_by_handle_at": 265, "name_to_handle_at": 264, "swapon": 224, "swapoff": 225, "reboot": 142,
    "settimeofday": 170, "clock_settime": 112, "clock_adjtime": 266, "adjtimex": 171, "quotactl": 60,
    "quotactl_fd": 443, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "move_mount": 429,
    "open_tree": 428, "mount_setattr": 442, "acct": 89, "syslog": 116, "sethostname": 161,
    "setdomainname": 162, "vhangup": 58, "lookup_dcookie": 18, "process_madvise": 440, "fanotify_init": 262,
    "pidfd_getfd": 438, "kcmp": 272, "statmount": 457, "listmount": 458, "open_tree_attr": 467,
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}


def is_supported(machine: str | None = None) -> bool:
    """Whether a filter can be made for this machine's architecture."""
    return (machine or platform.machine()) in _MACHINES


def build_filter(machine: str | None = None) -> bytes:
    """The filter program. Raises KeyError for an architecture without a table: run nothing there."""
    architecture, numbers = _MACHINES[machine or platform.machine()]
    program = _check_abi(architecture, machine or platform.machine())
    for name in _DENIED:
        program += _on_call(numbers[name], [_return_error(errno.EPERM)])
    program += _on_call(numbers["clone3"], [_return_error(errno.ENOSYS)])
    program += _on_call(numbers["clone"], _deny_bits(0, NAMESPACE_FLAGS))
    program += _on_call(numbers["ioctl"], _deny_values(1, (_TIOCSTI, _TIOCLINUX)))
    program += _on_call(numbers["socket"], _allow_values(0, _AF_ALLOWED))
    program.append(_instruction(_RET, _ALLOW))
    return b"".join(program)


def _instruction(code: int, constant: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, constant)


def _return_error(number: int) -> bytes:
    return _instruction(_RET, _ERRNO | number)


def _check_abi(architecture: int, machine: str) -> list[bytes]:
    program = [
        _instruction(_LD_ABS, _ARCH),
        _instruction(_JEQ, architecture, 1, 0),
        _instruction(_RET, _KILL),
        _instruction(_LD_ABS, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_instruction(_JGE, _X32_BIT, 0, 1), _instruction(_RET, _KILL)]
    return program


def _on_call(number: int, body: list[bytes]) -> list[bytes]:
    """`body` for one call; the number stays loaded for the next test, so a body that loads must return."""
    return [_instruction(_JEQ, number, 0, len(body)), *body]


def _deny_bits(argument: int, bits: int) -> list[bytes]:
    return [
        _instruction(_LD_ABS, _ARGUMENTS + 8 * argument),
        _instruction(_JSET, bits, 0, 1),
        _return_error(errno.EPERM),
        _instruction(_RET, _ALLOW),
    ]


def _deny_values(argument: int, values: tuple[int, ...]) -> list[bytes]:
    body = [_instruction(_LD_ABS, _ARGUMENTS + 8 * argument)]
    for value in values:
        body += [_instruction(_JEQ, value, 0, 1), _return_error(errno.EPERM)]
    return [*body, _instruction(_RET, _ALLOW)]


def _allow_values(argument: int, values: tuple[int, ...]) -> list[bytes]:
    body = [_instruction(_LD_ABS, _ARGUMENTS + 8 * argument)]
    for value in values:
        body += [_instruction(_JEQ, value, 0, 1), _instruction(_RET, _ALLOW)]
    return [*body, _return_error(errno.EAFNOSUPPORT)]
