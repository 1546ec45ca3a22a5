"""Mutations of good files, bounded and repeatable: only our error may come out, and what comes out must be JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dissectors import DissectError
from dissectors.certificates import Circumstances, dissect, examine, verify
from dissectors.certificates.armour import looks_like_armour
from dissectors.certificates.pkcs7 import SignedData
from tests.dissectors.certificates.building import YEAR_2020, Plan, der, signed_data
from tests.dissectors.certificates.test_catalog import SHA1, attribute, indirect, listing, member, name_value, old_tag

MUTANTS = 150  # of each seed

NAMED = attribute("1.3.6.1.4.1.311.12.2.1", name_value("File", "cpe.nbt"))
SEEDS = {
    "certificate": der(Plan("pool01.contoso.com", "Contoso Root", dns_names=("ucupdates-r2.contoso.com",))),
    "catalog": listing(member(old_tag(SHA1), attribute("1.3.6.1.4.1.311.2.1.4", indirect(SHA1)), NAMED)),
    "certs-only": signed_data("1.2.840.113549.1.7.1", None, [der(Plan("Contoso Root", "Contoso Root", ca=True))]),
}


def mutants(seed: bytes, random_state: random.Random, count: int) -> Iterator[bytes]:
    """Bytes changed, blocks doubled, removed and swapped, ends cut off, lengths made wild."""
    for _ in range(count):
        data = bytearray(seed)
        for _ in range(random_state.choice((1, 1, 2, 4, 16))):
            at = random_state.randrange(len(data)) if data else 0
            end = min(len(data), at + random_state.randrange(1, 64))
            match random_state.randrange(6):
                case 0 if data:
                    data[at] = random_state.randrange(256)
                case 1 if data:
                    data[at] ^= 1 << random_state.randrange(8)
                case 2:
                    del data[at:end]
                case 3:
                    data[at:at] = data[at:end]
                case 4 if data:
                    data[at] = random_state.choice((0, 0x30, 0x31, 0x7F, 0x80, 0x81, 0x84, 0xA0, 0xFF))
                case _:
                    del data[max(at, 8) :]
        yield bytes(data)


def survives(data: bytes) -> bool:
    """Whether anything could be told of the data; raises what must not come out."""
    looks_like_armour(data)
    try:
        document = dissect(data)
    except DissectError:
        return False
    json.dumps(document.to_json())
    examine(document.certificates, Circumstances(YEAR_2020, "contoso.com"))
    for item in document.items:
        if isinstance(item, SignedData):
            verify(item, b"content")
    return True


@pytest.mark.parametrize("name", SEEDS)
def test_mutants_of_what_we_build(name: str) -> None:
    told = [survives(mutant) for mutant in mutants(SEEDS[name], random.Random(name), MUTANTS)]
    assert any(told)


def test_mutants_of_the_corpus(corpus: Path) -> None:
    paths = [*sorted(corpus.glob("der/*")), *sorted(corpus.glob("payloads/pki/*/*"))]
    seeds = [path for path in paths if path.stat().st_size < 20_000]
    told = [survives(mutant) for path in seeds for mutant in mutants(path.read_bytes(), random.Random(path.name), 8)]
    assert any(told)
