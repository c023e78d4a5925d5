"""Environments of engines and of the trainer: their pins collide, so that each has a Python environment of its own.

table     which environments there are, and what is in them (pins/*.txt)
plan      which pip steps make one on this machine (pure)
package   the running forgegate as a wheel: the same code goes into each
interpreter  which python an environment is made with
folders   where they lie; how one takes the place of another
build     venv, pip, probe, switch
causes    why pip failed, for people
"""
