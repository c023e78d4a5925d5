"""`forgegate optimize`: which settings of an engine answer most requests within an SLO, on this machine and for this traffic.

settings   options with listed values, and every combination of them      schemas    the engines' own schemas, which refuse the rest
lists      what is tried where nothing is listed                          levels     streams or a rate, bisected within one launch
trial      one launch: what was measured, or why it was not               quality    whether a setting answers as the defaults do
search     random, grid, successive halving: pure                         verify     fresh prompts, in turns with the defaults: pure
journal    the work folder, which a second call goes on from              runner     trials, written down as they are measured
launches   real engines, by `forgegate serve` on a configuration of ours  session    all of it in order, within a budget
document   the result, and the engine block for forgegate.yaml            page       the same as one HTML page
options    the command line                                               command    `forgegate optimize`
campaign   the search against the defaults, and against random search
"""
