"""A model in smaller forms: GGUF of ten levels by llama.cpp's own quantiser, and what each form costs in quality.

levels      which levels there are
request     what may be quantised to what, and what is refused (pure)
sizes       what a level makes of a model: predicted before, counted after
estimate    perplexity, its interval, and ratios of paired measurements (pure)

The rest runs in a child, in the engine's environment (numpy, gguf, llama_cpp through backends.llamacpp.binding):

work        the child's command line: python -m backends.llamacpp.quantize.work
imatrix     importance matrices: read, written
calibrate   an importance matrix computed from text
measure     perplexity and speed of several files, in turn
"""
