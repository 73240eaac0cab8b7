"""How names stand in paths: one part without a colon, so that `:cancel` is a verb and never the end of a name."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor


class NameConvertor(Convertor[str]):
    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class FilePathConvertor(Convertor[str]):
    """The rest of the path, whatever characters a file's name has; a line break is one of them."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", NameConvertor())
register_url_convertor("file", FilePathConvertor())
