"""Reads a TOML file, or says in one sentence why it cannot be read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fusion.errors import ConfigError
from fusion.store.values import StrictModel, validation_faults

# A store of a thousand cameras has 1 MB of them.
BYTES_MAX = 64 << 20
_Model = TypeVar("_Model", bound=StrictModel)


def read_toml(path: Path, purpose: str) -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: the file; a byte-order mark is skipped.
        purpose: what to pass in its place, such as `a cameras.toml`; ends the message about a path that is no file.

    Raises:
        ConfigError: the file does not exist, is a folder, cannot be read, or is not valid TOML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise ConfigError(f"{path}: want TOML of at most {BYTES_MAX >> 20} MiB, got more")
        # As text files are read elsewhere: with the line ends of any system.
        return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; pass {purpose}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; pass {purpose}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def read_toml_model(path: Path, purpose: str, model: type[_Model]) -> _Model:
    """A TOML file as a model.

    Args:
        path: as for `read_toml`.
        purpose: as for `read_toml`.
        model: what the file has to be.

    Raises:
        ConfigError: as `read_toml`, or with every fault of the contents.
    """
    try:
        return model.model_validate(read_toml(path, purpose))
    except ValidationError as error:
        raise ConfigError(list(validation_faults(error, f"{path.name}: "))) from None
