"""The machinery behind the lessons."""

import logging
import os

# What these two warn of while they load concerns kernels that a CPU never has.
for _name in ("vllm.triton_utils.importing", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(_name).setLevel(logging.ERROR)
# Rows differ in length: the GPU's allocator then grows what it has, instead of keeping blocks of every size.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
