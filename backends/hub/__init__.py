"""Models of a Hugging Face hub, or of any server that speaks its protocol: named, chosen, fetched, kept.

names.py      ORG/NAME[:QUANT][@REVISION]                      pure
access.py     endpoint, token, offline: from the environment
client.py     the protocol: information, tree, file contents   the only one that talks to the network
choice.py     which of a repository's files make up a model    pure
download.py   one file: resumed, verified, whole or absent
store.py      what lies on disk, who may touch it
pull.py       a whole model
"""
