"""A GPU that is none: a device "gpux" whose tensors wrap tensors of the CPU and mind which device each one is on.

What CUDA refuses is refused here: an operation on tensors of both devices, save those that CUDA lets pass (a scalar of
the host, indices from the host, copies). What the host waits for is counted in `waits`. To import this module changes
torch for the whole process, so only a process of its own does it: see `apart`.

It knows nothing of kernels for one kind of device (Triton, CUDA graphs), nor of autocast: `is_cuda` is false. Its
tensors have no addresses, so nothing that asks for them runs: writing checkpoints, counting the bytes autograd keeps.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "gpux"
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXING = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
STRICT = {aten.index_select.default, aten.gather.default, aten.embedding.default}  # take no index () from the host
SIZED_BY_VALUES = {  # the host must know the values before it can go on
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.equal.default,
}

waits = Counter()  # for what the host waited for the device, by the operation's name


class Backend(_DummyBackendModule):
    """What torch asks a device's module for."""

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def manual_seed_all(self, seed):
        pass

    def _is_in_bad_fork(self):
        return False


class Pretended(torch.Tensor):
    """A tensor on the device; `inner`, on the CPU, holds what is in it."""

    @staticmethod
    def __new__(cls, inner):
        strides, offset = inner.stride(), inner.storage_offset()
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=strides, storage_offset=offset, dtype=inner.dtype, device=torch.device(NAME, 0)
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self, **how):
        return f"Pretended({self.inner!r})"

    def tolist(self):
        return self.cpu().tolist()


class Placing(TorchDispatchMode):
    """Sees the operations that make tensors on the device, or move them there, from none that are."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Generator(torch.Generator):
    """A torch.Generator, which may be the device's; it then draws as that of the CPU does."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.name = device
        return made

    @property
    def device(self):
        return torch.device(self.name)


def _run(func, args, kwargs):
    """One operation on the wrapped tensors -> its results, wrapped, unless they are the host's."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = any(isinstance(t, Pretended) for t in tensors)
    wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if not here and wanted != NAME:
        return func(*args, **kwargs)
    if here:
        _refuse_mixed(func, args, tensors)
    to_host = wanted == "cpu" or (func is aten.copy_.default and not isinstance(args[0], Pretended))
    if (here and to_host) or func in SIZED_BY_VALUES or _by_truth(func, args):
        waits[str(func)] += 1
    kwargs = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory")}
    unwrap = lambda x: x.inner if isinstance(x, Pretended) else x
    out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if wanted == "cpu":
        return out
    return _changed(func, args, kwargs, tree_map(lambda x: Pretended(x) if isinstance(x, torch.Tensor) else x, out))


def _refuse_mixed(func, args, tensors):
    host = [t for t in tensors if not isinstance(t, Pretended)]
    if func in COPIES or (func in INDEXING and isinstance(args[0], Pretended) and not _host_values(args)):
        return
    refused = [tuple(t.shape) for t in host if t.dim() > 0 or func in STRICT]
    if refused:
        raise RuntimeError(f"Expected all tensors to be on the same device: {func} got shapes {refused} of the CPU")


def _host_values(args):
    """Whether an index_put is given values, more than one, from the host."""
    return len(args) > 2 and not isinstance(args[2], Pretended) and args[2].dim() > 0


def _by_truth(func, args):
    return func in INDEXING and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])


def _changed(func, args, kwargs, out):
    """An operation that writes to its arguments returns these very ones; any other, what it made."""
    returns = func._schema.returns
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not written:
        return out
    place = {a.name: i for i, a in enumerate(func._schema.arguments)}
    given = [kwargs[a.name] if a.name in kwargs else args[place[a.name]] for a in written]
    return None if not returns else given[0] if len(returns) == 1 else tuple(given)


def _tensor(data, *, device=None, _made=torch.tensor, **how):
    """torch.tensor, which makes its result without an operation that `Placing` could see."""
    made = _made(data, **how)
    return made if device is None else made.to(device)


_setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
Placing().__enter__()
torch.Generator, torch.tensor = Generator, _tensor
torch.__future__.set_swap_module_params_on_conversion(True)  # weights that are tied stay tied, as on CUDA
torch.inference_mode = torch.no_grad  # a wrapper cannot be made as an inference tensor's view
device = torch.device(NAME)
