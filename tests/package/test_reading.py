"""Files from outside: whatever a parser raises, the error is ours and names the file."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from recbole_bbqrec.errors import UserError
from recbole_bbqrec.reading import (
    check_archive,
    open_array,
    parse_yaml,
    read_arrays,
    read_json,
    read_json_object,
    read_text,
    read_yaml_file,
)

GOOD = {
    "text": (read_text, "ä\n".encode()),
    "json": (read_json_object, b'{"a": [1, 2.5, null, "t"]}'),
    "yaml": (read_yaml_file, b"a: [1, 1e-3]\nb: {c: text}\n"),
    "npy": (open_array, None),
    "npz": (read_arrays, None),
}
#: A billion values in a kilobyte: each line repeats the line before nine times.
NESTED = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.fixture
def good() -> dict:
    contents = {kind: content for kind, (_, content) in GOOD.items()}
    for kind, save in (("npy", np.save), ("npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, np.arange(40, dtype=np.float32).reshape(8, 5))
        contents[kind] = file.getvalue()
    return contents


@pytest.mark.parametrize("kind", GOOD)
def test_whole_files_are_read_and_damaged_ones_named(tmp_path, good, kind):
    """Cut at every sixteenth of its length and changed in every tenth byte: no other error."""
    read, path = GOOD[kind][0], tmp_path / "file"
    path.write_bytes(good[kind])
    read(path, "something", "Do this.")
    content, refused = good[kind], 0
    cut = [content[: len(content) * part // 16] for part in range(16)]
    flipped = []
    for place in range(0, len(content), max(1, len(content) // 40)):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        flipped.append(bytes(changed))
    for damaged in (*cut, *flipped):
        path.write_bytes(damaged)
        try:
            read(path, "something", "Do this.")
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "something" in str(error)
            assert "Do this." in str(error)
    assert refused > 10 if kind != "text" else refused > 2


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "{" * 100_000, "1" * 5000, "\ud800", '{"a": ' * 50_000]
)
def test_json_beyond_the_parser_is_refused(tmp_path, content):
    path = tmp_path / "deep.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match="deep.json cannot be read"):
        read_json(path, "numbers", "Correct it.")


def test_json_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="list.json holds no JSON object; expected a plan"):
        read_json_object(tmp_path / "list.json", "a plan", "Make it again.")


def test_a_byte_order_mark_before_json_is_passed_over(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + GOOD["json"][1])
    assert read_json_object(tmp_path / "a.json", "a plan", "Make it again.")["a"][0] == 1


def test_yaml_may_repeat_and_merge():
    assert parse_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\ne: [*a, *a]") == {
        "a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": [{"b": 1, "c": 2}] * 2,
    }  # fmt: skip


def test_yaml_is_plain_data():
    assert parse_yaml("a: 2024-02-30\nb: 2019-10-01 00:00:00\nc: 1e-3\nd: 0x10") == {
        "a": "2024-02-30", "b": "2019-10-01 00:00:00", "c": 0.001, "d": 16,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!!set {a}", "!!timestamp x",
        "!!omap [a: 1]", "[" * 3000, "a: " + "{b: " * 101, "- " * 3000, "{[1]: 2}",
        "a: b: c", "0b_", "!other x", "\x00", "*unknown", "a: 1\na: 2", "b: {c: 1, 'c': 2}",
        "a: &a [*a]", "a: &a {b: *a}", NESTED,
    ],
)  # fmt: skip
def test_yaml_that_is_no_plain_data_is_refused(tmp_path, text):
    with pytest.raises(ValueError):
        parse_yaml(text)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match="x.yaml cannot be read"):
        read_yaml_file(tmp_path / "x.yaml", "options", "Correct it.")


def test_missing_files_and_folders_are_named(tmp_path):
    for kind, (read, _) in GOOD.items():
        with pytest.raises(UserError, match="none cannot be read: no such file"):
            read(tmp_path / "none", kind, "Make it.")
        with pytest.raises(UserError, match="cannot be read: is a directory"):
            read(tmp_path, kind, "Make it.")


def test_an_archive_is_checked_entry_by_entry(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", b"x" * 100)
        archive.writestr("other", b"y" * 100)
    check_archive(path)
    path.write_bytes(path.read_bytes().replace(b"y" * 100, b"y" * 99 + b"z"))
    with pytest.raises(ValueError, match="checksum of other"):
        check_archive(path)


def test_a_misspelt_file_is_answered_with_the_one_beside_it(tmp_path):
    (tmp_path / "options.yaml").write_text("epochs: 1\n")
    with pytest.raises(UserError, match="cannot be read.* Did you mean `options.yaml`"):
        read_yaml_file(tmp_path / "option.yaml", "YAML", "Correct it.")


@pytest.mark.parametrize("text", [r'a: "\ud800"', r'"\udc00": 1', r'a: [b, "x\udfff"]'])
def test_yaml_of_half_a_surrogate_pair_is_refused(text):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        parse_yaml(text)
