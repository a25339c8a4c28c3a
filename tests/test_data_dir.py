from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from p2p.data_dir import IDENTITY, load_identity, open_data_dir
from p2p.errors import InvalidInput
from p2p.peer_id import PeerId

VECTORS = json.loads((Path(__file__).parent / "vectors" / "peer_ids.json").read_text())["keys"]


def test_an_identity_is_made_once_and_found_again(tmp_path):
    folder = tmp_path / "new" / "folder"
    with open_data_dir(folder) as first:
        pass
    with open_data_dir(folder) as second:
        assert second.public == first.public
    assert (folder / IDENTITY).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", VECTORS)
def test_an_identity_of_any_type_that_somebody_brings_is_used_and_kept(tmp_path, name):
    encoded = bytes.fromhex(VECTORS[name]["private"])
    (tmp_path / IDENTITY).write_bytes(encoded)
    with open_data_dir(tmp_path) as pair:
        assert str(PeerId.from_public_key(pair.public)) == VECTORS[name]["peer_id"]
    assert (tmp_path / IDENTITY).read_bytes() == encoded


def test_a_folder_in_use_is_refused(tmp_path):
    with open_data_dir(tmp_path), pytest.raises(InvalidInput, match="in use"), open_data_dir(tmp_path):
        pytest.fail("two peers share one identity")


def test_a_damaged_key_is_refused_and_kept(tmp_path):
    (tmp_path / IDENTITY).write_bytes(b"garbage")
    with pytest.raises(InvalidInput, match="no usable key"), open_data_dir(tmp_path):
        pytest.fail("a damaged key was used")
    assert (tmp_path / IDENTITY).read_bytes() == b"garbage"


def test_a_key_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / IDENTITY).mkdir()
    with pytest.raises(InvalidInput, match="cannot read the identity"):
        load_identity(tmp_path / IDENTITY)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot use the data folder"), open_data_dir(tmp_path / "file"):
        pytest.fail("a file was used as a folder")


def test_a_folder_without_space_for_the_key_is_named(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(InvalidInput, match="cannot write the identity"):
        load_identity(tmp_path / IDENTITY)
    assert not (tmp_path / IDENTITY).exists()
