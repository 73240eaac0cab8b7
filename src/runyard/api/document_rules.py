"""What a well-formed job document must still obey: sizes a kernel takes, paths that do not collide."""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
from collections.abc import Iterator

from runyard.api.document_secrets import secret_problems
from runyard.api.errors import InvalidDocument
from runyard.model.egress import parse_egress_rule
from runyard.model.errors import Invalid
from runyard.wire.job_document import (
    FileContentDocument,
    JobDocument,
    NetworkAllowDocument,
    StepDocument,
)

ENV_BYTES_MAX = 128 * 1024
ARGUMENT_BYTES_MAX = 128 * 1024 - 1  # Linux: MAX_ARG_STRLEN, its NUL included
COMMAND_BYTES_MAX = 1 << 20  # half of what execve takes with the usual stack limit

_NAMES_TAKEN = ("localhost", "ip6-localhost", "runyard")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:[A-Za-z0-9.\-\[\]:]+/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)


def check_bounds(document: JobDocument) -> None:
    """Raises InvalidDocument."""
    problems = [
        *_image_problems(document),
        *_step_problems(document),
        *_file_problems(document),
        *_git_problems(document),
        *secret_problems(document),
        *_network_problems(document),
        *_service_problems(document),
    ]
    if problems:
        raise InvalidDocument(problems)


def _image_problems(document: JobDocument) -> Iterator[Invalid]:
    """What no registry could ever have by that name; the pool's registry client knows the whole grammar."""
    named = [("image", document.image)]
    named += [(f"steps.{index}.image", step.image) for index, step in enumerate(document.steps)]
    named += [(f"services.{name}.image", service.image) for name, service in document.services.items()]
    for field, image in named:
        if image is not None and not _IMAGE.fullmatch(image):
            yield Invalid(
                f"{field}: {image!r:.200} is no image name",
                field=field,
                cure="write [host[:port]/]repository[:tag][@sha256:digest], like python:3.12",
            )


def _step_problems(document: JobDocument) -> Iterator[Invalid]:
    if document.dir is not None:
        yield from _directory_problems(document.dir, "dir")
    for index, step in enumerate(document.steps):
        field = f"steps.{index}"
        yield from _command_problems(step, field)
        size = sum(len(k.encode()) + len(v.encode()) + 2 for k, v in {**document.env, **step.env}.items())
        if size > ENV_BYTES_MAX:
            yield Invalid(
                f"{field}.env: with the job's env it is {size} bytes, more than {ENV_BYTES_MAX}",
                field=f"{field}.env",
                cure="put large values into workspace.files",
            )
        if step.dir is not None:
            yield from _directory_problems(step.dir, f"{field}.dir")


def _command_problems(step: StepDocument, field: str) -> Iterator[Invalid]:
    word = "run" if step.run is not None else "command"
    sizes = [len(part.encode()) for part in (step.command or [step.run or ""])]
    if max(sizes) > ARGUMENT_BYTES_MAX or sum(sizes) > COMMAND_BYTES_MAX:
        yield Invalid(
            f"{field}.{word}: {sum(sizes)} bytes are more than a kernel takes in one command",
            field=f"{field}.{word}",
            cure="put the script into workspace.files and run it from there",
        )
    if step.command is not None and not step.command[0]:
        yield Invalid(f"{field}.command.0: it is empty", field=f"{field}.command.0", cure="name a program")
    if step.command is not None and step.shell != "sh":
        yield Invalid(
            f"{field}.shell: a command has no shell", field=f"{field}.shell", cure="remove it, or write run"
        )


def _directory_problems(path: str, field: str) -> Iterator[Invalid]:
    if ".." in path.split("/"):
        yield Invalid(
            f"{field}: {path[:200]!r} leaves the workspace",
            field=field,
            cure="write a path relative to the workspace, without '..'",
        )


def _file_problems(document: JobDocument) -> Iterator[Invalid]:
    seen: set[str] = set()
    for path, content in document.workspace.files.items():
        field = f"workspace.files.{path[:200]}"
        plain = posixpath.normpath(path)
        if plain == "." or path.endswith("/"):
            yield Invalid(f"{field}: {path[:200]!r} is a folder", field=field, cure="name a file")
        if plain in seen:
            yield Invalid(f"{field}: the file stands there twice", field=field, cure="keep one of the two")
        seen.add(plain)
        if isinstance(content, FileContentDocument) and content.base64 is not None:
            yield from _base64_problems(content.base64, f"{field}.base64")
        if isinstance(content, FileContentDocument) and content.url is not None:
            yield from _file_url_problems(content.url, f"{field}.url")
    for plain in seen:
        above = posixpath.dirname(plain)
        while above:
            if above in seen:
                field = f"workspace.files.{plain[:200]}"
                message = f"{field}: {above[:200]!r} is a file, so nothing can lie beneath it"
                yield Invalid(message, field=field, cure="rename one of the two")
                break
            above = posixpath.dirname(above)


def _base64_problems(text: str, field: str) -> Iterator[Invalid]:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        yield Invalid(f"{field}: it is no base64", field=field, cure="write it as `base64 -w0 FILE` does")


def _file_url_problems(url: str, field: str) -> Iterator[Invalid]:
    """A URL with a user in it would show a password to all who may read the job (I11)."""
    protocol, _, rest = url.partition("://")
    place = rest.partition("/")[0]
    if protocol not in ("https", "http") or not place or "@" in place:
        cure = "write an https:// address, without credentials in it"
        yield Invalid(f"{field}: it is no address that a file can be fetched from", field=field, cure=cure)
    elif not (url.isascii() and url.isprintable()) or set(url) & _NOT_IN_ADDRESSES:
        cure = "write it in plain ASCII, without spaces or quotes; percent-encode what is special"
        yield Invalid(f"{field}: it holds a character that no address has", field=field, cure=cure)


_NOT_IN_ADDRESSES = frozenset(" \\\"'`$|;<>^{}")


def _network_problems(document: JobDocument) -> Iterator[Invalid]:
    if not isinstance(document.network, NetworkAllowDocument):
        return
    if not document.network.allow:
        field = "network.allow"
        yield Invalid(
            f"{field}: it lists nothing", field=field, cure="list where to go, or write `network: none`"
        )
    for index, entry in enumerate(document.network.allow):
        field = f"network.allow.{index}"
        try:
            parse_egress_rule(entry)
        except ValueError as error:
            what, _, cure = str(error).rpartition("; ")
            yield Invalid(f"{field}: {what or cure}", field=field, cure=cure)


def _service_problems(document: JobDocument) -> Iterator[Invalid]:
    needs = document.requirements
    for name, service in document.services.items():
        field = f"services.{name}"
        if name in _NAMES_TAKEN:
            yield Invalid(
                f"{field}: the name stands for the job itself", field=field, cure="choose another name"
            )
        for what, own, of_job in (("memory", service.memory, needs.memory), ("cpu", service.cpu, needs.cpu)):
            if own is not None and own > of_job:
                yield Invalid(
                    f"{field}.{what}: it is more than the job has, of which it is a part",
                    field=f"{field}.{what}",
                    cure=f"raise requirements.{what}, which is for the steps and all services together",
                )
        size = sum(len(key.encode()) + len(value.encode()) + 2 for key, value in service.env.items())
        if size > ENV_BYTES_MAX:
            yield Invalid(
                f"{field}.env: it is {size} bytes, more than {ENV_BYTES_MAX}",
                field=f"{field}.env",
                cure="put large values into the image",
            )


def _git_problems(document: JobDocument) -> Iterator[Invalid]:
    """git reads a leading dash as an option, and `ext::…` runs a program. What stands before an `@` may
    be a password and is never repeated here (I11)."""
    git = document.workspace.git
    if git is None:
        return
    field = "workspace.git.url"
    if git.url.startswith("-") or "::" in git.url.partition("/")[0]:
        shown = git.url.rpartition("@")[2][:200]
        yield Invalid(
            f"{field}: {shown!r} is no address", field=field, cure="write an https:// or ssh address"
        )
    elif not (git.url.isascii() and git.url.isprintable()) or set(git.url) & _NOT_IN_ADDRESSES:
        yield Invalid(
            f"{field}: it holds a character that no address has",
            field=field,
            cure="write it in plain ASCII, without spaces or quotes; percent-encode what is special",
        )
    if git.ref is not None and git.ref.startswith("-"):
        field = "workspace.git.ref"
        yield Invalid(
            f"{field}: {git.ref[:200]!r} is no ref", field=field, cure="name a branch, tag or commit"
        )
