"""Pretrained weights of the zoo: which there are, where their file is, and what goes with them."""

from __future__ import annotations

import hashlib
import importlib
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from layered_lr.arrays import Array
from layered_lr.console import say
from layered_lr.errors import DataError, SpecError
from layered_lr.files import describe_error
from layered_lr.models.pretrained import Transform
from layered_lr.models.weight_files import read_weights
from layered_lr.models.zoo import TIMM
from layered_lr.spelling import did_you_mean
from layered_lr_torch import models, zoo_building

_SECONDS = 20  # without an answer
_BLOCK_BYTES = 1 << 20
_DIGEST = re.compile(r"-([a-f0-9]{8,})\.")  # as torch.hub writes and reads it


def _weights_of(name: str) -> Any:
    """The enumeration of a model's weights in torchvision."""
    return importlib.import_module("torchvision.models").get_model_weights(name)


def find_weights(name: str, chosen: str) -> Any:
    """Find weights of a model by their name; ``"DEFAULT"`` is the best of them.

    Raises:
        SpecError: There are none of that name.
    """
    zoo_building.check_name(name)
    known = _weights_of(name)
    if chosen == "DEFAULT" and len(known):
        return known.DEFAULT
    own = chosen.rpartition(".")[2] if chosen.startswith(known.__name__) else chosen
    names = [each.name for each in known]
    if own not in names:
        raise SpecError(
            f"pretrained={chosen!r}: model {name!r} has the weights {', '.join(names) or 'none'}; give one of them, "
            f"True for the best, or the path of a file that is there.{did_you_mean(own, names)}"
        )
    return known[own]


def find_transform(name: str, chosen: str) -> Transform | None:
    """Find what was done to the images that weights were trained on.

    Args:
        name: Of the model.
        chosen: The name of weights, or the path of a file, which torchvision's own files say by their name.
    """
    if name.startswith(TIMM):
        return _timm_transform(name)
    file = Path(chosen).name
    entry = next((each for each in _weights_of(name) if chosen == each.name or Path(each.url).name == file), None)
    if entry is None and chosen == "DEFAULT":
        entry = _weights_of(name).DEFAULT
    if entry is None:
        return None
    made = entry.transforms()
    return Transform(entry.name, int(made.crop_size[0]), tuple(made.mean), tuple(made.std))


def _timm_transform(name: str) -> Transform | None:
    config = importlib.import_module("timm").get_pretrained_cfg(name.removeprefix(TIMM))
    if config is None:
        return None
    return Transform(config.tag or "timm's", int(config.input_size[-1]), tuple(config.mean), tuple(config.std))


def read_named(name: str, chosen: str, progress: bool = True) -> Mapping[str, Array]:
    """Read weights of a model by their name; they are downloaded where they are not in torch's cache.

    Raises:
        SpecError: There are no weights of that name.
        DataError: They cannot be downloaded; the message says where to put the file.
    """
    zoo_building.check_name(name)
    if name.startswith(TIMM):
        return _read_timm(name, chosen)
    return read_weights(fetch_weights(name, chosen, progress), "pretrained")


def _read_timm(name: str, chosen: str) -> Mapping[str, Array]:
    """Let timm load its own weights; a tag in the name, or in the option, chooses among them."""
    own = name.removeprefix(TIMM) if chosen == "DEFAULT" else f"{name.removeprefix(TIMM).partition('.')[0]}.{chosen}"
    try:
        made = importlib.import_module("timm").create_model(own, pretrained=True)
    except Exception as error:  # of timm, of the network, of Hugging Face's library
        raise DataError(
            f"pretrained: timm cannot load the weights of {own!r}: {describe_error(error)}. Give the path of a file: "
            "pretrained='...'."
        ) from None
    return models.copy_state(made)


def fetch_weights(name: str, chosen: str, progress: bool = True) -> Path:
    """Return the file of weights in torch's cache, whole; it is downloaded where it is missing or damaged.

    Args:
        name: Of the model.
        chosen: The name of its weights.
        progress: Whether to show a bar.

    Raises:
        SpecError: There are no weights of that name.
        DataError: The file cannot be downloaded; the message says where to put it.
    """
    url = str(find_weights(name, chosen).url)
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return fetch(url, file, progress)


def fetch(url: str, file: Path, progress: bool) -> Path:
    """Return a file whose name has the digest of its content, downloaded where it is missing or damaged.

    A download that was broken off goes on where it stopped.

    Raises:
        DataError: It cannot be downloaded, or is not what its name says.
    """
    damaged = ""
    if file.is_file():
        if not (damaged := _describe_damage(file)):
            return file
        say(f"{file}: {damaged}; it is downloaded again.")
    part = file.with_name(file.name + ".partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, progress)
    except (OSError, urllib.error.URLError, ValueError) as error:
        is_there = f"The file that is there is damaged: {damaged}. " if damaged else ""
        raise DataError(
            f"pretrained: {url} cannot be downloaded ({describe_error(error)}). {is_there}Put the file at {file}, or "
            "give its path: pretrained='...'."
        ) from None
    if wrong := _describe_damage(part, file.name):
        part.unlink()
        raise DataError(f"pretrained: what {url} gave is not that file: {wrong}. Try again, or put it at {file}.")
    part.replace(file)
    return file


def _describe_damage(file: Path, name: str = "") -> str:
    """Say how a file's content is not what its name says; empty where it is, or where the name says nothing."""
    wanted = _DIGEST.search(name or file.name)
    if wanted is None:
        return "" if file.stat().st_size else "it is empty"
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            found.update(block)
    digest = found.hexdigest()
    if digest.startswith(wanted[1]):
        return ""
    return f"its digest begins {digest[: len(wanted[1])]}, and its name says {wanted[1]}"


def _download(url: str, part: Path, progress: bool) -> None:
    """Download to a file, from where it ends."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have
            return
        raise
    with answer:
        goes_on = have and answer.status == 206
        size = int(answer.headers.get("Content-Length") or 0) + (have if goes_on else 0)
        with (
            part.open("ab" if goes_on else "wb") as opened,
            tqdm(
                total=size or None,
                initial=have if goes_on else 0,
                desc=part.name.removesuffix(".partial"),
                unit="B",
                unit_scale=True,
                disable=None if progress else True,
            ) as bar,
        ):
            while block := answer.read(_BLOCK_BYTES):
                opened.write(block)
                bar.update(len(block))
        if size and part.stat().st_size < size:
            raise OSError(f"the connection ended after {part.stat().st_size} of {size} bytes; try again to go on")
