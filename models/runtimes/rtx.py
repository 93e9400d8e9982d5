"""TensorRT-RTX, as a plug-in provider of ONNX Runtime: for NVIDIA's RTX GPUs. It needs the driver, no toolkit.

The package brings everything else. It compiles the graph when it loads and keeps what it compiled in the cache.
"""

from __future__ import annotations

import onnxruntime_ep_nv_tensorrt_rtx as provider

from models.bundle import GRAPH, Bundle
from models.runtimes import NamedRuntime
from models.runtimes.engines import MAX_BATCH, cache_folder, input_shapes
from models.runtimes.ort import load_provider


def load(bundle: Bundle) -> NamedRuntime:
    """The graph of ``bundle`` on the first RTX GPU, in fp32."""
    shapes = input_shapes(bundle.manifest)

    def profile(batch: int) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in shapes.items())

    kept = cache_folder() / f"rtx-{provider.__version__}-{bundle.files[GRAPH][0]}"
    settings = {
        "nv_profile_min_shapes": profile(1),
        "nv_profile_opt_shapes": profile(1),
        "nv_profile_max_shapes": profile(MAX_BATCH),
        "enable_cuda_graph": "1",
        "nv_runtime_cache_path": str(kept),
    }
    return load_provider(bundle, provider.get_ep_name(), provider.get_library_path(), settings, MAX_BATCH)
