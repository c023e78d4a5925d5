"""What a run will take, before it starts: parameters, memory by part, steps, time and cost.

From the model's config.json and the data's files; neither weights, torch nor a GPU is needed.
"""
