"""Archives of policies that claim more than they are, and files that are none, are refused."""

import io
import os
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import tiny_runs
from saved_policies import npy, outcome

from mbpo_jax.driver.interaction.policy import Policy, load_policy, policy_path


def members(arrays):
    """Name -> bytes of what `np.savez` puts into an archive."""
    return {f"{name}.npy": npy(value, allow_pickle=False) for name, value in arrays.items()}


def claiming(shape, dtype="<f4"):
    """An array of no bytes that says it has a shape."""
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue()


def archive_of(files, compression=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", compression) as file:
        warnings.simplefilter("ignore")  # a name may come twice
        for name, data in files:
            file.writestr(name, data)
    return made.getvalue()


def overlapping(files, num_copies):
    """The last file of an archive listed so many times, under names of the same length: as some ZIP bombs are made."""
    data = archive_of(files)
    entry = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    listed = data[data.index(b"PK\x01\x02") : end] + data[entry:end] * num_copies
    count, offset = len(files) + num_copies, data.index(b"PK\x01\x02")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(listed), offset, 0)
    return data[:offset] + listed + tail


def hostile(arrays, kernel):
    """What is wrong -> an archive, and words of the refusal."""
    good = members(arrays)
    others = [(name, data) for name, data in good.items() if name != f"{kernel}.npy"]
    huge = good[f"{kernel}.npy"] + bytes(10**7)  # deflated to a thousandth

    def with_kernel(data):
        return archive_of([*others, (f"{kernel}.npy", data)])

    return {
        "deflated": (archive_of(good.items(), zipfile.ZIP_DEFLATED), "compressed"),
        "a bomb": (archive_of([*others, (f"{kernel}.npy", huge)], zipfile.ZIP_DEFLATED), "compressed"),
        "packed harder": (archive_of(good.items(), zipfile.ZIP_LZMA), "compressed"),
        "overlapping": (overlapping(list(good.items()), 1000), "claim more than the"),
        "a terabyte": (with_kernel(claiming((10**6, 10**6))), "claims to be float32(1000000, 1000000)"),
        "more than any machine": (with_kernel(claiming((2**62, 2**62))), "claims to be"),
        "a negative shape": (with_kernel(claiming((-1, -1)) + bytes(4)), "claims to be"),
        "a shape of nothing": (with_kernel(claiming((0, 2**62))), "where float32"),
        "objects": (with_kernel(claiming((1,), "|O") + b"cos\nsystem\n"), "unpickling"),
        "objects in a record": (with_kernel(claiming((1,), [("x", "|O")])), "unpickling"),
        "bytes too many": (with_kernel(good[f"{kernel}.npy"] + b"x"), "claims to be"),
        "another version": (with_kernel(npy_of_version_2(arrays[kernel])), "version (2, 0)"),
        "twice": (
            archive_of([*good.items(), (f"{kernel}.npy", good[f"{kernel}.npy"])]),
            "two arrays have the same name",
        ),
        "no array": (archive_of([*good.items(), ("readme.txt", b"hello")]), "is not the name of an array"),
        **{
            f"a path {name}": (archive_of([*good.items(), (name, npy(np.zeros(3)))]), "is not the name of an array")
            for name in ("../../evil.npy", "/etc/evil.npy", "actor/../evil.npy", "a\\..\\b.npy", "./x.npy", "a//b.npy")
        },
    }


def npy_of_version_2(array):
    made = io.BytesIO()
    np.lib.format.write_array(made, array, version=(2, 0))
    return made.getvalue()


def test_an_archive_that_claims_more_than_it_is_is_refused_before_an_array_is_made(copy, monkeypatch):
    path, home = policy_path(copy, 1), {file.name for file in copy.parent.iterdir()}
    with np.load(path) as file:
        arrays = dict(file)
    kernel = next(name for name in arrays if name.endswith("kernel"))
    read, made = np.lib.format.read_array, []

    def counted(*args, **kwargs):
        made.append(read(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(np.lib.format, "read_array", counted)
    for name, (data, words) in hostile(arrays, kernel).items():
        path.write_bytes(data)
        message = str(outcome(copy))
        assert message.startswith(f"cannot load a policy from {path}: "), name
        assert words in message, name
        assert [array.nbytes for array in made] in ([], [8]), name  # no more than the size of observations
        made.clear()
    assert {file.name for file in copy.parent.iterdir()} == home
    path.write_bytes(archive_of(members(arrays).items()))
    assert isinstance(outcome(copy), Policy)


def test_an_encrypted_archive_is_refused(copy):
    path = policy_path(copy, 1)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the list of contents
    path.write_bytes(data)
    assert "compressed or encrypted" in str(outcome(copy))


def test_only_regular_files_are_opened_and_none_is_waited_for(copy):
    path = policy_path(copy, 1)
    good = path.with_name("good.npz")
    path.rename(good)
    for make, words in (
        (os.mkfifo, "is not a regular file"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
    ):
        make(path)
        assert words in str(outcome(copy))
        path.rmdir() if path.is_dir() else path.unlink()
    path.symlink_to(good)
    assert isinstance(outcome(copy), Policy)


def test_a_flipped_bit_is_found_or_does_no_harm(copy):
    path = policy_path(copy, 1)
    good, actor = path.read_bytes(), load_policy(copy, 1).actor
    found = 0
    for position in range(0, len(good), len(good) // 60):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        loaded = outcome(copy)
        if isinstance(loaded, str):
            found += 1
            assert loaded.startswith(f"cannot load a policy from {path}: ")
        else:
            tiny_runs.assert_same_bits(loaded.actor, actor)  # dates, permissions and the like
    assert found > 20
