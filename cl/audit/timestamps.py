"""Time stamps of RFC 3161: somebody else's signed word for when a head of the ledger was there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from cl.errors import BadInput, LedgerError, first_line
from cl.home.chain import Chain, Head, head_message

SHA512_BYTES = 64


@dataclass(frozen=True)
class TimeStamp:
    """The first `counter` records were there at `time`."""

    counter: int
    time: str


def time_stamp_request(head: Head) -> bytes:
    """What is sent to a time-stamping authority, DER. Its answer is kept as it comes."""
    made: bytes = _library().TimestampRequestBuilder(data=head.message).build().as_bytes()
    return made


def check_time_stamp(token: Path, authority: Path, chain: Chain) -> TimeStamp:
    """What a token (an authority's answer, DER) says. authority: its certificates, root last. Raises LedgerError where
    it does not hold, or is of no head of this chain."""
    library = _library()
    try:
        response = library.decode_timestamp_response(_bytes(token))
        stamped = response.tst_info.message_imprint.message
        roots = x509.load_pem_x509_certificates(_bytes(authority))
    except ValueError as error:
        raise BadInput(f"{token} or {authority} is no time stamp or certificate ({first_line(error)})") from error
    algorithm = "sha512" if len(stamped) == SHA512_BYTES else "sha256"
    heads = [(record.seq + 1, head_message(record.seq + 1, record.hash)) for record in chain.records]
    found = next((one for one in heads if hashlib.new(algorithm, one[1]).digest() == stamped), None)
    if found is None:
        raise LedgerError(f"{token} stamps no head of this ledger: it was cut or written anew, or is another one")
    counter, message = found
    builder = library.VerifierBuilder().add_root_certificate(roots[-1])
    for one in roots[:-1]:
        builder = builder.add_intermediate_certificate(one)
    try:
        builder.build().verify_message(response, message)
    except (library.VerificationError, ValueError) as error:
        raise LedgerError(f"{token} does not hold under {authority}: {first_line(error)}") from error
    return TimeStamp(counter, response.tst_info.gen_time.isoformat(timespec="seconds"))


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError as error:
        raise BadInput("time stamps need one more package: pip install 'palimpsest-cl[timestamps]'") from error
    return rfc3161_client


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); check the path") from error
