"""Which library multiplies int8 and bf16 matrices fastest here: 24 layers of 1024 x 4096 in turn.

    python -m benchmarks.kernels

Libraries that aren't installed are left out: onnxruntime, onnx, openvino, torchao. The weights
(100 MB in int8) are larger than any cache of a core, as a network's are. Writes
docs/results/kernels.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from nemotron_voice.bench.machine import describe, summary
from nemotron_voice.model.int8_linear import (
    Int8Linear,
    OneDnnProduct,
    PairsProduct,
    WeightLimit,
    quantise,
)
from nemotron_voice.model.kernels import kernels as own_kernels
from nemotron_voice.model.linear import dense

LAYERS, INPUTS, OUTPUTS = 24, 1024, 4096
ROWS = (1, 4, 14, 32, 128, 448)
REPETITIONS = 7

Run = Callable[[Tensor], object]  # all layers once, on [rows, INPUTS] fp32


def torch_kernels(weights: list[Tensor]) -> dict[str, Run]:
    """PyTorch's own."""

    def each(layers: list[Callable[[Tensor], Tensor]], dtype: torch.dtype) -> Run:
        def run(x: Tensor) -> None:
            x = x.to(dtype)
            for layer in layers:
                layer(x)

        return run

    plain = [weight.bfloat16() for weight in weights]
    torch.backends.quantized.engine = "fbgemm"
    packed = [fbgemm(weight) for weight in weights]
    own = {}
    if own_kernels() is not None:
        own["product.c int8, a scale a row (taken, without)"] = each(
            [int8(w, PairsProduct) for w in weights], torch.float32
        )
        # How many groups of inputs go together depends on what weights say: here hardly any do.
        flat = [torch.rand(OUTPUTS, INPUTS) - 0.5 for _ in weights]
        own["product.c int8, weights that are all alike in size"] = each(
            [int8(w, PairsProduct) for w in flat], torch.float32
        )
    return {
        "torch fp32": each(
            [lambda x, w=w: torch.nn.functional.linear(x, w) for w in weights], torch.float32
        ),
        "torch fp32, laid out for oneDNN (taken)": each(
            [dense(w, None, torch.float32) for w in weights], torch.float32
        ),
        "torch bf16": each(
            [lambda x, w=w: torch.nn.functional.linear(x, w) for w in plain], torch.bfloat16
        ),
        "torch bf16, laid out for oneDNN (taken)": each(
            [dense(w, None, torch.bfloat16) for w in weights], torch.bfloat16
        ),
        "torch oneDNN int8, a scale a row (taken, with VNNI)": each(
            [int8(w, OneDnnProduct) for w in weights], torch.float32
        ),
        **own,
        "torch FBGEMM int8, a scale for all rows": each(
            [lambda x, w=w: torch.ops.quantized.linear_dynamic(x, w, False) for w in packed],
            torch.float32,
        ),
    }


def int8(weight: Tensor, product: type) -> Int8Linear:
    """A matrix as the engine has it, in one of its kernels."""
    limit = WeightLimit.PAIRS if product is PairsProduct else None
    matrix, scale = quantise(weight, limit)
    made = Int8Linear(matrix, scale, None)
    made._product = product(matrix, scale / 127)
    return made


def fbgemm(weight: Tensor) -> Any:
    """A matrix as PyTorch's dynamic quantisation has it."""
    matrix, scale = quantise(weight)
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    made = torch._make_per_channel_quantized_tensor(matrix, scale.double(), zeros, 0)
    return torch.ops.quantized.linear_prepack(made, None)


def onnx_kernels(weights: list[Tensor]) -> dict[str, Run]:
    """ONNX Runtime: what its dynamic quantisation makes, and its block-wise 8 bits."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def session(name: str) -> Run:
        nodes, constants = [], []
        if name == "integer":
            nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "xs", "xz"]))
        for layer, weight in enumerate(weights):
            if name == "integer":
                matrix, scale = quantise(weight)
                constants += [
                    numpy_helper.from_array(matrix.t().contiguous().numpy(), f"w{layer}"),
                    numpy_helper.from_array(scale.numpy(), f"s{layer}"),
                ]
                nodes += [
                    helper.make_node("MatMulInteger", ["q", f"w{layer}", "xz"], [f"i{layer}"]),
                    helper.make_node("Cast", [f"i{layer}"], [f"f{layer}"], to=TensorProto.FLOAT),
                    helper.make_node("Mul", [f"f{layer}", f"s{layer}"], [f"g{layer}"]),
                    helper.make_node("Mul", [f"g{layer}", "xs"], [f"y{layer}"]),
                ]
            else:
                blocks = weight.view(OUTPUTS, INPUTS // 32, 32).numpy()
                scales = np.abs(blocks).max(-1) / 127
                bits = (np.round(blocks / scales[..., None]) + 128).astype(np.uint8)
                constants += [
                    numpy_helper.from_array(bits, f"w{layer}"),
                    numpy_helper.from_array(scales.ravel().astype(np.float32), f"s{layer}"),
                ]
                nodes.append(
                    helper.make_node(
                        "MatMulNBits",
                        ["x", f"w{layer}", f"s{layer}"],
                        [f"y{layer}"],
                        domain="com.microsoft",
                        K=INPUTS,
                        N=OUTPUTS,
                        bits=8,
                        block_size=32,
                        accuracy_level=4,
                    )
                )
        floats = TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("x", floats, ["rows", INPUTS])],
            [
                helper.make_tensor_value_info(f"y{layer}", floats, ["rows", OUTPUTS])
                for layer in range(LAYERS)
            ],
            constants,
        )
        sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=sets)
        model.ir_version = 9
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        made = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: made.run(None, {"x": x.numpy()})

    return {
        "ONNX Runtime MatMulInteger, a scale for all rows": session("integer"),
        "ONNX Runtime MatMulNBits, 8 bits": session("blocks"),
    }


def openvino_kernels(weights: list[Tensor]) -> dict[str, Run]:
    """OpenVINO with int8 weights and its dynamic quantisation of activations."""
    import openvino
    from openvino import opset13

    x = opset13.parameter([-1, INPUTS], np.float32, name="x")
    products = []
    for weight in weights:
        matrix, scale = quantise(weight)
        whole = opset13.multiply(
            opset13.convert(opset13.constant(matrix.numpy()), np.float32),
            opset13.constant(scale.numpy()[:, None]),
        )
        products.append(opset13.matmul(x, whole, transpose_a=False, transpose_b=True))
    compiled = openvino.Core().compile_model(
        openvino.Model(products, [x]),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64",
        },
    )
    request = compiled.create_infer_request()
    return {
        "OpenVINO int8": lambda x: request.infer(
            {0: x.numpy()}, share_inputs=True, share_outputs=True
        )
    }


def torchao_kernels(weights: list[Tensor]) -> dict[str, Run]:
    """Torchao's dynamic int8, without a compiler, as our engine would call it."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    layers = torch.nn.ModuleList(
        torch.nn.Linear(INPUTS, OUTPUTS, bias=False) for _ in range(LAYERS)
    )
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight.data = weight.clone()
    quantize_(layers, Int8DynamicActivationInt8WeightConfig())

    def run(x: Tensor) -> None:
        for layer in layers:
            layer(x)

    return {"torchao int8": run}


def milliseconds(run: Run, rows: int) -> float:
    """Median of all layers once."""
    x = torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(rows))
    took = []
    with torch.inference_mode():
        for _ in range(REPETITIONS + 2):
            began = time.perf_counter()
            run(x)
            took.append(time.perf_counter() - began)
    return round(1000 * median(took[2:]), 1)


def main(
    results: Annotated[Path, typer.Option(help="Where the figures go")] = Path(
        "docs/results/kernels.json"
    ),
    only: Annotated[str, typer.Option(help="Parts of names, separated by commas; all")] = "",
) -> None:
    """Measure and print the table."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(OUTPUTS, INPUTS, generator=generator) / 32 for _ in range(LAYERS)]
    figures: dict[str, dict[str, float]] = {}
    for make in (torch_kernels, onnx_kernels, openvino_kernels, torchao_kernels):
        try:
            kernels = make(weights)
        except ModuleNotFoundError as error:
            typer.echo(f"left out: {error.name} isn't installed", err=True)
            continue
        for name, run in kernels.items():
            if not any(part in name for part in only.split(",")):
                continue
            figures[name] = {str(rows): milliseconds(run, rows) for rows in ROWS}
            typer.echo(f"{name}: {figures[name]}")
    found = {"machine": describe(), "milliseconds": figures}
    results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(table(found))


def table(found: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| ms | " + " | ".join(f"{rows} rows" for rows in ROWS) + " |"]
    lines.append("|---|" + "---:|" * len(ROWS))
    for name, cells in found["milliseconds"].items():
        lines.append(f"| {name} | " + " | ".join(f"{ms:.1f}" for ms in cells.values()) + " |")
    return "\n".join(lines) + f"\n\n{summary(found['machine'])}."


if __name__ == "__main__":
    typer.run(main)
