"""Serialized GTINs on RFID tags: SGTIN-96 and SGTIN-198 to the GTIN of 14 digits.

Source: GS1 EPC Tag Data Standard 2.1, sections 14.6.1 (SGTIN) and 7.1 (GTIN and EPC), table 14-2 (partitions).
"""

from __future__ import annotations

from fusion.live.messages import Refused
from fusion.store.gtin import check_digit

# Header and length in bits of the two forms.
_BITS = {0x30: 96, 0x36: 198}
# By partition: bits and digits of the company prefix, then of indicator and item reference.
_PARTITIONS = (
    (40, 12, 4, 1), (37, 11, 7, 2), (34, 10, 10, 3), (30, 9, 14, 4), (27, 8, 17, 5), (24, 7, 20, 6), (20, 6, 24, 7),
)  # fmt: skip
# Header, filter value and partition come first.
_PREFIX_AT = 14


def gtin14_of(epc: bytes) -> str:
    """The GTIN of 14 digits in a tag's EPC, whose serial number is left out.

    Args:
        epc: 12 bytes, or 25 of which 198 bits count; bytes beyond are passed over, since readers pad to 16 bits.

    Raises:
        Refused: another scheme than SGTIN, or digits that the partition does not allow.
    """
    bits = _BITS.get(epc[0]) if epc else None
    if bits is None or 8 * len(epc) < bits:
        raise Refused("tag without SGTIN", f"want an SGTIN-96 or SGTIN-198, got {epc[:32].hex() or 'an empty EPC'}")
    whole, length = int.from_bytes(epc, "big"), 8 * len(epc)

    def field(at: int, n: int) -> int:
        return whole >> (length - at - n) & (1 << n) - 1

    partition = field(11, 3)
    if partition >= len(_PARTITIONS):
        raise Refused("malformed tag", f"want a partition of 0 to 6, got {partition}")
    prefix_bits, prefix_digits, item_bits, item_digits = _PARTITIONS[partition]
    prefix, item = field(_PREFIX_AT, prefix_bits), field(_PREFIX_AT + prefix_bits, item_bits)
    if prefix >= 10**prefix_digits or item >= 10**item_digits:
        raise Refused("malformed tag", f"want {prefix_digits} and {item_digits} digits, got {prefix} and {item}")
    reference = f"{item:0{item_digits}}"
    # The indicator digit, which stands before the item reference on the tag, comes first in the GTIN.
    body = f"{reference[0]}{prefix:0{prefix_digits}}{reference[1:]}"
    return body + check_digit(body)
