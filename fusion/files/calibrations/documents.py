"""Text to a document: TOML, YAML, JSON and XML; none can make an object, expand without end or fetch a file."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, NamedTuple
from xml.etree import ElementTree

from fusion.files.calibrations.parts import UnreadableError, UnrecognisedError

# Levels of a YAML document; calibrations have four: cameras, camera, matrix, rows.
_DEPTH_MAX = 16


class Document(NamedTuple):
    """A parsed file.

    Attributes:
        kind: toml, tree (YAML, JSON or OpenCV's XML), xml (any other), text or binary.
        root: the mapping, the element, the text or the bytes.
    """

    kind: str
    root: Any


def parse(data: bytes) -> Document:
    """The document in a file's bytes.

    Raises:
        UnreadableError: it is broken. UnrecognisedError: it is none of the kinds.
        UnicodeDecodeError: it is text of another encoding.
    """
    # Text has no zero bytes; counts and numbers of COLMAP's binary files always do.
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Document("binary", data)
    text = data.decode("utf-8-sig")
    head = text.lstrip()
    if not head:
        raise UnreadableError("want a calibration, got an empty file")
    if head.startswith("<"):
        return _parse_xml(text)
    if head.startswith("{"):
        try:
            return _tree(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise UnreadableError(f"want JSON, got: {error}") from None
    # A TOML key is followed by an equals sign; the first line of YAML that is not a comment has a colon.
    first = next((line for line in head.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    if first.startswith(("%YAML", "---")) or re.match(r"[\w.\"' -]+:(\s|$)", first):
        return _tree(_parse_yaml(text))
    if re.match(r"\d+[ \t]+\S+[ \t]+\S+", first) or head.startswith(("# Camera list", "# Image list")):
        return Document("text", text)
    try:
        return Document("toml", tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UnrecognisedError(f"want TOML, YAML, XML or JSON, got: {error}") from None


def _tree(root: Any) -> Document:
    if not isinstance(root, dict):
        raise UnreadableError(f"want keys and values, got {type(root).__name__}")
    return Document("tree", root)


def _parse_yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UnreadableError("want PyYAML to read YAML, got none: pip install 'storefusion[formats]'") from None

    # OpenCV's first line, %YAML:1.0, is not valid YAML; ROS ends each message with the mark of a further document.
    text = re.sub(r"\A\s*%YAML[^\n]*\n", "", text)
    text = re.sub(r"\n---\s*\Z", "\n", text)
    try:
        # Aliases can expand a hundred bytes into a gigabyte; the scanner's time grows with the square of the depth.
        depth = 0
        for event in yaml.parse(text, yaml.BaseLoader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise UnreadableError(f"want YAML without aliases, got one in line {line}")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH_MAX:
                raise UnreadableError(f"want YAML of at most {_DEPTH_MAX} levels, got more in line {line}")
        # Everything is read as text: we convert the numbers ourselves, and no tag can create an object.
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise UnreadableError(f"want YAML, got: {' '.join(str(error).split())[:200]}") from None


def _parse_xml(text: str) -> Document:
    # Entities are declared in a DTD, so without one nothing can expand or be fetched.
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise UnreadableError("want XML without a DTD, got one")
    try:
        # The declared encoding has been undone already.
        root = ElementTree.fromstring(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError) as error:
        raise UnreadableError(f"want XML, got: {error}") from None
    if root.tag == "opencv_storage":
        return Document("tree", {child.tag: _xml_node(child) for child in root})
    return Document("xml", root)


def _xml_node(element: ElementTree.Element) -> Any:
    if not len(element):
        return (element.text or "").strip().strip('"')
    if all(child.tag == "_" for child in element):
        return [_xml_node(child) for child in element]
    return {child.tag: _xml_node(child) if len(child) else (child.text or "").strip() for child in element}
