"""Published weights: fetched from where their authors put them, checked, and kept in a format that cannot run code.

One file of a known size and SHA-256 is wanted, so this is the standard library's HTTP and not the hub's own client: all
is bounded before it is read, the hash decides, and a mirror or a copy placed by hand is as good as the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.util
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.api import ModelError
from models.pth import PthError, read_state

WEIGHTS, ABOUT = "weights.safetensors", "ABOUT.txt"
STALLED = 30.0
"""Seconds without a byte after which a download is given up."""
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A file of weights as its authors published it."""

    repository: str
    """On the hub."""
    file: str
    size: int
    """Bytes."""
    sha256: str
    licence: str
    citation: str


PUBLISHED = {
    "cbramod": Published(
        repository="weighting666/CBraMod",
        file="pretrained_weights.pth",
        size=19_775_842,
        sha256="0792cb808c14e6b7a2bb2ce1dff379bc47bc54c49a779825bdfeb33bf8157178",
        licence="Apache-2.0",
        citation="Wang et al., CBraMod: a criss-cross brain foundation model for EEG decoding, ICLR 2025, "
        "arXiv 2412.07236",
    )
}
"""Encoder -> its published weights."""


def user_folder() -> Path:
    """Where insula keeps what a user fetched: `INSULA_HOME`, or the place the system has for it."""
    if given := os.environ.get("INSULA_HOME"):
        return Path(given)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "insula"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "insula"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "insula"


def models_folder() -> Path:
    """Where fetched weights lie, and where bundles of the user's own are looked for: one folder each."""
    return user_folder() / "models"


def fetched(name: str) -> Path | None:
    """The file of fetched weights of an encoder, or None."""
    path = models_folder() / name / WEIGHTS
    return path if path.is_file() else None


def fetch(
    name: str,
    folder: Path | None = None,
    *,
    published: Published | None = None,
    stalled: float = STALLED,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """The published weights of an encoder as safetensors in ``folder``, from the hub unless they are there.

    A copy of the published file in the folder is taken instead of the network. What was downloaded of an interrupted
    fetch is gone on with. `HF_ENDPOINT` names another hub, as for the hub's own tools. ``progress`` hears the bytes
    there are, and of how many. Raises ModelError, one line, for whatever goes wrong; nothing is left that looks whole.
    """
    published = published or PUBLISHED.get(name)
    if published is None:
        raise ModelError(f"{name!r:.60}: no published weights of that name are known; known are {', '.join(PUBLISHED)}")
    for package in ("torch", "safetensors"):
        if importlib.util.find_spec(package) is None:
            said = (
                f'{name}: the package {package} checks the weights and is not installed; run: pip install "{package}"'
            )
            raise ModelError(said)
    folder = folder or models_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / WEIGHTS).is_file() and _is_whole(folder / WEIGHTS):
            return folder / WEIGHTS
        placed, part = folder / published.file, folder / f"{published.file}.part"
        if placed.exists():
            content = _checked(placed, published)
        else:
            _download(part, published, placed, stalled, progress)
            try:
                content = _checked(part, published)
            except ModelError:
                part.unlink()
                raise
        _convert(content, placed, published, folder)
        part.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written ({error.strerror or error}); name another with --to") from None
    return folder / WEIGHTS


def _is_whole(path: Path) -> bool:
    from models.encoders.cbramod import load_cbramod

    try:
        load_cbramod(path)
    except ModelError:
        return False
    return True


def _url(published: Published) -> str:
    hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not hub.startswith(("https://", "http://")):
        raise ModelError(f"HF_ENDPOINT is {hub!r:.60}, expected an address that begins with https://")
    return f"{hub.rstrip('/')}/{published.repository}/resolve/main/{published.file}"


def _download(
    part: Path, published: Published, placed: Path, stalled: float, progress: Callable[[int, int], None]
) -> None:
    """Completes ``part``, from its end where the server can. It has the published size afterwards, or ModelError."""
    url, size = _url(published), published.size
    by_hand = f"or download it elsewhere, put it at {placed} and run this again"
    have = part.stat().st_size if part.is_file() else 0
    if have > size:
        have = 0
    if have == size:
        return
    headers = {"User-Agent": "insula", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=stalled) as answer:
            goes_on = answer.status == 206 and str(answer.headers["Content-Range"]).startswith(f"bytes {have}-")
            have = have if goes_on else 0
            offered = answer.headers["Content-Length"]
            if offered is not None and offered != str(size - have):
                raise ModelError(
                    f"{url}: {offered:.20} bytes are offered, {size - have} expected: not the file that insula knows; "
                    "update insula"
                )
            with part.open("ab" if goes_on else "wb") as file:
                while have < size and (block := answer.read1(min(_BLOCK, size - have))):
                    file.write(block)
                    have += len(block)
                    progress(have, size)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)  # of another file: the next attempt begins anew
        raise ModelError(f"{url}: the answer was {error.code} {error.reason!s:.60}; try later, {by_hand}") from None
    except urllib.error.URLError as error:
        raise ModelError(f"{url}: cannot be reached ({error.reason!s:.80}); check the network, {by_hand}") from None
    except (TimeoutError, http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        why = f"nothing came for {stalled:g} s" if isinstance(error, TimeoutError) else f"{error!s:.80}"
        raise ModelError(
            f"{url}: broke off at {have} of {size} bytes ({why}); run it again to go on, {by_hand}"
        ) from None
    except ValueError as error:  # of an address that is none, ours or one that the hub sends us to
        raise ModelError(f"{url}: leads to no address ({error!s:.80}); check HF_ENDPOINT, {by_hand}") from None
    if have < size:
        raise ModelError(f"{url}: ended after {have} of {size} bytes; run it again to go on, {by_hand}")


def _checked(path: Path, published: Published) -> bytes:
    """The bytes of a file that is the published one. Nothing is parsed before its hash is right."""
    with path.open("rb") as file:
        content = file.read(published.size + 1)
    if len(content) != published.size:
        more = "more than " if len(content) > published.size else ""
        found = published.size if more else len(content)
        raise ModelError(f"{path}: has {more}{found} bytes, the published file {published.size}; download it again")
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != published.sha256:
        raise ModelError(
            f"{path}: SHA-256 is {sha256[:12]}..., the published file's {published.sha256[:12]}...; not the file that "
            "insula knows, it is not used"
        )
    return content


def _convert(content: bytes, path: Path, published: Published, folder: Path) -> None:
    """Writes what the published file holds as safetensors, the weights last and at once."""
    import safetensors.numpy

    from models.encoders.cbramod import check_published

    try:
        state = read_state(content)
    except PthError as error:
        raise ModelError(f"{path}: holds {error}; it is not used") from None
    check_published({name: value.shape for name, value in state.items()}, str(path))
    source = f"https://huggingface.co/{published.repository}"
    metadata = {"source": source, "licence": published.licence, "sha256": published.sha256}
    (folder / ABOUT).write_text(
        f"{WEIGHTS} holds the tensors of {published.file} from {source}, unchanged.\nLicence: {published.licence}\n"
        f"Please cite: {published.citation}\nSHA-256 of {published.file}: {published.sha256}\n",
        encoding="utf-8",
    )
    new = folder / f"{WEIGHTS}.new"
    try:
        new.write_bytes(safetensors.numpy.save(state, metadata))
        new.replace(folder / WEIGHTS)
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
