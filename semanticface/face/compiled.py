"""How every inner loop of the renderer is compiled: one place, so that no kernel is slower for a forgotten option."""

from __future__ import annotations

import numba as nb

kernel = nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
"""Decorator: compiled once for all processes, without Python's check for a division by zero (which stops loops from
being vectorised; kernels guard their own divisions)."""
