"""What looks like a card number or an e-mail address, and text without them.

It costs time in proportion to the text, whatever the text is: what is stored comes from strangers.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

CARD = "[card number]"
EMAIL = "[e-mail address]"

_DIGITS = range(13, 20)
"""How many digits a card number has."""
_ISSUED = re.compile("2[2-7]|[3-6]|81|9792")
"""What the numbers of payment cards begin with; moments in milliseconds or as 20261231235959, which
are as long, do not."""
_BETWEEN = r"[\s.\-_\u00ad\u200b\u2010-\u2015\u2212\ufe58\ufe63\uff0d]"
"""What may stand between the digits of a card number: blanks, dots and dashes of any kind."""
_RUN = re.compile(rf"\d(?:{_BETWEEN}{{0,3}}\d){{12,}}")
_GROUP = re.compile(r"\d+")

_AT = re.compile("[@\uff20\ufe6b]")
_LOCAL = re.compile(r"""(?:"[^"\n]{1,64}"|[^\s@"'<>()\[\]{},;:\\/=|`\uff20\ufe6b]+)$""")
_LONGEST_LOCAL = 66
"""64 characters, and two quotation marks."""
# Letters, digits, and the marks that belong to letters of many scripts.
_LABEL = r"\w[\w\-\u0300-\u036f\u0900-\u0e7f\u200c\u200d]{0,62}"
_DOMAIN = re.compile(rf"(?:{_LABEL}[.\u3002\uff0e\uff61])+{_LABEL}|\[[0-9A-Fa-f:.]{{2,45}}\]")


def redacted(text: str) -> str:
    """Return ``text`` with placeholders in place of card numbers and e-mail addresses.

    A card number is 13 to 19 decimal digits of any script that begin as payment cards do and pass
    Luhn's check, alone or in groups with up to three blanks, dots or dashes between them. It begins
    and ends where a group does: digits inside a longer unbroken number are none. An e-mail address
    is ``name@host.domain``, also with quotes around the name or an address in brackets as the host.
    """
    found = [(*span, CARD) for span in _cards(text)] + [(*span, EMAIL) for span in _emails(text)]
    if not found:
        return text
    parts: list[str] = []
    end = 0
    for start, stop, placeholder in sorted(found):
        if start >= end:
            parts += text[end:start], placeholder
        end = max(end, stop)  # where one runs into another, both go
    return "".join([*parts, text[end:]])


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """Yield where addresses are; found from their @, so that no text makes it slow."""
    end = 0
    for at in _AT.finditer(text):
        domain = _DOMAIN.match(text, at.end())
        if domain is None:
            continue
        before = text[max(end, at.start() - _LONGEST_LOCAL) : at.start()]
        local = _LOCAL.search(before)
        if local is not None:
            yield at.start() - (len(before) - local.start()), domain.end()
            end = domain.end()


def _cards(text: str) -> Iterator[tuple[int, int]]:
    """Yield where card numbers are, from left to right, the longest of those that begin alike."""
    for run in _RUN.finditer(text):
        groups = [each.span() for each in _GROUP.finditer(text, run.start(), run.end())]
        digits = "".join(
            str(unicodedata.decimal(each)) for start, stop in groups for each in text[start:stop]
        )
        edges = [0]  # how many digits there are before each group, and in all
        for start, stop in groups:
            edges.append(edges[-1] + stop - start)
        sums = _luhn_sums(digits)
        first = 0
        while first < len(groups):
            begin = edges[first]
            last = bisect_right(edges, begin + _DIGITS[-1]) - 1
            if not _ISSUED.match(digits, begin):
                last = first
            while last > first and edges[last] - begin in _DIGITS:
                end = edges[last]
                of_end = sums[end % 2]
                if (of_end[end] - of_end[begin]) % 10 == 0:
                    yield groups[first][0], groups[last - 1][1]
                    first = last - 1
                    break
                last -= 1
            first += 1


def _luhn_sums(digits: str) -> tuple[list[int], list[int]]:
    """Return, for numbers that end at an even and at an odd place, what Luhn's check adds up.

    The sum over any part is the difference of two of them, so that trying every part of a long run
    of digits costs no more than the run is long.
    """
    even, odd = [0], [0]
    for place, each in enumerate(digits):
        plain = int(each)
        doubled = 2 * plain - 9 * (plain > 4)
        # The last digit of a number counts as it is, and every second one before it.
        even.append(even[-1] + (plain if place % 2 else doubled))
        odd.append(odd[-1] + (doubled if place % 2 else plain))
    return even, odd
