"""The shell commands that git is run by, in the sandbox of a fetch: its folder is the current one, /tmp its scratch."""

from __future__ import annotations

from collections.abc import Sequence

ANSWER = "answer"
MISSING = 3  # the exit code of a fetch that went well and did not bring the commit
_PACKS_MAX = 40
_UNLOCK = (  # of a fetch that was killed; we hold the repository's lock, so nobody else is at it
    "find . -type f \\( -name '*.lock' -o -path './objects/*/tmp_*' -o -path './objects/tmp_*' \\) -delete; "
)


def ask(url: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """Leaves what the remote says of its refs in the scratch."""
    return _shell(f'exec git ls-remote --symref -- "$@" > /tmp/{ANSWER}', url, *patterns)


def fetch(
    url: str, *, commit: str, refs: Sequence[str], depth: int | None, names_commit: bool
) -> tuple[str, ...]:
    """Brings a bare mirror up to date with `refs` and `commit`. A remote that gives no commit by its name may still
    have it in a branch, so with a depth all of them are the last resort."""
    limit = "" if depth is None else f" --depth {depth}"
    options = "--progress --force --no-tags --no-write-fetch-head"
    object_format = "sha256" if len(commit) == 64 else "sha1"
    script = (
        f"{_UNLOCK}[ -f HEAD ] || git init -q --bare --template= --object-format={object_format} . || exit; "
        'url=$1 commit=$2; shift 2; has() { git cat-file -e "$commit^{commit}" 2>/dev/null; }; '
        f'if [ $# != 0 ]; then git fetch {options} --prune{limit} -- "$url" "$@" || exit; fi; '
    )
    if names_commit:
        everything = "'+refs/heads/*:refs/heads/*'"
        script += (
            f'kept="+$commit:refs/runyard/$commit"; has && git update-ref "refs/runyard/$commit" "$commit"'
            f' || git fetch {options}{limit} -- "$url" "$kept"'
            + (f' || git fetch {options} -- "$url" {everything}' if depth is not None else "")
            + " || exit; "
        )
    script += (
        f"has || exit {MISSING}; "
        f'[ "$(ls objects/pack/*.pack 2>/dev/null | wc -l)" -le {_PACKS_MAX} ] || git repack -adq'
    )
    return _shell(script, url, commit, *(f"+{ref}:{ref}" for ref in refs if ref != "HEAD"))


def inspect() -> tuple[str, ...]:
    """Fails where the mirror is damaged."""
    return _shell("git fsck --full --no-dangling --no-progress")


def check_out(path: str, *, made_at: int, sparse: Sequence[str]) -> tuple[str, ...]:
    """Fills the work tree at `path` beneath the current folder. Files get a time before any job's, so that git can tell
    by the time and size alone what a job changed, at once and rightly."""
    script = 'cd "./$1" || exit; at=$2; shift 2; '
    if sparse:
        script += 'printf "%s\\n" "$@" | git sparse-checkout set --cone --stdin || exit; '
    script += (
        "git reset -q --hard || exit; "
        'find . -name .git -prune -o -type f -links 1 -exec touch -c -d "@$at" -- {} +; '
        "git update-index -q --refresh; exit 0"
    )
    return _shell(script, path, str(made_at), *sparse)


def list_submodules(path: str) -> tuple[str, ...]:
    """Leaves the commits that the index names, and what .gitmodules says of them, in the scratch."""
    script = (
        'cd "./$1" || exit; git ls-files -s -z > /tmp/entries || exit; : > /tmp/modules; '
        "[ ! -f .gitmodules ] || [ -h .gitmodules ] || git config -z -f .gitmodules --get-regexp"
        " '^submodule\\..*\\.(path|url)$' > /tmp/modules; exit 0"
    )
    return _shell(script, path)


def add_submodule(path: str, name: str, url: str, inner: str) -> tuple[str, ...]:
    """Makes the repository at `path` take the one at `inner` for its submodule."""
    script = (
        'cd "./$1" && git config "submodule.$2.url" "$3" && git config "submodule.$2.active" true'
        ' && git update-index -q --refresh -- "$4"; exit 0'
    )
    return _shell(script, path, name, url, inner)


def list_pointers(path: str) -> tuple[str, ...]:
    """Leaves the contents of all files that look like pointers to large ones in the scratch, end to end."""
    script = (
        'cd "./$1" || exit; '
        "git grep -z -l --cached -e '^version https://git-lfs.github.com/spec/v1$' -- . > /tmp/names; "
        ': > /tmp/pointers; sed -z "s/^/:/" < /tmp/names | xargs -0 -r -n 200 sh -c '
        "'for each; do git cat-file blob \"$each\" | head -c 400; done' sh > /tmp/pointers"
    )
    return _shell(script, path)


def lay_out_large_files(path: str) -> tuple[str, ...]:
    """Writes the large files that lie in .git/lfs over their pointers, without a network. 126: there is no git-lfs."""
    script = (
        'cd "./$1" || exit; command -v git-lfs > /dev/null || exit 126; git lfs install --local --skip-repo > /dev/null'
        " && git lfs checkout > /dev/null && git update-index -q --refresh; git diff --quiet"
    )
    return _shell(script, path)


def _shell(script: str, *words: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script, "git", *words)
