"""What the compiler makes of the Triton kernels, without a GPU: registers, shared memory, spills, use of tensor cores.

Each launch that a chapter's profile can reach is made on tensors without memory, with a recorder in the kernel's place:
what is compiled then is what a GPU would be asked for, blocks and warps included. To write the table in README.md:

    python -m benchmarks.kernels
"""

import re
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from paperwalk import runs
from paperwalk.kernels.fam_scan import triton_impl as fam
from paperwalk.kernels.goldfish_mask import triton_impl as goldfish
from paperwalk.kernels.linear_cross_entropy import triton_impl as loss

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- kernels: begin -->", "<!-- kernels: end -->"
SHARED = {80: 166_912, 90: 232_448}  # compute capability -> bytes of shared memory a block may have
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.bool: "*i1"}


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch of a kernel: values of its arguments by name, and options such as num_warps."""

    kernel: triton.JITFunction
    values: dict
    options: dict = field(default_factory=dict)

    @property
    def constants(self):
        """Arguments that the code has to know: tile sides and flags."""
        return {each.name: self.values[each.name] for each in self.kernel.params if each.is_constexpr}

    @property
    def known(self):
        """What Triton tells from the other arguments: which are 1, and which are whole multiples of 16 (as pointers
        are: torch's allocations begin so, and rows of these sizes keep to it)."""
        rest = {name: value for name, value in self.values.items() if name not in self.constants}
        ones = {name for name, value in rest.items() if type(value) is int and value == 1}
        whole = {name for name, value in rest.items() if not isinstance(value, float)}
        return ones, {name for name in whole if isinstance(rest[name], torch.Tensor) or rest[name] % 16 == 0}

    @property
    def signature(self):
        """Type of each argument, in Triton's words."""
        fixed = {*self.constants, *self.known[0]}
        return {name: "constexpr" if name in fixed else _type(value) for name, value in self.values.items()}

    @property
    def sizes(self):
        """The launch for a table: its whole numbers and its first tensor's dtype."""
        dtype = next(value.dtype for value in self.values.values() if isinstance(value, torch.Tensor))
        numbers = {name: value for name, value in self.values.items() if type(value) is int and abs(value) < 2**31}
        numbers = {name: value for name, value in numbers.items() if name not in self.constants}
        return " ".join([str(dtype).removeprefix("torch."), *(f"{name}={value}" for name, value in numbers.items())])


@dataclass(frozen=True)
class Compiled:
    """Registers and stack bytes of a thread, shared bytes of a block, instructions that spill or multiply on tensor
    cores, and the seconds that it took (next to none where Triton's cache has it)."""

    registers: int
    stack: int
    shared: int
    spills: int
    tensor_core: int
    seconds: float


def compile_for(launch: Launch, capability: int) -> triton.compiler.CompiledKernel:
    """The launch's kernel for a compute capability (80 or 90), compiled with Triton's own tools; needs no GPU."""
    place = {name: (i,) for i, name in enumerate(launch.kernel.arg_names)}
    ones, multiples = launch.known
    constants = {place[name]: value for name, value in launch.constants.items()} | {place[name]: 1 for name in ones}
    attributes = {place[name]: [["tt.divisibility", 16]] for name in multiples}
    source = ASTSource(launch.kernel, launch.signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)


@cache
def build(launch: Launch, capability: int) -> Compiled:
    """What the compiler says of the launch's kernel for a compute capability."""
    start = time.perf_counter()
    compiled = compile_for(launch, capability)
    seconds = time.perf_counter() - start
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _tool(triton.knobs.nvidia.cuobjdump, "-res-usage", file.name)
        code = _tool(triton.knobs.nvidia.nvdisasm, file.name)
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    count = lambda pattern: len(re.findall(rf"\b(?:{pattern})\b", code))
    return Compiled(registers, stack, compiled.metadata.shared, count("LDL|STL"), count("HMMA|HGMMA"), seconds)


def mask(tokens, k, h):
    """Launches of the mask of rows of so many tokens."""
    return _recorded(goldfish, "_windows", lambda: goldfish.hash_mask(_empty(2, tokens, dtype=torch.int64), k, h))


def cross_entropy(vocabulary, dtype):
    """Launches of the loss of logits in dtype, with its gradient."""
    given = _empty(2, vocabulary, dtype=dtype), _empty(2, dtype=torch.int64), True
    return _recorded(loss, "_row", lambda: loss.loss_and_slope_(*given))


def fam_forward(f, d, block_size, n_heads=4, rows=1):
    """Launches of the FAM's attention: f vectors, heads of width d. Many heads in all rows make tall tiles."""
    table, kept = _empty(f, 1, d), _empty(rows, n_heads, f + block_size, d)
    return _recorded(fam, "_attend", lambda: fam.attend(_empty(rows, f, 3, n_heads, d), table, table, kept, kept))


def fam_backward(f, d, block_size, n_heads=4, rows=1):
    """Launches of its gradient."""
    table, kept = _empty(f, 1, d), _empty(rows, n_heads, f + block_size, d)
    y, p, q = (
        _empty(*shape)
        for shape in ((rows * f, n_heads * d), (rows * n_heads, f, f + block_size), (rows * n_heads, f, d))
    )
    given = y, y, p, q, kept, kept, kept, kept, table, table
    return _recorded(fam, "_attend_backward", lambda: fam.attend_backward(*given))


@cache
def reached() -> list[Launch]:
    """Launches of all chapters' profiles. Of those that differ only in what Triton knows of the arguments, the one
    that knows least and the one that knows most."""
    launches = []
    for profile in runs.profiles("goldfish"):
        p = runs.profile_values("goldfish", profile)
        for tokens in (p["text_tokens"], p["extreme_tokens"]):
            launches += mask(tokens, p["k"], p["h"])
    for chapter, more in (("goldfish", 0), ("rest", 2)):  # ReST: two ids more, of a beginning and of nothing
        for profile in runs.profiles(chapter):
            p = runs.profile_values(chapter, profile)
            launches += cross_entropy(p["vocab_size"] + more, torch.float32)
            if p["bf16"]:
                launches += cross_entropy(p["vocab_size"] + more, torch.bfloat16)
    for profile in runs.profiles("transformer_fam"):
        p = runs.profile_values("transformer_fam", profile)
        d = p["d_model"] // p["n_heads"]
        for f in {p["fam_length"], *p["fam_lengths"], *p["fact_lengths"], p["book_fam_length"]}:
            for block_size in {p["block_size"], p["book_block_size"], 16 * p["fam_length"]}:
                for rows in {1, p["batch"], p["book_batch"]} if fam.fits(f, d, torch.float32) else ():
                    launches += fam_forward(f, d, block_size, p["n_heads"], rows)
                    launches += fam_backward(f, d, block_size, p["n_heads"], rows)
    alike = defaultdict(list)
    for launch in launches:
        types = tuple(value.dtype for value in launch.values.values() if isinstance(value, torch.Tensor))
        alike[launch.kernel.__name__, types, *launch.constants.items(), *launch.options.items()].append(launch)
    chosen = []
    for group in alike.values():
        group.sort(key=lambda launch: (sum(map(len, launch.known)), launch.sizes))
        chosen += group[:1] if group[0].known == group[-1].known else [group[0], group[-1]]
    return chosen


def table() -> str:
    """A Markdown table of `reached`, compiled for each of SHARED; the same on every machine with this Triton."""
    lines = [
        f"Triton {triton.__version__}; shared memory a block may have: "
        + ", ".join(f"{limit:,} B on sm_{capability}" for capability, limit in SHARED.items())
        + ".",
        "",
        "| kernel | launch | compiled for | target | registers | shared, B | spills | on tensor cores |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for launch in reached():
        fixed = " ".join(f"{name}={value}" for name, value in (launch.constants | launch.options).items())
        name = f"{launch.kernel.__module__.split('.')[-2]}.{launch.kernel.__name__}"
        for capability in SHARED:
            c = build(launch, capability)
            cells = f"`{name}`", launch.sizes, fixed, f"sm_{capability}", c.registers, f"{c.shared:,}"
            lines.append("| " + " | ".join(map(str, (*cells, c.spills, c.tensor_core))) + " |")
    return "\n".join(lines)


def committed() -> str:
    """The table that README.md holds."""
    return README.read_text("utf8").split(BEGIN)[1].split(END)[0].strip()


def _recorded(module, name, call):
    """What call launches of the kernel of this name in module."""
    kernel, launches = getattr(module, name), []

    class Recorder:
        def __getitem__(self, grid):
            def launch(*given, **named):
                options = {key: named.pop(key) for key in list(named) if key not in kernel.arg_names}
                values = dict(zip(kernel.arg_names, given)) | named
                launches.append(Launch(kernel, {key: values[key] for key in kernel.arg_names}, options))

            return launch

    with mock.patch.object(module, name, Recorder()):
        call()
    return launches


def _empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def _type(value):
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32" if -(2**31) <= value < 2**31 else "i64"


def _tool(tool, *arguments):
    return subprocess.run([tool.path, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    before, rest = README.read_text("utf8").split(BEGIN)
    runs.write_atomically(README, f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")
