"""A receipt as PDF, on a strip of paper as wide as a till's. Extra `shopper`."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

from fusion.errors import FusionError, extra
from fusion.money.receipts import ReceiptDocument

WIDTH_MM, MARGIN_MM, ROW_MM = 80.0, 6.0, 5.0
# The widest letters (3 mm), beside the longest amount.
LETTERS_OF_A_ROW = 16
# Letters of the fonts that every reader of PDF has (Latin-1); the euro sign is written as its currency's name.
_BUILT_IN = "latin-1"


def receipt_pdf(document: ReceiptDocument, font: Path | None = None) -> bytes:
    """A receipt as PDF.

    Args:
        document: the receipt.
        font: TrueType file; without one, letters other than those of western Europe are shown as "?".

    Raises:
        FusionError: the font cannot be used, or the package is missing.
    """
    with extra("shopper"):
        from fpdf import FPDF
        from fpdf.errors import FPDFException

    price = document.price_text
    goods = [(f"{line.quantity} x {line.name}", price(line.amount)) for line in document.lines]
    goods += [(each.name, price(-each.amount)) for each in document.discounts]
    taxes = [(f"incl. {tax.rate} VAT on {price(tax.net)}", price(tax.vat)) for tax in document.taxes]
    # A long name takes several rows, and the total stands below all of them; what is left over of the strip is blank.
    n_rows = sum(max(2, math.ceil(len(left) / LETTERS_OF_A_ROW)) for left, _ in goods)
    height_mm = 2 * MARGIN_MM + ROW_MM * (7 + n_rows + 2 * len(taxes) + 2)
    pdf = FPDF(unit="mm", format=(WIDTH_MM, max(height_mm, WIDTH_MM)))
    pdf.set_margin(MARGIN_MM)
    pdf.set_auto_page_break(False)
    family = "helvetica"
    if font is not None:
        try:
            for style in ("", "B"):
                pdf.add_font("receipt", style, str(font))
        except (OSError, RuntimeError, ValueError, FPDFException) as error:
            raise FusionError(f"{font}: want a TrueType font for receipts, got: {error}") from None
        family = "receipt"

    def written(text: str) -> str:
        return text if font is not None else text.encode(_BUILT_IN, "replace").decode(_BUILT_IN)

    def row(left: str, right: str = "", style: str = "", size: float = 9.0) -> None:
        pdf.set_font(family, style, size)
        width_mm = WIDTH_MM - 2 * MARGIN_MM
        right_mm = pdf.get_string_width(written(right)) + 2.0 if right else 0.0
        top_mm = pdf.get_y()
        pdf.multi_cell(width_mm - right_mm, ROW_MM, written(left), align="L", new_x="LMARGIN", new_y="NEXT")
        if right:
            bottom_mm = pdf.get_y()
            pdf.set_xy(WIDTH_MM - MARGIN_MM - right_mm, top_mm)
            pdf.cell(right_mm, ROW_MM, written(right), align="R")
            pdf.set_xy(MARGIN_MM, bottom_mm)

    pdf.set_title(f"Receipt {document.visit}")
    pdf.set_creation_date(datetime.datetime.fromtimestamp(document.t_ns // 1_000_000_000, datetime.UTC))
    pdf.add_page()
    row(document.seller, style="B", size=13.0)
    if document.store != document.seller:
        row(document.store)
    row(document.time)
    row(f"Receipt {document.visit}", size=7.0)
    if document.revision:
        row(f"Corrected, version {document.revision}")
    pdf.ln(2.0)
    for left, right in goods:
        row(left, right)
    pdf.ln(1.0)
    row("Total", price(document.total), style="B", size=11.0)
    for left, right in taxes:
        row(left, right, size=7.0)
    return bytes(pdf.output())
