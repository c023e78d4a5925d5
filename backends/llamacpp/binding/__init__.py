"""The llama.cpp C API, as far as the engine needs it. The only package that names llama_cpp and the owner of every pointer.

Built on the low-level ctypes module, not on llama-cpp-python's classes, which flatten llama_decode's return codes into
one error although each of them needs another answer (binding.errors).

A context belongs to one thread. ctypes releases the GIL for the length of each call.

    library     the loaded library and its log          model      weights and vocabulary
    devices     what computes                           context    one KV cache: next tokens
    errors      what llama.cpp refuses                  sampler    filters and the draw
    batch       what one step computes                  embedding  one vector for each text
    adapter     LoRA weights                        quantize   llama.cpp's quantiser
    activations what goes into each matrix
"""

import os

# OpenMP threads spin at every barrier of the graph by default. That is fastest on an idle machine, and 10 to 100 times
# slower where other processes want the cores too: a thread spins for one that is not running. Read when libgomp loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
