"""The rigid motion that lays one chain on another so that most residues are near: a search from many fragments.

Neither the TM-score nor GDT-TS has a closed form for its best superposition. As in the TM-score program (Zhang and
Skolnick 2004, doi:10.1002/prot.20264) and LGA (Zemla 2003, doi:10.1093/nar/gkg571), fragments of several lengths are
laid on each other, then the residues that came within a radius, until these no longer change; all of them are tried.
What is found is a lower bound of the true maximum.
"""

from collections.abc import Iterator

import numpy as np

SHORTEST_FRAGMENT = 4  # residues; both programs stop there
MOST_ROUNDS = 20  # of the TM-score program
FEWEST_RESIDUES = 3  # that fix a superposition
# Shape suffixes: S = candidate superpositions, L = residues


def superposed(reference: np.ndarray, mobile: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return `mobile` (L, 3) moved onto `reference` (L, 3) once for each row of `chosen` (S, L): (S, L, 3), angstrom.

    Each motion minimises the root mean square distance of its chosen residues (Kabsch 1976); reflections are none.
    """
    weights_SL = chosen / chosen.sum(axis=1, keepdims=True)
    centres_S, mobile_centres_S = weights_SL @ reference, weights_SL @ mobile
    products = np.einsum("li,lj->lij", mobile, reference).reshape(len(mobile), 9)
    covariance_S = (weights_SL @ products).reshape(-1, 3, 3) - mobile_centres_S[:, :, None] * centres_S[:, None, :]
    left_S, _, right_S = np.linalg.svd(covariance_S)
    left_S[:, :, 2] *= np.sign(np.linalg.det(left_S @ right_S))[:, None]
    return (mobile - mobile_centres_S[:, None]) @ (left_S @ right_S) + centres_S[:, None]


def distances(reference: np.ndarray, mobile: np.ndarray, radii: tuple[float, ...]) -> Iterator[np.ndarray]:
    """Yield the residues' distances (S, L), angstrom, under every superposition tried; the first row is the RMSD's.

    A search is made for each radius (angstrom). `reference` and `mobile` are (L, 3), at least three residues.
    """
    fragments = _fragments(len(reference))
    for radius in radii:
        chosen, seen = fragments, set[bytes]()
        for _ in range(MOST_ROUNDS):
            apart_SL = np.linalg.norm(superposed(reference, mobile, chosen) - reference, axis=-1)
            yield apart_SL
            seen.update(row.tobytes() for row in chosen)
            near = np.unique(_near(apart_SL, radius), axis=0)
            chosen = near[[row.tobytes() not in seen for row in near]]
            if not len(chosen):
                break


def _near(apart_SL: np.ndarray, radius: float) -> np.ndarray:
    """Return the residues within the radius, or the nearest three where there are fewer."""
    third_S = np.partition(apart_SL, FEWEST_RESIDUES - 1, axis=1)[:, FEWEST_RESIDUES - 1]
    return apart_SL <= np.maximum(radius, third_S)[:, None]


def _fragments(length: int) -> np.ndarray:
    """Return which residues each fragment holds, (S, L): the whole chain first, then halves, quarters and so on."""
    masks, size = [np.ones(length, dtype=bool)], length // 2
    while size >= SHORTEST_FRAGMENT:
        for start in range(0, length - size + 1, max(1, size // 4)):
            masks.append((np.arange(length) >= start) & (np.arange(length) < start + size))
        size = max(size // 2, SHORTEST_FRAGMENT) if size > SHORTEST_FRAGMENT else 0
    return np.array(masks)
