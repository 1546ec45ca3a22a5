"""User-Agent and Server values (RFC 3261 section 25.1, RFC 9110 section 10.1.5): products, versions, comments.

`CPE/4.0.7423.1 OCPhone/4.0.7423.1 (Microsoft Lync 2010 (Beta) Phone Edition)` is how such a phone names itself in SIP
(protocol.md section 11); how it does so in HTTP is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dissectors.errors import DissectError
from dissectors.version import Version

MAX_TEXT = 4096  # characters that are read; the rest of a longer value is left alone
PHONES = ("ocphone", "cpe")  # product names of Communicator/Lync Phone Edition, the one with the better version first


class Product(NamedTuple):
    """A name and the version behind its slash, blank where there is none."""

    name: str
    version: str

    @property
    def firmware(self) -> Version | None:
        """The version as four numbers, None for any other form."""
        try:
            return Version.parse(self.version)
        except DissectError:
            return None


@dataclass(frozen=True, slots=True)
class UserAgent:
    """What a sender says it is; `comments` without their outer parentheses."""

    text: str
    products: tuple[Product, ...]
    comments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> UserAgent:
        """Read any text; never raises. Comments nest, an unclosed one ends with the text."""
        products: list[Product] = []
        comments: list[str] = []
        depth = start = 0
        word = ""
        for at, char in enumerate(text[:MAX_TEXT] + " "):
            if char == "(" and (depth or not word):
                if depth == 0:
                    start = at + 1
                depth += 1
            elif char == ")" and depth:
                depth -= 1
                if depth == 0:
                    comments.append(text[start:at])
            elif depth:
                continue
            elif not char.isspace():
                word += char
            elif word:
                name, _, version = word.partition("/")
                products.append(Product(name, version))
                word = ""
        if depth:
            comments.append(text[start:MAX_TEXT])
        return cls(text, tuple(products), tuple(comments))

    @property
    def is_phone(self) -> bool:
        """Whether a product is one of Communicator or Lync Phone Edition."""
        return any(product.name.lower() in PHONES for product in self.products)

    @property
    def firmware(self) -> Version | None:
        """The phone's firmware version; None where this is no phone or the version has another form."""
        for name in PHONES:
            for product in self.products:
                if product.name.lower() == name and product.firmware:
                    return product.firmware
        return None

    def to_json(self) -> dict[str, Any]:
        """`text`, `products`, `comments`, `is_phone`, `firmware`."""
        return {
            "text": self.text,
            "products": [{"name": name, "version": version} for name, version in self.products],
            "comments": list(self.comments),
            "is_phone": self.is_phone,
            "firmware": str(self.firmware) if self.firmware else None,
        }
