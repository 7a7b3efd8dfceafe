"""RAVDESS fetched, checked and unpacked."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.errors import AccessError, ConfigError
from speechemo_cli.files import access_error, atomic_folder, display_name, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable

    OnProgress = Callable[[int, int], None]

_ZENODO = "https://zenodo.org/api"
RECORD = "records/1188976"
# An archive of RAVDESS holds 0.6 GB in some 1,500 files. What claims more was made to fill the disk.
_MOST_FILES, _MOST_BYTES = 5000, 2 * 2**30
_CHUNK_BYTES = 2**17
_TIMEOUT_S = 30.0  # how long a server may be silent
_BY_HAND = "Or fetch it with a browser from zenodo.org/records/1188976 and give it with --archive"


class Archive(NamedTuple):
    """A zip file of RAVDESS.

    `file` is its name in the record, `folder` what the unpacked folder is called; it holds `clips` clips
    whose names match `names`. `md5` is empty where only the record tells it.
    """

    file: str
    folder: str
    names: str
    clips: int
    md5: str = ""

    def n_found(self, folder: Path) -> int:
        """How many of its clips lie in a folder."""
        return sum(1 for _ in folder.rglob(self.names))


SPEECH = Archive(
    "Audio_Speech_Actors_01-24.zip", "ravdess", "03-01-*.wav", 1440, "bc696df654c87fed845eb13823edef8a"
)
SONG = Archive("Audio_Song_Actors_01-24.zip", "ravdess-song", "03-02-*.wav", 1012)


def download(
    part: Archive,
    to: Path,
    *,
    archive: Path | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Fetch an archive of RAVDESS, check it and unpack it into `to / part.folder`: whole, or not at all.

    `archive` is the zip file where it is there already. `on_progress` gets the bytes that came and those
    there are. ConfigError: something else lies there. AccessError: no network, another file than expected,
    or it cannot be written.
    """
    target = to / part.folder
    if target.exists():
        raise ConfigError(
            f"{display_name(target)} exists and does not hold the {part.clips} clips of {part.file}",
            "Move it away, or name another folder with --to",
        )
    with atomic_folder(target) as temp:
        temp.mkdir()
        fetched = archive or _fetch(part, temp, on_progress or (lambda *_: None))
        if archive and part.md5:
            _check_md5(archive, part)
        unpack(fetched, temp)
        if archive is None:
            fetched.unlink()
        found = part.n_found(temp)
        if found != part.clips:
            name = display_name(archive) if archive else part.file
            raise AccessError(f"{name} holds {found} clips called {part.names}, expected {part.clips}")


class _Progress:
    """What pooch reports its progress to, and sets the total of: the interface of tqdm."""

    total = _done = 0

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress

    def update(self, n: int) -> None:
        self._done = min(self._done + n, self.total)
        self._on_progress(self._done, self.total)

    def close(self) -> None:
        pass

    reset = close


def _fetch(part: Archive, folder: Path, on_progress: OnProgress) -> Path:
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    url = f"{os.environ.get('SPEECHEMO_TEST_DOWNLOAD_URL', _ZENODO)}/{RECORD}"
    try:
        reply = requests.get(url, timeout=_TIMEOUT_S)
        reply.raise_for_status()
        listed = {one["key"]: one for one in reply.json()["files"]}[part.file]
        url, checksum = listed["links"]["self"], listed["checksum"]
        source = pooch.create(
            folder,
            base_url="",
            registry={part.file: f"md5:{part.md5}" if part.md5 else checksum},
            urls={part.file: url},
            retry_if_failed=1,
        )
        progress = _Progress(on_progress)
        downloader = pooch.HTTPDownloader(progress, chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT_S)
        return Path(source.fetch(part.file, downloader=downloader))
    except requests.HTTPError as error:
        reason = f"the server answered {str(error).split(maxsplit=1)[0]}"  # the status
    except requests.RequestException as error:
        slow = isinstance(error, requests.Timeout) or "timed out" in str(error)
        reason = f"the server said nothing for {_TIMEOUT_S:g} s" if slow else "no connection, or it broke off"
    except (KeyError, TypeError):
        reason = f"the record does not list {part.file} as expected"
    except ValueError:  # pooch's, of a file with another hash
        reason = "what came has another checksum than expected"
    raise AccessError(f"cannot download {display_name(url)}: {reason}", f"Try it again. {_BY_HAND}")


def _check_md5(archive: Path, part: Archive) -> None:
    try:
        with open_regular(archive) as handle:
            md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise access_error("read", archive, error) from error
    if md5 != part.md5:
        raise AccessError(
            f"{display_name(archive)} has the MD5 {md5}, expected {part.md5} of {part.file}",
            "It is damaged, or another edition: that one you can unzip into data/ yourself",
        )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into an empty folder, and nothing outside of it."""
    try:
        with open_regular(archive) as handle, zipfile.ZipFile(handle) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            size_bytes = sum(member.file_size for member in members)
            if len(members) > _MOST_FILES or size_bytes > _MOST_BYTES:
                raise AccessError(
                    f"{display_name(archive)} would unpack to {len(members)} files of {size_bytes:,} bytes,"
                    f" expected at most {_MOST_FILES} of {_MOST_BYTES:,}"
                )
            for member in members:
                _check_member(member, archive)
            opened.extractall(folder, members)
    except OSError as error:
        raise access_error("unpack", archive, error) from error
    # Damaged; damaged; a compression that Python lacks; a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise AccessError(f"{display_name(archive)} is no usable zip file: {error}") from error


def _check_member(member: zipfile.ZipInfo, archive: Path) -> None:
    """Refuse a name that leads elsewhere on any system, and what is no plain file."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    parts = member.filename.split("/")
    if (
        kind not in (0, stat.S_IFREG)
        or {"", ".", ".."} & set(parts)
        or any(c in member.filename for c in "\\:")
    ):
        raise AccessError(
            f"{display_name(archive)} holds {display_name(member.filename)!r},"
            " which is a link or leads out of its folder"
        )
