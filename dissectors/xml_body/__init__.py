"""XML bodies of unknown vocabulary, read tolerantly and edited in place."""

from __future__ import annotations

from dissectors.xml_body.body import Edit, Field, Span, XmlBody, splice
from dissectors.xml_body.elements import Element, Place, RawValue

__all__ = ["Edit", "Element", "Field", "Place", "RawValue", "Span", "XmlBody", "splice"]
