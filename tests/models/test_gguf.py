from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scibox.models.gguf import (
    Floats,
    UnreadableWeights,
    decode_q4_1,
    encode_q4_0,
    encode_q8_0,
    read_header,
    requantize,
)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def make_gguf(tensors: list[tuple[bytes, tuple[int, ...], int, bytes]], alignment: int = 32) -> bytes:
    """A small GGUF with every form of metadata, and the given (name, shape, type, data)."""
    pairs = [
        string(b"general.architecture") + struct.pack("<I", 8) + string(b"llama"),
        string(b"general.file_type") + struct.pack("<II", 4, 3),
        string(b"general.alignment") + struct.pack("<II", 4, alignment),
        string(b"words") + struct.pack("<IIQ", 9, 8, 2) + string(b"a") + string(b"bc"),
        string(b"numbers") + struct.pack("<IIQ3h", 9, 3, 3, 1, 2, 3),
        string(b"scale") + struct.pack("<Id", 12, 0.5),
        string(b"yes") + struct.pack("<I?", 7, True),
    ]
    table, data = b"", b""
    for name, shape, kind, content in tensors:
        table += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content + bytes(-len(content) % alignment)
    start = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs) + table
    return start + bytes(-len(start) % alignment) + data


def q4_1_block(scale: float, offset: float, nibbles: list[int]) -> bytes:
    packed = bytes(nibbles[i] | nibbles[i + 16] << 4 for i in range(16))
    return np.array([scale, offset], "<f2").tobytes() + packed


def decode_q4_0(blocks: np.ndarray) -> Floats:
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    return (nibbles - 8.0) * scale


def decode_q8_0(blocks: np.ndarray) -> Floats:
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32) * scale


RAMP = list(range(16)) * 2
NORM = np.arange(7, dtype="<f4").tobytes()


@pytest.fixture(params=[32, 64])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    blocks = q4_1_block(0.5, -4.0, RAMP) + q4_1_block(0.25, 1.0, RAMP[::-1])
    path = tmp_path / "source.gguf"
    path.write_bytes(
        make_gguf(
            [(b"norm", (7,), 0, NORM), (b"w", (32, 2), 3, blocks), (b"e", (7,), 0, NORM)], request.param
        )
    )
    return path


def tensor_data(path: Path) -> dict[bytes, tuple[int, np.ndarray]]:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    header = read_header(data)
    at = header.data_at
    return {t.name: (t.type_id, data[at + t.offset : at + t.offset + t.size]) for t in header.tensors}


def test_nibbles_are_decoded_in_the_order_of_ggml() -> None:
    block = np.frombuffer(q4_1_block(0.5, -4.0, RAMP), np.uint8).reshape(1, 20)

    assert decode_q4_1(block)[0].tolist() == [0.5 * nibble - 4.0 for nibble in RAMP]


def test_q8_0_keeps_the_values_and_everything_else(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    requantize(source, target, "q8_0")

    tensors = tensor_data(target)
    assert tensors[b"norm"][1][: len(NORM)].tobytes() == NORM
    assert tensors[b"e"][1][: len(NORM)].tobytes() == NORM
    kind, data = tensors[b"w"]
    assert kind == 8
    values = decode_q8_0(data[: 2 * 34].reshape(2, 34))
    assert values[0] == pytest.approx([0.5 * n - 4.0 for n in RAMP], abs=4.0 / 127)
    assert values[1] == pytest.approx([0.25 * n + 1.0 for n in RAMP[::-1]], abs=5.0 / 127)


def test_q4_0_is_exact_where_q4_1_was_symmetric(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    requantize(source, target, "q4_0")

    kind, data = tensor_data(target)[b"w"]
    assert kind == 2
    values = decode_q4_0(data[: 2 * 18].reshape(2, 18))
    assert values[0].tolist() == [0.5 * n - 4.0 for n in RAMP]


def test_metadata_changes_only_in_the_file_type(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    requantize(source, target, "q8_0")

    old, new = (read_header(np.frombuffer(path.read_bytes(), np.uint8)) for path in (source, target))
    at = old.file_type_at
    assert at is not None
    assert new.metadata[:at] == old.metadata[:at]
    assert struct.unpack_from("<I", new.metadata, at) == (7,)
    assert new.metadata[at + 4 :] == old.metadata[at + 4 :]
    assert new.alignment == old.alignment
    assert all(tensor.offset % new.alignment == 0 for tensor in new.tensors)
    assert [t.shape for t in new.tensors] == [t.shape for t in old.tensors]


def test_the_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    requantize(source, tmp_path / "a", "q4_0")
    requantize(source, tmp_path / "b", "q4_0")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("keep", [0, 3, 30, 200, -1, -40])
def test_a_file_that_is_cut_off_is_refused_and_leaves_nothing(
    source: Path, tmp_path: Path, keep: int
) -> None:
    blocks = q4_1_block(0.5, -4.0, RAMP)
    whole = make_gguf([(b"w", (32,), 3, blocks)])
    source.write_bytes(whole[:keep] if keep >= 0 else whole[: len(whole) - 12 + keep])
    target = tmp_path / "target.gguf"

    with pytest.raises(UnreadableWeights):
        requantize(source, target, "q8_0")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.gguf"]


blocks_of_floats = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.just(32)), elements=st.floats(-100, 100, width=32)
)


@given(blocks_of_floats)
def test_q8_0_errs_by_half_a_step_at_most(values: Floats) -> None:
    peak = np.abs(values).max(axis=1, keepdims=True)
    # Half a step, what float16 takes from the scale, and its smallest positive value.
    bound = peak / 127 * 0.5 + peak * 2.0**-10 + 127 * 2.0**-24

    assert (np.abs(decode_q8_0(encode_q8_0(values)) - values) <= bound).all()


@given(blocks_of_floats)
def test_q4_0_errs_by_half_a_step_but_for_the_far_side(values: Floats) -> None:
    peak = np.abs(values).max(axis=1, keepdims=True)
    # 16 levels from -8 to 7 of peak / 8: a value as far out on the other side loses a whole step.
    bound = peak / 8 + peak * 2.0**-10 + 8 * 2.0**-24

    assert (np.abs(decode_q4_0(encode_q4_0(values)) - values) <= bound).all()
