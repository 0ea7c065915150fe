"""The promises of keypairs."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from handlers.compute.keypair import KEYPAIRS
from handlers.compute.public_key import fingerprint, make
from schema.compute.keypair import DeleteKeypair, ImportKeypair, KeypairDeleted, KeypairImported, KeyType
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

keypair = Story(KEYPAIRS, "7f0a8d4e-0000-4000-8000-000000000001")
facts = {"name": "laptop", "user_id": "u1", "key_type": KeyType.SSH, "public_key": "ssh-rsa AAAA", "fingerprint": "0a"}
imported = KeypairImported(**facts)


def test_a_key_is_imported():
    state = keypair.given().when(ImportKeypair(**facts)).then(imported).state
    assert list(KEYPAIRS.kind.unique(state)) == [("keypair of u1", "laptop")]


def test_a_keypair_does_not_change():
    other = ImportKeypair(**facts | {"public_key": "ssh-rsa BBBB"})
    keypair.given(imported).when(other).refused("'laptop' already exists", Conflict)


def test_a_keypair_is_deleted():
    keypair.given(imported).when(DeleteKeypair()).then(KeypairDeleted())
    keypair.given().when(DeleteKeypair()).refused("could not be found", NotFound)


def test_a_made_ssh_key_fits_together():
    made = make(KeyType.SSH, "u1")
    private = serialization.load_ssh_private_key(made.private_key.encode(), None)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert made.public_key.startswith(public.decode())
    assert fingerprint(KeyType.SSH, made.public_key) == made.fingerprint


def test_a_made_certificate_fits_together():
    made = make(KeyType.X509, "u" * 32)
    private = serialization.load_pem_private_key(made.private_key.encode(), None)
    certificate = x509.load_pem_x509_certificate(made.public_key.encode())
    assert certificate.public_key() == private.public_key()
    sha1 = hashlib.sha1(certificate.public_bytes(serialization.Encoding.DER), usedforsecurity=False).digest()
    assert made.fingerprint == sha1.hex(":")
    assert certificate.signature_hash_algorithm is not None
    assert certificate.signature_hash_algorithm.name == hashes.SHA256.name


def test_a_fingerprint_is_the_md5_of_the_blob():
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGHlt8huhUI10/sckYenvz+c77MUQVxqX0bGCoi5MtgT somebody@somewhere"
    assert fingerprint(KeyType.SSH, line) == "39:65:02:ed:98:41:d9:87:b7:2a:9d:b3:5a:af:ef:ea"


@pytest.mark.parametrize(
    "key_type,public_key",
    [
        (KeyType.SSH, ""),
        (KeyType.SSH, "ssh-rsa"),
        (KeyType.SSH, "ssh-rsa not-base64!"),
        (KeyType.SSH, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGHl"),
        (KeyType.SSH, "x" * 20_000),
        (KeyType.X509, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
    ],
)
def test_what_is_no_key_is_refused(key_type, public_key):
    with pytest.raises(Invalid, match="Keypair data is invalid"):
        fingerprint(key_type, public_key)
