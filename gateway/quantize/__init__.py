"""`forgegate quantize`: a model in smaller forms, and what each costs.

command     options, what they mean, how the command ends
order       what is wanted, what came of it (values)
job         the GGUF levels: converted, quantised, measured
awq         the folder for vLLM
children    who does the work, each in its own environment
place       where it is written: one process at a time
view        progress, and the table
"""
