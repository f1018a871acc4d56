"""Read and write binary glTF 2.0 (.glb, .vrm).

Follows the Khronos glTF 2.0 specification: little-endian, chunks and buffer views aligned to 4 bytes, the smallest
index type that fits, ``min`` and ``max`` where required.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from semanticface.errors import SemanticFaceError
from semanticface.utils.files import atomic_open

MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
MAX_BYTES = 2**30
"""Larger avatars are rejected."""

_COMPONENTS = {np.dtype("u1"): 5121, np.dtype("<u2"): 5123, np.dtype("<u4"): 5125, np.dtype("<f4"): 5126}
_SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Glb:
    """A glTF document with its binary buffer.

    Args:
        document: JSON of an existing file; by default a new one.
        binary: its buffer.

    Attributes:
        document: the JSON, freely editable.
    """

    def __init__(self, document: dict[str, Any] | None = None, binary: bytes = b"") -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}} if document is None else document
        self._binary = bytearray(binary)

    def add(self, kind: str, item: dict[str, Any]) -> int:
        """Append to one of the document's lists, such as ``meshes``, and return the index."""
        items = self.document.setdefault(kind, [])
        items.append(item)
        return len(items) - 1

    def view(self, data: bytes, target: int | None = None) -> int:
        """Append bytes to the buffer as a buffer view.

        Args:
            data: its content.
            target: ``ARRAY_BUFFER`` for vertices, ``ELEMENT_ARRAY_BUFFER`` for indices, else None.
        """
        self._binary += bytes(-len(self._binary) % 4)
        item: dict[str, Any] = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data)}
        if target is not None:
            item["target"] = target
        self._binary += data
        return self.add("bufferViews", item)

    def accessor(
        self, values: np.ndarray, target: int | None = None, *, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Append an array as an accessor.

        Args:
            values: [N], [N, 2 to 4] or column-major matrices [N, 16], float32, uint8, uint16 or uint32; rows of 4-byte
                multiples in vertices.
            target: see ``view``.
            bounds: write ``min`` and ``max``, required for positions and animation times.
            normalized: integers stand for 0 to 1.
        """
        rows = values.reshape(len(values), -1)
        rows = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
        item: dict[str, Any] = {
            "bufferView": self.view(rows.tobytes(), target),
            "componentType": _COMPONENTS[rows.dtype],
        }
        item |= {"count": len(rows), "type": _SHAPES[rows.shape[1]]}
        if bounds:
            item |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        if normalized:
            item["normalized"] = True
        return self.add("accessors", item)

    def sparse(self, values: np.ndarray, threshold: float, *, bounds: bool = False) -> int:
        """Append a sparse accessor of float32[N, 3] values, mostly zero.

        Args:
            values: one row per vertex.
            threshold: rows whose components are all smaller in magnitude are omitted.
            bounds: see ``accessor``.
        """
        rows = np.flatnonzero(np.abs(values).max(1) >= threshold)
        item: dict[str, Any] = {"componentType": 5126, "count": len(values), "type": "VEC3"}
        kept = np.zeros((1, 3), np.float32)
        if len(rows):
            small = rows.astype("<u2" if len(values) <= 2**16 else "<u4")
            kept = np.ascontiguousarray(values[rows], "<f4")
            item["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": self.view(small.tobytes()), "componentType": _COMPONENTS[small.dtype]},
                "values": {"bufferView": self.view(kept.tobytes())},
            }
        if bounds:
            # Bounds include the omitted rows, which are zero.
            all_ = kept if len(rows) == len(values) else np.concatenate([kept, np.zeros((1, 3), np.float32)])
            item |= {"min": all_.min(0).tolist(), "max": all_.max(0).tolist()}
        return self.add("accessors", item)

    def image(self, data: bytes, kind: str) -> int:
        """Append an image; ``kind`` is ``image/png`` or ``image/jpeg``."""
        return self.add("images", {"bufferView": self.view(data), "mimeType": kind})

    def animate(
        self,
        name: str,
        times: np.ndarray,
        weights: Mapping[int, np.ndarray],
        rotations: Mapping[int, np.ndarray] = MappingProxyType({}),
    ) -> None:
        """Append a linearly interpolated animation of morph target weights and rotations.

        Args:
            name: of the animation.
            times: float64[T], seconds, increasing.
            weights: by node, float32[T, targets of its mesh].
            rotations: by node, unit quaternions [T, 4], x, y, z, w.
        """
        seconds = times.astype(np.float32)
        # Times must increase, but after hours float32 cannot resolve a millisecond.
        kept = np.concatenate([[True], np.diff(seconds) > 0])
        clock = self.accessor(seconds[kept], bounds=True)
        channels: list[dict[str, Any]] = []
        samplers: list[dict[str, Any]] = []
        outputs = [(node, "weights", values[kept].ravel()) for node, values in weights.items()]
        outputs += [(node, "rotation", values[kept].astype(np.float32)) for node, values in rotations.items()]
        for node, path, values in outputs:
            channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
            samplers.append({"input": clock, "interpolation": "LINEAR", "output": self.accessor(values)})
        self.add("animations", {"name": name, "channels": channels, "samplers": samplers})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically."""
        document = self.document
        self._binary += bytes(-len(self._binary) % 4)
        if self._binary:
            buffers = document.setdefault("buffers", [{}])
            buffers[0]["byteLength"] = len(self._binary)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(errors="replace")
        text += b" " * (-len(text) % 4)
        chunks = [struct.pack("<II", len(text), JSON_CHUNK), text]
        if self._binary:
            chunks += [struct.pack("<II", len(self._binary), BIN_CHUNK), bytes(self._binary)]
        with atomic_open(path, "wb") as file:
            file.write(struct.pack("<III", MAGIC, 2, 12 + sum(map(len, chunks))))
            file.writelines(chunks)


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def read(path: str | os.PathLike[str]) -> Glb:
    """Read a binary glTF file.

    Raises:
        SemanticFaceError: missing, not binary glTF 2.0, damaged, or larger than ``MAX_BYTES``.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SemanticFaceError(f"{path}: larger than {MAX_BYTES // 2**20} MiB. Give a smaller avatar.")
        data = path.read_bytes()
    except OSError as error:
        raise SemanticFaceError(f"{path}: {error.strerror}. Check the path.") from error
    if data[:4] != b"glTF":
        raise SemanticFaceError(f"{path}: not a binary glTF file. Export the avatar as .glb or .vrm.")
    chunks: dict[int, bytes] = {}
    try:
        _, version, length = struct.unpack_from("<III", data)
        offset = 12
        while offset < length:
            count, kind = struct.unpack_from("<II", data, offset)
            if offset + 8 + count > len(data):
                raise ValueError("truncated")
            chunks.setdefault(kind, data[offset + 8 : offset + 8 + count])
            offset += 8 + count
        document = json.loads(chunks[JSON_CHUNK], parse_constant=_reject_constant)
        if version != 2 or not isinstance(document, dict):
            raise ValueError(f"version {version}")
    except (struct.error, KeyError, ValueError, RecursionError) as error:
        raise SemanticFaceError(f"{path}: damaged, or not glTF 2.0. Export it again.") from error
    return Glb(document, chunks.get(BIN_CHUNK, b""))
