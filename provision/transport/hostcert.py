"""Host certificates (`@cert-authority` in known_hosts): is this one signed by an authority known for this host, and valid now?

Rules from OpenSSH's PROTOCOL.certkeys and sshkey_cert_check_authority: type host, a principal that matches (none at all matches every
host), the time inside the validity, no critical option, a good signature by a known authority.
"""

from __future__ import annotations

import base64
import fnmatch

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from provision.transport.hostkeys import KnownKey, kind_of


def plain_key(blob: bytes) -> bytes:
    """The key inside a certificate, as a plain key blob; a plain key is returned as it is. Raises ValueError for what is neither."""
    if "-cert-" not in kind_of(blob):
        return blob
    return _bytes_of(_parse(blob).public_key())


def refusal(blob: bytes, known: list[KnownKey], host: str, now: float) -> str:
    """Why a host certificate is not to be trusted; empty if it is. `now` in seconds since 1970."""
    try:
        certificate = _parse(blob)
        authority = _bytes_of(certificate.signature_key())
        certificate.verify_cert_signature()
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return "its certificate cannot be read or its signature is wrong"
    if any(key.marker == "revoked" and key.blob in (authority, _bytes_of(certificate.public_key())) for key in known):
        return "its certificate or the authority is revoked"
    if not any(key.marker == "cert-authority" and key.blob == authority for key in known):
        return "its certificate is signed by another authority"
    if certificate.type is not SSHCertificateType.HOST or certificate.critical_options:
        return "its certificate is not one for hosts"
    if not certificate.valid_after <= now < certificate.valid_before:
        return "its certificate is not valid at this time"
    principals = [name.decode("utf-8", "replace").lower() for name in certificate.valid_principals]
    if principals and not any(fnmatch.fnmatchcase(host.lower(), name) for name in principals):
        return f"its certificate is for {', '.join(principals)}"
    return ""


def _parse(blob: bytes) -> SSHCertificate:
    try:
        parsed = load_ssh_public_identity(kind_of(blob).encode() + b" " + base64.b64encode(blob))
    except (UnsupportedAlgorithm, TypeError, OverflowError) as problem:  # what the server sent decides which of them it is
        raise ValueError(str(problem)) from problem
    if not isinstance(parsed, SSHCertificate):
        raise ValueError("not a certificate")
    return parsed


def _bytes_of(key: object) -> bytes:
    text: bytes = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)  # type: ignore[attr-defined]
    return base64.b64decode(text.split()[1])
