"""Keys of people: reading what they import, fingerprints as Nova writes them, making new ones."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bus import clock
from schema.compute.keypair import KeyType
from schema.refusal import Invalid

MAX_BYTES = 16 * 1024
"""The longest public key or certificate that is taken."""
CERTIFICATE_DAYS = 3650
UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
"""The user principal name Windows looks for in a client certificate."""


class MadeKey(msgspec.Struct, frozen=True):
    """A fresh key; the private half exists only here and in the answer to whoever asked for it."""

    public_key: str
    private_key: str
    fingerprint: str


def fingerprint(key_type: KeyType, public_key: str) -> str:
    """MD5 of an ssh key's blob, SHA-1 of a certificate, as colon-separated hex. Raises Invalid if it is neither."""
    if len(public_key) > MAX_BYTES:
        raise Invalid(f"Keypair data is invalid: public_key is longer than {MAX_BYTES} bytes")
    return _of_certificate(public_key) if key_type is KeyType.X509 else _of_ssh_key(public_key)


def make(key_type: KeyType, user_id: str) -> MadeKey:
    """An Ed25519 key in OpenSSH's format, or an RSA key with a self-signed client certificate. Takes CPU time."""
    return _make_certificate(user_id) if key_type is KeyType.X509 else _make_ssh_key()


def _of_ssh_key(public_key: str) -> str:
    try:
        serialization.load_ssh_public_key(public_key.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(
            "Keypair data is invalid: failed to generate fingerprint; public_key must be one line of an OpenSSH public "
            "key, such as `ssh-ed25519 AAAA… name`"
        ) from None
    return _colons(hashlib.md5(base64.b64decode(public_key.split()[1]), usedforsecurity=False).digest())


def _of_certificate(public_key: str) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(public_key.encode())
    except ValueError:
        raise Invalid(
            "Keypair data is invalid: failed to generate X509 fingerprint; public_key must be a certificate in PEM"
        ) from None
    return _colons(certificate.fingerprint(hashes.SHA1()))  # noqa: S303 - Nova's format, not a matter of security


def _make_ssh_key() -> MadeKey:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(clock.random_bytes(32))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} Generated-by-Cumulog"
    return MadeKey(public_key=line, private_key=private.decode(), fingerprint=_of_ssh_key(line))


def _make_certificate(user_id: str) -> MadeKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64])])
    principal = f"{user_id}@localhost".encode()
    now = clock.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(clock.random_bytes(16), "big") >> 1)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.OtherName(UPN, bytes([0x0C, len(principal)]) + principal)]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return MadeKey(public_key=public, private_key=private.decode(), fingerprint=_of_certificate(public))


def _colons(digest: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in digest)
