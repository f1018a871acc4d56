"""Build `semanticface/assets/take.npz`, the statistics of a recorded take from which expressions are sampled.

    python data_prep/assets/build_take.py alex_rom_3.csv

The take is a Live Link Face CSV (`semanticface/assets/TAKE_LICENSE.txt` says which). Of ten equal contiguous blocks of
rows, those with index 2, 5 and 8 are held out for measuring. The others are grouped by k-means; stored are the mean
expression, the spread and the share of each group, and how the face rests. No row of the take is stored.

`--held-out` groups the held-out blocks alone, for the benchmark; `--moments` writes means, standard deviations and
correlations of the held-out blocks, which the tests compare with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticface import arkit, assets
from semanticface.cli.scripts import ScriptParser
from semanticface.formats import tables
from semanticface.semantics.take_sampler import split_rows
from semanticface.utils.files import atomic_path

GROUPS, ROUNDS = 160, 40
REST_QUANTILE = 0.2


def group(rows: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the group of each row, int[n]: k-means from rows chosen far apart."""
    rng = np.random.default_rng(seed)
    centres = rows[rng.integers(len(rows))][None]
    nearest = np.full(len(rows), np.inf)
    for _ in range(GROUPS - 1):
        nearest = np.minimum(nearest, ((rows - centres[-1]) ** 2).sum(1))
        centres = np.concatenate([centres, rows[rng.choice(len(rows), p=nearest / nearest.sum())][None]])
    for _ in range(ROUNDS):
        member = (((rows**2).sum(1)[:, None] - 2 * rows @ centres.T) + (centres**2).sum(1)).argmin(1)
        centres = np.stack([rows[member == k].mean(0) if (member == k).any() else centres[k] for k in range(GROUPS)])
    return member


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("take", type=Path, metavar="TAKE", help="CSV of Live Link Face")
    parser.add_argument("--out", type=Path, default=assets.path("take.npz"), help="(default: %(default)s)")
    parser.add_argument("--held-out", action="store_true", help="group the held-out blocks, not the others")
    parser.add_argument("--moments", type=Path, help="also write the moments of the held-out blocks to this file")
    options = parser.parse_args()
    take = np.stack([row.coefficients for row in tables.read_coefficients(options.take)]).astype(np.float64)
    rows, held_out = (take[numbers] for numbers in split_rows(len(take)))
    if options.moments is not None:
        both = np.concatenate([held_out, arkit.mirror(held_out)])
        with np.errstate(invalid="ignore"):  # an action that never moves has no correlation
            correlation = np.nan_to_num(np.corrcoef(both.T))
        with atomic_path(options.moments) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, means=np.float16(both.mean(0)), sds=np.float16(both.std(0)),
                                correlation=np.float16(correlation))  # fmt: skip
    if options.held_out:
        rows = held_out
    member = group(rows)
    shares = np.bincount(member, minlength=GROUPS)
    # A group of a few rows would give those rows away: it joins the others.
    kept = np.flatnonzero(shares >= 5)
    means = np.stack([rows[member == k].mean(0) for k in kept])
    spreads = np.stack([rows[member == k].std(0) for k in kept])
    eight_bits = {
        name: np.round(255 * values).astype(np.uint8)
        for name, values in (("means", means), ("spreads", spreads), ("rest", np.quantile(rows, REST_QUANTILE, axis=0)))
    }
    with atomic_path(options.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, shares=shares[kept].astype(np.uint16), **eight_bits)
    print(f"{options.out}: {len(kept)} groups of {len(rows)} rows, {options.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
