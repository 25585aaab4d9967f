"""What a Transformer keeps of the tokens it has read, so that the next one costs no more than itself."""

import torch
import torch.nn.functional as F


class KVCache:
    """Keys and values of the tokens read so far, in fixed storage; for inference (holds no gradients).

    keys, values: (n_layers, B, n_kv_heads, capacity, head_dim); the first `length` slots are filled, the others zero.
    position: int64 (1,) on the device, the slot that `store_next` fills; who calls it keeps it equal to `length`.
    """

    def __init__(
        self,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        capacity: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        shape = (n_layers, batch, n_kv_heads, capacity, head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self.position = torch.zeros(1, device=device, dtype=torch.long)

    @property
    def batch(self) -> int:
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def store(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write k and v (B, n_kv_heads, T, head_dim) after the filled slots; return the layer's keys and
        values (B, n_kv_heads, length + T, head_dim). `length` moves once all layers are written."""
        start, T = self.length, k.shape[2]
        keys, values = self.keys[layer], self.values[layer]
        keys.narrow(2, start, T).copy_(k)
        values.narrow(2, start, T).copy_(v)
        return keys.narrow(2, 0, start + T), values.narrow(2, 0, start + T)

    def store_next(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write k and v (B, n_kv_heads, 1, head_dim) at `position`; return all of the layer's slots, filled or not."""
        self.keys[layer].index_copy_(2, self.position, k)
        self.values[layer].index_copy_(2, self.position, v)
        return self.keys[layer], self.values[layer]

    def grow(self, room: int) -> None:
        """Make room for `room` more tokens a row; what is stored stays."""
        self.keys = F.pad(self.keys, (0, 0, 0, room))  # the old keys are free before the values are copied
        self.values = F.pad(self.values, (0, 0, 0, room))

    def reorder(self, rows: torch.Tensor, in_place: bool = False) -> None:
        """Make row b a copy of what was row rows[b] (LongTensor, any length: rows may repeat or vanish).

        in_place: the storage stays the same, which asks for as many rows as before."""
        if in_place:
            for stored in (self.keys, self.values):
                filled = stored.narrow(3, 0, self.length)
                filled.copy_(filled[:, rows])
        else:
            self.keys = self.keys[:, rows]  # one after the other, as in `grow`
            self.values = self.values[:, rows]
