"""Currencies by their ISO 4217 codes: which exist, and how many decimal places an amount has."""

from __future__ import annotations

# Currencies that are not divided by a hundred; every other active one has two decimal places.
_EXPONENTS = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
}
CURRENCIES = frozenset(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF "
    "CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD "
    "RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX "
    "USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG".split()
)


def decimal_places(currency: str) -> int:
    """Decimal places of an amount: 2 for EUR, where 249 minor units are 2.49; 0 for JPY."""
    return _EXPONENTS.get(currency, 2)


def amount_text(minor: int, currency: str) -> str:
    """An amount of minor units as people read it, such as `2.49 EUR`."""
    places = decimal_places(currency)
    sign, whole = ("-" if minor < 0 else ""), abs(minor)
    decimals = f".{whole % 10**places:0{places}d}" if places else ""
    return f"{sign}{whole // 10**places}{decimals} {currency}"
