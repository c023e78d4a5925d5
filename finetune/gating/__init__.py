"""Whether a candidate may go live: paired scores in, a verdict out. Pure; numpy and the standard library.

paired      scores of the same items by what is live and by the candidate, with the clusters they fall into
intervals   one-sided bounds on the mean difference over clusters
looks       how often may be looked, and at which level each time
verdict     GO, NO-GO or INCONCLUSIVE; or which skills need more items
settling    how many items would settle what is undecided
remedies    what to change in a recipe after NO-GO, in order
document    the verdict as it is stored and sent, with its digest
simulation  the error rates of all that, over synthetic pairs of models (settings: which; synthetic: how they are
            drawn; error_page: as Markdown)
"""
