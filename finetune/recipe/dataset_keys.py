"""Keys of one item of `datasets`, `test_datasets`, `general` and `ewc`."""

from __future__ import annotations

from collections.abc import Mapping

COLUMNS = ("instruction", "input", "output", "system", "prompt", "completion", "messages", "conversations", "text")
"""What a row's fields are called here."""
COLUMN_KEYS: Mapping[str, str] = {
    "field_instruction": "instruction", "field_input": "input", "field_output": "output", "field_system": "system",
    "field_messages": "messages", "field": "text", "text_column": "text",
}  # fmt: skip
HONOURED: Mapping[str, str] = {
    "path": "a file, or a folder of the files that data_files names",
    "data_files": "files of the folder `path`",
    "type": "the form that every row must have; as each is recognised where it is not given",
    "columns": "which fields of the file are instruction, input, output, ...",
    "roles": "which words of the file mean user, assistant, ...; held against those that are known",
    "share": "of general rows in the training set; in `general` only",
    "rows": "how many are measured; in `ewc` only",
    **{key: f"which field is {column}" for key, column in COLUMN_KEYS.items()},
}
NOTED: Mapping[str, str] = {
    "ds_type": "what kind of file it is is told by its content",
    "preprocess_shards": "rows are read one by one",
    "logprobs_field": "it belongs to a key that is refused here, and does nothing without it",
    "temperature": "it belongs to a key that is refused here, and does nothing without it",
}
_TEMPLATE = "rows are rendered with the base's own chat template, as engines render requests: leave it out"
_MASK = "what the loss counts is train_on_inputs for the whole recipe, and `train: false` or `weight: 0` in a message: leave it out"
_FILES = "data is read from files: download the set, and name its files under path"
_FIELDS = "a message has role and content, or from and value: rename its fields in the file"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("chat_template", "chat_template_jinja", "conversation", "system_prompt", "system_format", "format", "no_input_format",
         "prompt_format", "chosen_format", "rejected_format", "input_format", "input_transform", "template_thinking_key",
         "split_thinking", "drop_system_message"),
        _TEMPLATE,
    ),
    **dict.fromkeys(("roles_to_train", "train_on_eos", "message_field_training", "message_field_training_detail",
                     "train_on_last_step_only"), _MASK),
    **dict.fromkeys(("split", "name", "revision", "shards", "shards_idx", "trust_remote_code", "skip"), _FILES),
    **dict.fromkeys(("message_field_role", "message_field_content", "message_property_mappings", "field_human", "field_model",
                     "field_tools", "field_thinking"), _FIELDS),
    **dict.fromkeys(("field_chosen", "field_rejected", "field_prompt", "field_completion", "field_label", "completion_format",
                     "step_separator",
                     "max_completion_length"), "training here is supervised, on instruction and output or on messages"),
    **dict.fromkeys(("length", "sequence_length", "min_input_id", "max_input_id", "seed"), _FILES),
}  # fmt: skip
HARMLESS: Mapping[str, tuple[str, ...]] = {
    "chat_template": ("tokenizer_default",),
    "split": ("train",),
    "train_on_eos": ("turn",),
    "roles_to_train": ("assistant", "gpt"),
    "message_field_training": ("train", "weight"),
    "message_field_role": ("role", "from"),
    "message_field_content": ("content", "value"),
    "message_property_mappings": ("role", "content", "from", "value"),
    "field_tools": ("tools",),
    "field_prompt": ("prompt",),
    "field_completion": ("completion",),
}
"""Words that ask for what is done anyway."""
OF_SECTION: Mapping[str, str] = {"share": "general", "rows": "ewc"}
"""Keys of one section only."""
