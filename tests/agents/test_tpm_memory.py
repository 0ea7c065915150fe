"""What a TPM remembers, packed for the way to another host."""

import io
import tarfile

from agents.hypervisor.tpm_memory import pack, unpack


def test_it_comes_out_as_it_went_in_and_once(tmp_path):
    memory = tmp_path / "one" / "tpm2"
    memory.mkdir(parents=True)
    (memory / "state").write_bytes(b"\0secret")
    pack(memory.parent, tmp_path / "tpm.tar")
    with (tmp_path / "tpm.tar").open("ab") as padded:
        padded.write(b"\0" * 512)  # what is served in blocks may end in nothing
    unpack(tmp_path / "tpm.tar", tmp_path / "of libvirt" / "two")
    there = tmp_path / "of libvirt" / "two" / "tpm2" / "state"
    assert there.read_bytes() == b"\0secret"
    assert there.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "tpm.tar").exists()

    (memory / "state").write_bytes(b"newer")
    pack(memory.parent, tmp_path / "tpm.tar")
    unpack(tmp_path / "tpm.tar", tmp_path / "of libvirt" / "two")
    assert there.read_bytes() == b"\0secret"


def test_a_guest_without_one_has_nothing_to_pack(tmp_path):
    pack(tmp_path / "none", tmp_path / "tpm.tar")
    unpack(tmp_path / "tpm.tar", tmp_path / "two")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_beside_its_folder(tmp_path):
    with tarfile.open(tmp_path / "tpm.tar", "w") as packed:
        for name in ("../outside", "/tmp/cl-outside", "inside"):
            member = tarfile.TarInfo(name)
            member.size = 1
            packed.addfile(member, io.BytesIO(b"x"))
    unpack(tmp_path / "tpm.tar", tmp_path / "two")
    assert sorted(it.name for it in tmp_path.rglob("*side")) == ["inside"]
