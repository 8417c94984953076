"""Validators of candidates: checksums and formats that python-stdnum does not have, entropy, placeholders.

Every validator is total: it takes the candidate's text and says yes or no. Sources: ISO/IEC 7812 (card numbers), ISO
13616
(IBAN), ICAO 9303 (travel documents), 49 CFR 565 (VIN), the number plans of the issuing authorities.
"""

import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

Validator = Callable[[str], bool]

_DIGITS = re.compile(r"[^0-9]")


def digits(value: str) -> str:
    """Only the digits of ``value``."""
    return _DIGITS.sub("", value)


def luhn(number: str) -> bool:
    """Luhn's checksum over a string of digits."""
    total = 0
    for position, char in enumerate(reversed(number)):
        value = ord(char) - 48
        if position % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


_MASTERCARD_SERIES_2: Final = range(2221, 2721)


def _card_scheme(number: str) -> bool:
    """Whether prefix and length are those of a card scheme."""
    length = len(number)
    four = int(number[:4])
    if number[0] == "4":
        return length in (13, 16, 19)
    if 5100 <= four <= 5599 or four in _MASTERCARD_SERIES_2:
        return length == 16
    if number[:2] in ("34", "37") or four in (2131, 1800):
        return length == 15
    if four == 6011 or number[:2] in ("60", "64", "65") or 3500 <= four <= 3599 or 6221 <= four <= 6229:
        return 16 <= length <= 19
    if number[:2] in ("36", "38", "39") or 3000 <= four <= 3059 or four == 3095:
        return 14 <= length <= 19
    if number[:2] == "62" or number[:2] == "81" or 2200 <= four <= 2204:
        return 16 <= length <= 19
    return number[:4] in ("5018", "5020", "5038", "5893", "6304", "6759", "6761", "6762", "6763") and 12 <= length <= 19


_CARD_GROUPS: Final = (
    re.compile(r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?$"),
    re.compile(r"[0-9]{4}([ -])[0-9]{6}\1[0-9]{4,5}$"),
    re.compile(r"[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,3}$"),
    re.compile(r"[0-9]{12,19}$"),
)


def card(value: str) -> bool:
    """A payment card number: scheme, length, usual grouping and Luhn's checksum (ISO/IEC 7812)."""
    number = digits(value)
    if not 12 <= len(number) <= 19 or len(set(number)) < 2:
        return False
    return any(shape.match(value) for shape in _CARD_GROUPS) and _card_scheme(number) and luhn(number)


def card_length(value: str) -> int:
    """How many characters of ``value`` are a card number: all, or less where other digits follow it; 0 when none."""
    end = len(value)
    while end >= 12:
        if card(value[:end]):
            return end
        shorter = max(value.rfind(" ", 0, end), value.rfind("-", 0, end))
        if shorter < 0:
            return 0
        end = shorter
    return 0


# Lengths by country, ISO 13616 (SWIFT IBAN registry).
_IBAN_LENGTHS: Final = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24,
    "FI": 18,
    "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21,
    "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21,
    "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30,
    "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33,
    "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24,
    "TR": 26,
    "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip


def iban_length(value: str) -> int:
    """How many characters of ``value`` are an IBAN (country, length, checksum; ISO 13616); 0 when none."""
    wanted = _IBAN_LENGTHS.get(value[:2].upper(), 0)
    compact = ""
    for position, char in enumerate(value):
        if char in " -":
            continue
        compact += char
        if len(compact) == wanted:
            moved = (compact[4:] + compact[:4]).upper()
            return position + 1 if int("".join(str(int(one, 36)) for one in moved)) % 97 == 1 else 0
    return 0


@lru_cache(maxsize=256)
def _stdnum(name: str) -> Validator:
    module = importlib.import_module(f"stdnum.{name}")
    valid: Validator = module.is_valid
    return valid


def iban(value: str) -> bool:
    """An IBAN and nothing behind it."""
    return iban_length(value) == len(value)


_TWO_X = re.compile(r"@[0-9]x\.|\.(?:png|jpe?g|gif|svg|webp|js|css|py|ts|md)$", re.IGNORECASE)


def email(value: str) -> bool:
    """An e-mail address of a person: no file name, no repository login, no address that cannot receive mail."""
    local, _, domain = value.partition("@")
    if (
        _TWO_X.search(value)
        or ".." in value
        or local.endswith(".")
        or local.lower() in ("git", "user", "npm", "you", "your", "name", "email")
    ):
        return False
    return (
        not domain.lower().endswith((".local", ".invalid", ".localhost", ".test"))
        and domain.rpartition(".")[2].isalpha()
    )


_NANP = re.compile(
    r"(?:(?:\+|00)?1[ .-]?)?\(?([2-9][0-9]{2})\)?[ .-]{0,2}([2-9][0-9]{2})[ .-]?[0-9]{4}(?:x[0-9]{1,6})?$"
)


def phone(value: str) -> bool:
    """A telephone number in international form (ITU-T E.164, 8 to 15 digits) or a grouped North American one."""
    number = digits(value.partition("x")[0])
    if value.startswith("+"):
        return 8 <= len(number) <= 15 and len(set(number)) > 2
    match = _NANP.match(value)
    return bool(match) and match is not None and match.group(1)[1:] != "11" and len(set(number)) > 2


def phone_loose(value: str) -> bool:
    """A number of 7 to 15 digits that starts as numbers are dialled; only behind a word that says so."""
    number = digits(value)
    return 7 <= len(number) <= 15 and len(set(number)) > 2 and (value[0] in "+(0" or 9 <= len(number) <= 12)


_NINO_EXCLUDED: Final = frozenset(("BG", "GB", "NK", "KN", "TN", "NT", "ZZ"))


def nino(value: str) -> bool:
    """A UK National Insurance number (HMRC NIM39110): prefix rules; ungrouped ones must be upper-case."""
    compact = value.replace(" ", "").replace("-", "")
    upper = compact.upper()
    if upper[:2] in _NINO_EXCLUDED or upper[1] == "O":
        return False
    return compact == upper


def npi(value: str) -> bool:
    """A US National Provider Identifier: Luhn's checksum with the prefix 80840 (45 CFR 162.406)."""
    return luhn("80840" + digits(value))


def dea(value: str) -> bool:
    """A US DEA registration number: the sum rule over seven digits."""
    number = digits(value)
    if len(number) < 7:
        return False
    odd = sum(int(char) for char in number[-7:-1:2])
    even = sum(int(char) for char in number[-6:-1:2])
    return (odd + 2 * even) % 10 == int(number[-1])


_VIN_VALUES: Final = dict(
    zip(
        "ABCDEFGHJKLMNPRSTUVWXYZ0123456789",
        [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9, *range(10)],
        strict=True,
    )
)
_VIN_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def vin(value: str) -> bool:
    """A vehicle identification number with its North American check digit (49 CFR 565.15)."""
    if len(value) != 17 or any(char not in _VIN_VALUES for char in value):
        return False
    rest = sum(_VIN_VALUES[char] * weight for char, weight in zip(value, _VIN_WEIGHTS, strict=True)) % 11
    return value[8] == ("X" if rest == 10 else str(rest))


def icao(value: str) -> bool:
    """A document number with its ICAO 9303 check digit at the end."""
    weights = (7, 3, 1)
    total = sum(int(char, 36) * weights[at % 3] for at, char in enumerate(value[:-1].upper()))
    return value[-1].isdigit() and total % 10 == int(value[-1])


def pl_id(value: str) -> bool:
    """A Polish identity card number: three letters, check digit, five digits."""
    compact = value.replace(" ", "").upper()
    weights = (7, 3, 1, 9, 7, 3, 1, 7, 3)
    return sum(int(char, 36) * weight for char, weight in zip(compact, weights, strict=True)) % 10 == 0


def au_medicare(value: str) -> bool:
    """An Australian Medicare number: weighted sum of eight digits."""
    number = digits(value)
    weights = (1, 3, 7, 9, 1, 3, 7, 9)
    return len(number) >= 10 and sum(
        int(char) * weight for char, weight in zip(number, weights, strict=False)
    ) % 10 == int(number[8])


_TW_LETTERS: Final = dict(zip("ABCDEFGHJKLMNPQRSTUVXYWZIO", range(10, 36), strict=True))


def tw_id(value: str) -> bool:
    """A Taiwanese national identification number."""
    code = _TW_LETTERS.get(value[0])
    if code is None:
        return False
    numbers = [code // 10, code % 10, *(int(char) for char in value[1:])]
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return sum(number * weight for number, weight in zip(numbers, weights, strict=True)) % 10 == 0


def hkid(value: str) -> bool:
    """A Hong Kong identity card number with its bracketed check digit."""
    compact = value.replace("(", "").replace(")", "")
    body, check = compact[:-1], compact[-1]
    values = [36] * (8 - len(body)) + [int(char, 36) for char in body]
    total = sum(number * weight for number, weight in zip(values, range(9, 1, -1), strict=True))
    return (total + int(check, 36)) % 11 == 0


_NRIC_ST: Final = "JZIHGFEDCBA"
_NRIC_FG: Final = "XWUTRQPNMLK"
_NRIC_M: Final = "XWUTRQPNJLK"


def nric(value: str) -> bool:
    """A Singapore NRIC or FIN with its check letter."""
    value = value.upper()
    total = sum(int(char) * weight for char, weight in zip(value[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    first = value[0]
    total += {"T": 4, "G": 4, "M": 3}.get(first, 0)
    if first == "M":
        return _NRIC_M[10 - total % 11] == value[8]
    return (_NRIC_ST if first in "ST" else _NRIC_FG)[total % 11] == value[8]


def snils(value: str) -> bool:
    """A Russian SNILS with its two check digits."""
    number = digits(value)
    total = sum(int(char) * weight for char, weight in zip(number[:9], range(9, 0, -1), strict=True))
    return total % 101 % 100 == int(number[9:11])


def any_value(value: str) -> bool:
    """No checksum exists: everything that the expression found, unless it is one repeated character."""
    return len(set(value)) > 2


OWN: Final[dict[str, Validator]] = {
    "card": card, "iban": iban, "email": email, "phone": phone, "phone_loose": phone_loose, "nino": nino, "npi": npi,
    "dea": dea, "vin": vin, "icao": icao, "pl_id": pl_id, "au_medicare": au_medicare, "tw_id": tw_id, "hkid": hkid,
    "nric": nric, "snils": snils, "any": any_value,
}  # fmt: skip


# Validators of candidates behind which more of the same alphabet may stand: how much of the candidate is the
# identifier.
LENGTHS: Final[dict[str, Callable[[str], int]]] = {"own.card": card_length, "own.iban": iban_length}


def validator(name: str) -> Validator:
    """Find the validator of a pattern file: ``own.card`` or a module of python-stdnum (``pl.pesel``)."""
    if name.startswith("own."):
        return OWN[name[4:]]

    def check(value: str) -> bool:
        try:
            return bool(_stdnum(name)(value))
        except Exception:  # noqa: BLE001 - a third-party validator must not stop the classifier
            return False

    return check
