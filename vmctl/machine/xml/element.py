"""An element tree under construction, with the reason for each element."""

from __future__ import annotations

import xml.etree.ElementTree as ET

METADATA = "urn:vmctl:machine:1"
"""Namespace of our own element in <metadata>. It never changes (libvirt keys on it)."""

ET.register_namespace("vmctl", METADATA)


class Writer:
    """A tree under construction; `reasons` says which mode or spec key put an element there."""

    def __init__(self, tag: str, **attributes: str) -> None:
        self.root = ET.Element(tag, attributes)
        self.reasons: dict[ET.Element, str] = {}

    def add(
        self, parent: ET.Element, tag: str, /, *, text: str = "", why: str = "", **attributes: str
    ) -> ET.Element:
        """Append an element and note why it is there; attributes with an empty value are left out.

        An attribute's name may end in an underscore, for `type_` and the like.
        """
        given = {name.rstrip("_"): value for name, value in attributes.items() if value}
        element = ET.SubElement(parent, tag, given)
        if text:
            element.text = text
        if why:
            self.reasons[element] = why
        return element

    def text(self) -> str:
        """Return the tree as indented XML."""
        ET.indent(self.root)
        return ET.tostring(self.root, encoding="unicode") + "\n"

    def explained(self) -> str:
        """Return the tree as indented XML with each reason as a comment before its element."""
        commented = self._with_comments(self.root)
        ET.indent(commented)
        return ET.tostring(commented, encoding="unicode") + "\n"

    def _with_comments(self, element: ET.Element) -> ET.Element:
        copy = ET.Element(element.tag, element.attrib)
        copy.text = element.text
        for child in element:
            if child in self.reasons:
                # Two hyphens end a comment in XML.
                copy.append(ET.Comment(f" {self.reasons[child].replace('--', '- -')} "))
            copy.append(self._with_comments(child))
        return copy


def number(text: str | None, default: int = 0) -> int:
    """Return a whole number of a domain; `default` for what is none, as hand-written XML has it."""
    stripped = (text or "").strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() else default


def yes_no(value: bool) -> str:
    """Return libvirt's word for a truth value."""
    return "yes" if value else "no"
