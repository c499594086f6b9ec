"""The two kinds of arrays that move between the stations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
"""One text: its token ids, special ones included, [length]."""

Vectors = npt.NDArray[np.float32]
"""[texts, dimensions]."""
