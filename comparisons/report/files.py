"""Files that appear whole or not at all: every file that is written or read goes through here.

All of it raises OSError with the name that the user knows and the reason.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def folder(path: Path) -> Path:
    """The folder, made if need be; OSError if nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (FileExistsError, NotADirectoryError):
        file = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), path)
        text = "expected a folder, got a file"
        raise NotADirectoryError(errno.ENOTDIR, text, str(file)) from None
    except OSError as error:
        raise _named(error, path) from None
    return path


def write(path: Path, content: bytes) -> Path:
    """Writes a file in one go: a reader sees the old one or the new one, whole. A link stays one:
    what it points to is written."""
    return write_all({path: content})[0]


def write_all(contents: Mapping[Path, bytes]) -> list[Path]:
    """Writes several files, none before all of them are on the disk; or none, if one cannot be."""
    drafts: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            try:
                target = _target(path)
                drafts[target] = draft = target.with_name(f".gradtwin-{secrets.token_hex(8)}")
                _write_new(draft, content)
                if target.exists():
                    draft.chmod(stat.S_IMODE(target.stat().st_mode))
            except OSError as error:
                raise _named(error, path) from None
        for target, draft in drafts.items():
            draft.replace(target)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    return list(contents)


@contextlib.contextmanager
def draft(path: Path) -> Iterator[Path]:
    """The name of a new file, to be written at leisure, that takes the place of this one when all
    is done; if anything is raised, the old one stays."""
    try:
        target = _target(path)
    except OSError as error:
        raise _named(error, path) from None
    new = target.with_name(f".gradtwin-{secrets.token_hex(8)}")
    try:
        try:
            _write_new(new, b"")
            yield new
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            if target.exists():
                new.chmod(stat.S_IMODE(target.stat().st_mode))
            new.replace(target)
        except OSError as error:
            raise _named(error, path) from None
    finally:
        new.unlink(missing_ok=True)


def readable(path: Path) -> Path:
    """The path of a file; OSError for a pipe or a folder, and for what is not there."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "expected a file, got a folder")
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "expected a file, got a device, pipe or socket")
        path.open("rb").close()
        return path
    except OSError as error:
        raise _named(error, path) from None
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), repr(str(path))) from None


def writable(path: Path) -> None:
    """OSError if no file of this name can be written, so that it is known before the work is
    done."""
    try:
        target = _target(path)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
        if target.exists():
            os.close(os.open(target, os.O_WRONLY))
    except OSError as error:
        raise _named(error, path) from None


def read(path: Path) -> bytes:
    """The content of a file. Raises OSError for a pipe or a folder, and for what cannot be read."""
    try:
        return readable(path).read_bytes()
    except OSError as error:
        raise _named(error, path) from None


def _target(path: Path) -> Path:
    """Where a file of this name is written, links followed."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, got a folder")
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "expected a file, got a device, pipe or socket")
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}")
    if len(os.fsencode(target.name)) > _longest_name(target.parent):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return target


def stem(name: str) -> str:
    """The name of a file without its suffix. Where a system would refuse the name or cut it off, a
    digest keeps apart what was different."""
    safe = re.sub(r"[^\w.,=+\[\]-]", "_", name).encode()[:120].decode(errors="ignore")
    reserved = re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", safe, re.IGNORECASE)
    if safe == name and not reserved:
        return name
    return f"_{safe}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _write_new(path: Path, content: bytes) -> None:
    """A new file with the rights that the umask leaves."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _longest_name(folder: Path) -> int:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.pathconf(folder, "PC_NAME_MAX")
    return 255


def _named(error: OSError, path: Path) -> OSError:
    """The same error, of the file that was asked for."""
    full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
    text = (error.strerror or str(error)).removesuffix(full)
    return OSError(error.errno or errno.EIO, f"{text}{full}", str(path))
